"""`no_grad`, `recording` and `scalar_graph` belong to the context that entered them: a thread, a task, a generator
while it runs. And whatever is done with the blocks, the global count of open ones comes back to what it was."""
import asyncio
import contextlib
import contextvars
import gc
import threading

import pytest

import flatgrad
from flatgrad import Value, _core, no_grad, scalar_graph
from flatgrad._core import recording
from flatgrad.nn import MLP

pytestmark = pytest.mark.usefixtures("moving")


def records():
    """Whether operations are recorded; by an operator, an instruction and a layer alike."""
    a = Value(2.0)
    ops = {(a * a)._op != "", flatgrad.dot([a, a], [1.0, 2.0])._op != "", flatgrad.Tensor([1.0, 2.0]).tanh().requires_grad,
           MLP(1, [2])([a])[0]._op != ""}
    assert len(ops) == 1
    return ops.pop()


def is_scalar():
    a = Value(2.0)
    return flatgrad.dot([a, a], [1.0, 2.0])._op == "+"


# Each block, and whether it is in force.
KINDS = {"no_grad": (no_grad, lambda: not records()), "scalar_graph": (scalar_graph, is_scalar)}
kinds = pytest.mark.parametrize("block, inside", KINDS.values(), ids=KINDS)


@pytest.fixture(autouse=True)
def all_blocks_are_left():
    before = _core._open_blocks()
    yield
    gc.collect()
    assert _core._open_blocks() == before == (0, 0)


@kinds
def test_another_task_is_outside(block, inside):
    seen = []

    async def holds(entered, leave):
        with block():
            seen.append(inside())
            entered.set()
            await leave.wait()
            seen.append(inside())
        seen.append(inside())

    async def main():
        entered, leave = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(holds(entered, leave))
        await entered.wait()
        seen.append(inside())
        leave.set()
        await task

    asyncio.run(main())
    assert seen == [True, False, True, False]


def test_gradients_of_a_task_are_whole_while_another_predicts():
    model = MLP(2, [3, 1], activation="tanh")

    async def predicts():
        for _ in range(5):
            with no_grad():
                assert model([1.0, 2.0])._prev == set()
                await asyncio.sleep(0)

    async def trains():
        for _ in range(5):
            model.zero_grad()
            loss = model([1.0, 2.0])
            await asyncio.sleep(0)
            (loss * loss).backward()
            assert any(p.grad for p in model.parameters())

    async def main():
        await asyncio.gather(predicts(), trains(), predicts())

    asyncio.run(main())


@kinds
def test_tasks_that_are_made_within_are_inside_until_it_is_left(block, inside):
    seen = []

    async def child(go_on):
        seen.append(inside())
        await go_on.wait()
        seen.append(inside())

    async def main():
        go_on = asyncio.Event()
        with block():
            await asyncio.gather(asyncio.sleep(0), child_once())
            task = asyncio.create_task(child(go_on))
            await asyncio.sleep(0)
            seen.append(await asyncio.to_thread(inside))
        go_on.set()
        await task

    async def child_once():
        seen.append(inside())

    asyncio.run(main())
    assert seen == [True, True, True, False]


@kinds
def test_a_suspended_generator_does_not_touch_its_caller(block, inside):
    def generator():
        seen.append(inside())
        with block():
            seen.append(inside())
            yield 1
            seen.append(inside())
            yield from part()
            seen.append(inside())
        seen.append(inside())

    def part():
        seen.append(inside())
        yield 2

    seen = []
    for _ in generator():
        seen.append(("caller", inside()))
    assert seen == [False, True, ("caller", False), True, True, ("caller", False), True, False]


@kinds
def test_nor_does_one_that_is_left_alone(block, inside):
    def generator():
        with block():
            yield

    held = generator()
    next(held)
    assert not inside()
    with block():
        assert inside()
    assert not inside()
    del held
    gc.collect()
    assert not inside()


@kinds
def test_a_suspended_async_generator_does_not_touch_its_caller(block, inside):
    seen = []

    async def generator():
        with block():
            seen.append(inside())
            yield 1
            await asyncio.sleep(0)
            seen.append(inside())
            yield 2
        seen.append(inside())

    async def main():
        async for _ in generator():
            seen.append(("caller", inside()))
            await asyncio.sleep(0)

    asyncio.run(main())
    assert seen == [True, ("caller", False), True, ("caller", False), False]


@kinds
def test_a_generator_within_a_block_of_its_caller(block, inside):
    def generator():
        yield inside()
        yield inside()

    held = generator()
    with block():
        assert next(held)
    assert not next(held)


@kinds
def test_a_context_manager_made_of_a_generator_is_in_force_in_its_body(block, inside):
    @contextlib.contextmanager
    def manager():
        with block():
            assert inside()
            yield
        assert not inside()

    class Manager:
        def __enter__(self):
            self.block = block()
            self.block.__enter__()

        def __exit__(self, *exception):
            self.block.__exit__(*exception)

    def generator(make):
        with make():
            yield inside()
        yield inside()

    def with_stack():
        with contextlib.ExitStack() as stack:
            stack.enter_context(block())
            yield inside()
        yield inside()

    for make in manager, Manager:
        with make():
            assert inside()
        assert not inside()
    with contextlib.ExitStack() as stack:
        stack.enter_context(manager())
        assert inside()
    assert manager()(inside)() and not inside()
    for suspended in generator(manager), generator(Manager), with_stack():
        assert next(suspended) and not inside()   # the body of the `with` is in the generator
        assert next(suspended) is False and not inside()


def test_an_async_context_manager_is_in_force_in_its_body():
    seen = []

    @contextlib.asynccontextmanager
    async def manager():
        with no_grad():
            await asyncio.sleep(0)
            yield

    async def other():
        seen.append(records())

    async def main():
        task = asyncio.create_task(other())
        async with manager():
            seen.append(records())
            await task
            seen.append(records())
        seen.append(records())

    asyncio.run(main())
    assert seen == [True, False, False, True]   # the other task runs while the manager waits


@kinds
def test_another_thread_is_outside(block, inside):
    seen, entered, leave = [], threading.Event(), threading.Event()

    def holds():
        with block():
            seen.append(inside())
            entered.set()
            leave.wait(20)

    thread = threading.Thread(target=holds)
    thread.start()
    entered.wait(20)
    seen.append(inside())
    with block():
        leave.set()
        thread.join()
        seen.append(inside())
    assert seen == [True, False, True]


@kinds
def test_in_another_order_twice_and_in_another_thread(block, inside):
    one, other = block(), block()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert inside()
    one.__exit__(None, None, None)   # it has been left
    assert inside()
    other.__exit__(None, None, None)
    assert not inside()
    with one:
        with one:
            pass
        assert inside()
    assert not inside()
    one.__enter__()
    thread = threading.Thread(target=one.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    assert not inside()
    with pytest.raises(ZeroDivisionError), one:
        1 / 0
    assert not inside()
    contextvars.copy_context().run(one.__enter__)
    assert not inside()
    one.__exit__(None, None, None)


def test_a_decorated_function_in_two_threads():
    entered, leave, seen = threading.Event(), threading.Event(), []

    @no_grad()
    def decorated(first):
        if first:
            entered.set()
            leave.wait(20)
        seen.append(records())

    thread = threading.Thread(target=decorated, args=(True,))
    thread.start()
    entered.wait(20)
    decorated(False)
    assert records()
    leave.set()
    thread.join()
    assert seen == [False, False]


def test_a_thread_that_ends_within_a_block_leaves_it():
    def enters():
        for _ in range(100_000):   # and such a chain does not recurse
            no_grad().__enter__()
            scalar_graph().__enter__()

    thread = threading.Thread(target=contextvars.Context().run, args=(enters,))
    thread.start()
    thread.join()
    assert records() and not is_scalar()


def test_generators_that_overlap_keep_no_chain_of_those_that_have_ended():
    def generator():
        with no_grad():
            yield

    running = generator()
    next(running)
    gc.collect()
    before = None
    for k in range(3000):
        following = generator()
        next(following)
        running.close()
        running = following
        assert _core._open_blocks() == (1, 0)
        if k == 100:
            before = chain_length()
    assert chain_length() <= before
    running.close()
    assert records()


def chain_length():
    import sys
    return sys.getallocatedblocks() // 1000   # a block kept for each round would be 3 more


def test_a_block_entered_by_hand_in_a_generator_that_has_gone():
    def generator():
        no_grad().__enter__()
        yield

    next(generator())
    gc.collect()
    assert records()
    with no_grad():
        assert not records()
    assert records()


def test_recording_within_and_around():
    def generator():
        with recording():
            yield records()

    with no_grad():
        suspended = generator()
        assert next(suspended) and not records()
        with recording():
            assert records()
            with no_grad():
                assert not records()
            assert records()
        assert not records()
        suspended.close()
    assert records()


def test_a_transform_in_one_task_while_another_predicts():
    async def predicts(entered, leave):
        with no_grad():
            entered.set()
            await leave.wait()

    async def main():
        entered, leave = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(predicts(entered, leave))
        await entered.wait()
        result = flatgrad.grad(lambda x: x * x)(3.0)
        leave.set()
        await task
        return result

    assert asyncio.run(main()) == 6.0
