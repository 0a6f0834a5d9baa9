"""Calls of compiled functions that are like an earlier one: the program is found without a key, and is the right one."""
import enum
import functools
import math
import subprocess
import sys
from collections import OrderedDict, defaultdict, namedtuple

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, _core, nn
from flatgrad._core import _note_read
from flatgrad.errors import ArgumentError, ArgumentTypeError, ShapeError
from flatgrad.structures import leaves_of, map_leaves

Point, Pair = namedtuple("Point", "x y"), namedtuple("Pair", "x y")


class Shade(enum.IntEnum):
    LIGHT = 1


class Whole(int):
    pass


class Mark:
    pass


A_MARK, FROZEN = Mark(), Value(4.0)
FROZEN.requires_grad = False
FROZEN_TENSOR = Tensor([1.0, 2.0])
FROZEN_TENSOR.requires_grad = False

# Arguments, some of which differ in what a key tells apart, and some in numbers alone.
LIKE = [
    2.0, 3, -0.0, True, False, None, ..., "a", "b", b"a", Shade.LIGHT, Whole(3), np.float64(1.5), np.float32(1.5), np.int64(3),
    np.bool_(True), 2**53, 2**53 + 1, Value(2.0), Value(3.0), FROZEN, A_MARK, Mark(), math.nan, 1j,
    Tensor([1.0, 2.0]), Tensor([1.0, 2.0, 3.0]), Tensor([[1.0, 2.0]]), Tensor([1.0, 2.0], requires_grad=False), FROZEN_TENSOR,
    np.array([1.0, 2.0]), np.array([1.0, 2.0], np.float32), np.array([1, 2]), np.array([2**53 + 1, 0]), np.array([True, False]),
    np.array([[1.0, 2.0]]), np.array(3.0), np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0, 4.0])[::2],
    [], (), {}, [1.0], (1.0,), [True], [Value(1.0)], [1.0, 2.0], [2.0, 1], [1.0, Value(2.0)], [np.float64(1.0), 2.0],
    [[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0, True]], [[1.0, 2.0], (3.0, 4.0)], [[1.0, 2.0], [3.0]], [None, 1.0], ["a", 1.0],
    [1.0] * 40, [2] * 40, [[1.0] * 40, "a"], [[2.0] * 40, "a"],
    {"a": 1.0, "b": 2.0}, {"b": 2.0, "a": 1.0}, {"a": 1.0, "c": 2.0}, {"a": 3.0, "b": 4.0}, {"a": 1.0}, {1: 1.0}, {True: 1.0},
    {1.0: 1.0}, {(1, "a"): 1.0}, {(1, "b"): 1.0}, {"a": {"b": 1.0, "c": 2.0}}, {"a": {"c": 1.0, "b": 2.0}},
    OrderedDict(a=1.0, b=2.0), defaultdict(list, a=1.0, b=2.0), Point(1.0, 2.0), Point(3.0, 4.0), Pair(1.0, 2.0),
    [np.array([1.0, 2.0]), 1.0], [np.array([1.0]), 2.0], (1.0, np.array([1.0, 2.0])), [Tensor([1.0]), np.array([1.0])],
]


def total_of(x, *more, **by_name):
    """Depends on all leaves and on the structure, so that wrong programs show."""
    total = weight = 0.0
    for place, leaf in enumerate(leaves_of([x, *more, *[by_name[name] for name in sorted(by_name)]])):
        if isinstance(leaf, (Value, Tensor)):
            total, weight = total + (place + 1) * (leaf.sum() if isinstance(leaf, Tensor) else leaf), weight + 1
    return total, weight, repr(map_leaves(lambda name, leaf: type(leaf).__name__, x))


def outcome(f, *args, **kwargs):
    try:
        total, *rest = f(*args, **kwargs)
    except Exception as error:
        return type(error), str(error)
    return repr(total.data if isinstance(total, Value) else total), rest


def key_of(f, *args, **kwargs):
    try:
        return f._key(args, kwargs, [])
    except (TypeError, ValueError):
        return None


@pytest.mark.parametrize("number", range(len(LIKE)))
def test_a_program_is_found_again_for_the_same_structure_and_for_no_other(number):
    first = LIKE[number]
    f = flatgrad.compile(total_of)
    if outcome(f, first)[0] in (TypeError, ArgumentError, ArgumentTypeError, ShapeError):
        return
    for second in LIKE:
        for warm in range(2):
            again = flatgrad.compile(total_of)
            again(first)
            again(first) if warm else None
            want = outcome(flatgrad.compile(total_of), second)
            before = again.cache_info()
            assert outcome(again, second) == want, (first, second)
            same = key_of(again, second) == key_of(again, first)
            assert again.cache_info().misses - before.misses == (not same and key_of(again, second) is not None), (first, second)
            assert again.cache_info().hits - before.hits == same
    if repr(first) != "nan":
        assert outcome(f, [first], other=first) == outcome(flatgrad.compile(total_of), [first], other=first)


def test_arguments_by_keyword_are_no_positional_ones():
    def f(x, number=0.0, z=0.0):
        return x + 10 * number + 100 * z

    f = flatgrad.compile(f)
    for _ in range(3):
        assert f(1.0, number=2.0).data == 21.0
        assert f(1.0, 2.0, 3.0).data == 321.0
        assert f(1.0, z=2.0).data == 201.0
        assert f(x=1.0, z=2.0).data == 201.0
        assert f(z=2.0, x=1.0, number=3.0).data == 231.0
    assert f.cache_info()[:2] == (10, 5) and "number=number" in f.explain()


def test_which_program_is_used_last_counts_for_calls_that_are_alike():
    f = flatgrad.compile(lambda x: total_of(x)[0])
    for k in range(1, 129):
        f([1.0] * k)
    f([2.0])          # again: now the program of two numbers is the one used longest ago
    f([3.0])
    f([1.0] * 200)
    before = f.cache_info().misses
    assert f([4.0]).data == 4.0 and f.cache_info().misses == before
    f([1.0, 2.0])
    assert f.cache_info().misses == before + 1


def test_values_that_change_what_a_key_says_of_them():
    w, t = Value(2.0), Tensor([1.0, 2.0])
    f = flatgrad.compile(lambda x, y: x * y.sum())
    for _ in range(3):
        f(w, t)
    assert f.cache_info().misses == 1
    w.requires_grad = False
    for _ in range(2):
        assert f(w, t).data == 6.0 and f.cache_info().misses == 2
    t.requires_grad = False
    for _ in range(2):
        assert f(w, t).data == 6.0 and f.cache_info().misses == 3
    w.requires_grad = t.requires_grad = True
    total = f(w, t)
    total.backward()
    assert f.cache_info().misses == 3 and w.grad == 3.0 and t.grad.tolist() == [2.0, 2.0]


def test_one_value_twice_is_two_leaves():
    x, y = Value(2.0), Value(3.0)
    f = flatgrad.compile(lambda a, b: a * b)
    for a, b in ((x, x), (x, y), (y, x), (x, x)):
        x.grad = y.grad = 0.0
        total = f(a, b)
        total.backward()
        assert total.data == a.data * b.data and (x.grad, y.grad) == (
            (4.0, 0.0) if a is b else (3.0, 2.0))
    assert f.cache_info().misses == 1


def test_a_list_that_is_changed_between_calls():
    f = flatgrad.compile(lambda rows: total_of(rows)[0])
    rows = [[1.0, 2.0], [3.0, 4.0]]
    assert f(rows).data == f(rows).data == 30.0
    rows[0][0] = 11.0
    assert f(rows).data == 40.0 and f.cache_info().misses == 1
    rows[1] = [Value(3.0), 4.0]
    assert f(rows).data == 40.0 and f.cache_info().misses == 2
    rows[1].append(5.0)
    assert f(rows).data == 65.0 and f.cache_info().misses == 3
    rows.append(rows)
    with pytest.raises(ArgumentError, match="contains itself"):
        f(rows)
    rows.pop()
    assert f(rows).data == 65.0 and f.cache_info().misses == 3


def test_static_arguments_of_calls_that_are_alike():
    f = flatgrad.compile(lambda x, n: (x * n[0], repr(n)), static_argnums=1)
    for n in ((1, 2), (1, 2.0), (1, True), (1, -0.0), (1, 0.0), (1, A_MARK), (1, Mark()), (1, (2, 3)), (1, (2,)), (1,), (1, "a"),
              Point(1, 2), Pair(1, 2), (1, math.nan), (1, 2**70), (1, 2**70 + 1)):
        misses = f.cache_info().misses
        for k in range(3):
            assert f(1.0, n)[1] == repr(n) and f.cache_info().misses == misses + 1, n
    f = flatgrad.compile(lambda x, *, n: (x * n, repr(n)), static_argnames="n")
    for n in (1, 1.0, True, -0.0, 0.0, 2**70):
        misses = f.cache_info().misses
        for k in range(3):
            assert f(1.0, n=n)[1] == repr(n) and f(float(k), n=n)[0].data == k * n
            assert f.cache_info().misses == misses + 1, n


def test_an_attribute_that_decides_and_runs_python_code_when_it_is_read():
    """The function is called within, and forgotten, while its last calls are looked at."""
    w = Value(2.0)

    class Model(nn.Module):
        @property
        def training(self):
            for _ in range(self.times):
                self.times -= 1
                f.clear()
                f(1.0)
            return self.state

        @training.setter
        def training(self, x):
            pass

        def __call__(self, x):
            _note_read(self, "training")
            return w * x

    Model.times, Model.state = 0, True
    model = Model()
    f = flatgrad.compile(lambda x: model(x))
    assert f(3.0).data == f(3.0).data == 6.0
    Model.state = False
    assert f(3.0).data == f(3.0).data == 6.0 and f.cache_info()[:2] == (2, 2)
    model.__dict__["times"] = 1
    assert f(3.0).data == 6.0
    assert f(3.0).data == 6.0


def test_results_of_calls_that_are_alike():
    w, array = Value(2.0), np.array([1.0])

    @flatgrad.compile
    def f(x):
        y = w * x
        return {"a": [y, (y, 3)], "b": Point(y, array), "c": OrderedDict(z=x * 1.0), "d": None, "e": defaultdict(list, k=y)}

    f(1.0)
    first, second = f(2.0), f(3.0)
    assert first["a"][0] is first["a"][1][0] is first["b"].x is first["e"]["k"] and first["a"][0].data == 4.0
    assert second["a"][0].data == 6.0 and type(first["b"]) is Point and type(first["c"]) is OrderedDict
    assert first["e"].default_factory is list and first["d"] is None and first["a"][1][1] == 3
    assert first["b"].y is not second["b"].y and first["b"].y.tolist() == [1.0]
    constant = flatgrad.compile(lambda x: [1, "a"])
    assert constant(1.0) == constant(2.0) == [1, "a"] and constant(1.0) is not constant(1.0)


def test_a_batch_like_an_earlier_one(monkeypatch):
    w = Value(2.0)
    f = flatgrad.compile(lambda x, k: w * x.sum() + k)
    batch = flatgrad.vmap(f, in_axes=(0, None))
    for k in range(4):
        assert batch(np.array([[1.0, 2.0], [3.0, float(k)]]), 1.0).tolist() == [7.0, 7.0 + 2 * k]
    assert f.cache_info() == (3, 1, 128, 1)
    assert batch(np.ones((3, 2)), 1.0).tolist() == [5.0] * 3 and f.cache_info().misses == 1
    w = Value(3.0)
    assert batch(np.ones((3, 2)), 1.0).tolist() == [7.0] * 3 and f.cache_info().misses == 2
    f.clear()
    assert batch(np.ones((3, 2)), 1.0).tolist() == [7.0] * 3 and f.cache_info()[:2] == (0, 1)
    columns = flatgrad.vmap(f, in_axes=(1, None))
    assert columns(np.ones((2, 3)), 1.0).tolist() == columns(np.ones((2, 3)), 1.0).tolist() == [7.0] * 3
    assert f(Tensor([1.0, 1.0], requires_grad=False), 1.0).data == 7.0
    pair = flatgrad.vmap(flatgrad.compile(lambda x: (x * w, {"a": x})), out_axes=0)
    for k in range(3):
        first, rest = pair(np.array([1.0, k]))
        assert first.tolist() == [3.0, 3.0 * k] and rest["a"].tolist() == [1.0, k]


def test_a_vmapped_function_stands_where_functions_do():
    class Model:
        w = Value(2.0)

        @functools.partial(flatgrad.vmap, in_axes=(None, 0))
        def scaled(self, x):
            "Scaled."
            return self.w * x

    assert Model().scaled(np.array([1.0, 2.0])).tolist() == [2.0, 4.0]
    assert Model.scaled.__name__ == "vmap(scaled)" and Model.scaled.__doc__ == "Scaled." and "vmap" in repr(Model.scaled)


def test_what_a_vmapped_function_leads_to_is_looked_at():
    class Model:
        def __init__(self):
            self.w = Value(2.0)

    model = Model()
    inner = flatgrad.vmap(lambda x: model.w * x)
    f = flatgrad.compile(lambda x: inner(x).sum())
    assert f(np.array([1.0, 2.0])).data == f(np.array([1.0, 2.0])).data == 6.0
    model.w = Value(3.0)
    assert f(np.array([1.0, 2.0])).data == 9.0


# ---- keys as our modules give them ----

NUMBER, VALUE, FROZEN_VALUE, TENSOR, ARRAY = _core._LEAVES
STATIC = _core._Static


class Calls(_core._Replays):
    """What is called without a program: `misses`."""

    def __init__(self):
        self._programs = OrderedDict(key=1)

    def _call(self, args, kwargs):
        return "missed"


def replay_of(*parts, watched=(), values=(), places=None):
    calls = Calls()
    calls.remember(_core._Replay(parts, watched, values, places, "key", list))
    return calls


def nested(depth, x, make):
    for _ in range(depth):
        x = make(x)
    return x


def static(x):
    return (STATIC, type(x), x)


@pytest.mark.parametrize("part, like, unlike", [
    (NUMBER, [1.0, 2, np.float64(3.0)], [True, "a", None, np.float32(1.0), 2**53 + 1, Value(1.0)]),
    (VALUE, [Value(1.0)], [FROZEN, 1.0, Tensor([1.0])]),
    (FROZEN_VALUE, [FROZEN], [Value(1.0), 1.0]),
    ((TENSOR, (2,), True), [Tensor([1.0, 2.0])], [Tensor([1.0]), Tensor([[1.0, 2.0]]), FROZEN_TENSOR, [1.0, 2.0]]),
    ((ARRAY, (2,)), [np.ones(2), np.ones(2, np.float32)], [np.ones(3), np.ones((2, 1)), np.ones(2, int), [1.0, 2.0]]),
    ((list, NUMBER, VALUE), [[1.0, Value(2.0)]], [(1.0, Value(2.0)), [1.0], [Value(1.0), 1.0], [1.0, Value(1.0), 2.0]]),
    ((dict, ("a", NUMBER), ("b", (list, NUMBER))), [{"a": 1.0, "b": [2]}],
     [{"b": [2.0], "a": 1.0}, {"a": 1.0}, {"a": 1.0, "c": [2.0]}, {"a": 1.0, 1: [2.0]}, {"a": 1.0, "b": 2.0},
      OrderedDict(a=1.0, b=[2.0]), [("a", 1.0), ("b", [2.0])]]),
    ((dict, ("".join(["a", " key"]), NUMBER)), [{"a key": 1.0}, {"".join(["a k", "ey"]): 2.0}], [{"a kez": 1.0}]),
    ((dict, (static(10**6), NUMBER)), [{10**6: 1.0}, {int("1000000"): 2.0}], [{10**6 + 1: 1.0}, {1e6: 1.0}, {"a": 1.0}]),
    (static(10**6), [10**6, int("1000000")], [10**6 + 1, 1e6, True, "a"]),
    (static("a text"), ["a text", "".join(["a ", "text"])], ["a texts", b"a text", None]),
    (static(b"bytes"), [b"bytes", bytes(list(b"bytes"))], [b"byte", "bytes"]),
    ((STATIC, float, (0.5).hex()), [0.5, float("0.5")], [0.25, 1, np.float64(0.5)]),
    ((STATIC, tuple, static(1), static("a")), [(1, "a")], [(1,), (1, "b"), [1, "a"], (1, "a", 1)]),
    ((STATIC, Mark, _core._Same(A_MARK)), [A_MARK], [Mark(), None]),
    ((STATIC, int, "a"), [], [3, "a"]),
    ((STATIC, Mark, A_MARK), [], [A_MARK]),   # seldom seen: whoever gets a no makes the key
    ((Point, NUMBER, NUMBER), [Point(1.0, 2.0)], [Pair(1.0, 2.0), (1.0, 2.0), Point(1.0, "a"), [1.0, 2.0]]),
    ((int, NUMBER), [], [1, 1.0, [1.0], Point(1.0, 2.0)]),   # such a type has no parts
    ((Whole,), [], [Whole(3), 3]),
], ids=lambda x: None)
def test_what_fits_a_part(part, like, unlike):
    calls = replay_of(part)
    for x in like:
        assert isinstance(calls(x), list), x
    for x in unlike:
        assert calls(x) == "missed", x
    assert calls() == calls(1.0, 2.0) == calls(x=1.0) == "missed"


@pytest.mark.parametrize("part_of, make", [
    (lambda part: (list, part), lambda x: [x]), (lambda part: (tuple, part), lambda x: (x,)),
    (lambda part: (dict, ("a", part)), lambda x: {"a": x}), (lambda part: (Point, part, NUMBER), lambda x: Point(x, 1.0))])
def test_what_is_too_deep_gets_a_no(part_of, make):
    for depth, found in ((200, True), (201, False), (400, False)):
        calls = replay_of(nested(depth, NUMBER, part_of))
        assert (calls(nested(depth, 2.0, make)) != "missed") is found


@pytest.mark.parametrize("part, match", [
    (None, "key: expected parts of a key, got None"), ([], "expected parts"), ((), "expected parts"), ("other", "expected parts"),
    ((TENSOR, (2,)), "expected a shape"), ((TENSOR, 2, True), "expected a shape"), ((TENSOR, (-1,), True), "expected a shape"),
    ((ARRAY,), "expected a shape"), ((ARRAY, [2]), "expected a shape"), ((3, NUMBER), "expected a type, got int 3"),
    ((list, None), "expected parts"), ((dict, NUMBER), "expected pairs"), ((dict, ("a",)), "expected pairs"),
    ((dict, ["a", NUMBER]), "expected pairs"), ((dict, (3, NUMBER)), "expected a static part"),
    ((dict, ("a", None)), "expected parts"), ((STATIC,), "expected a static part"), ((STATIC, tuple, 3), "static part"),
    ((STATIC, tuple, (STATIC,)), "static part"), ((STATIC, tuple, (list, int)), "static part"),
])
def test_keys_that_are_none(part, match):
    for key in ((part,), (NUMBER, part), ((_core._Keywords, ("k", part)),)):
        with pytest.raises(TypeError, match=match):
            _core._Replay(key, (), (), None, "key", list)


@pytest.mark.parametrize("pair", [None, ["k", NUMBER], ("k",), ("k", NUMBER, NUMBER), ()])
def test_keywords_that_are_no_pairs(pair):
    with pytest.raises(TypeError, match="key: expected pairs"):
        _core._Replay((NUMBER, (_core._Keywords, ("j", NUMBER), pair)), (), (), None, "key", list)


@pytest.mark.parametrize("watched, values, match", [
    ([A_MARK], [static(1)], "expected pairs, got Mark"), ([(A_MARK,)], [static(1)], "expected pairs"),
    ([(A_MARK, "a")], [], "values: expected 1, got 0"), ([], [static(1)], "values: expected 0, got 1"),
    ([(A_MARK, "a")], [NUMBER], "expected a static part"), ([(A_MARK, "a")], [None], "expected a static part"),
])
def test_watched_attributes_that_are_none(watched, values, match):
    with pytest.raises(TypeError, match=match):
        _core._Replay((), watched, values, None, "key", list)


def test_places_decide_as_well():
    names, places = {"a": 1}, _core._Places()
    places.dicts.append((names, "a", 1))
    calls = replay_of(NUMBER, places=places)
    assert calls(2.0) == [2.0]
    names["a"] = 2
    assert calls(2.0) == "missed"


def test_whose_programs_they_are():
    owner, other = Calls(), Calls()
    other.replays_of(owner)
    for wrong, of in ((owner, owner), (owner, other), (other, other)):
        with pytest.raises(ValueError, match="other: expected one with programs of its own"):
            wrong.replays_of(of)
    other.remember(_core._Replay((NUMBER,), (), (), None, "key", list))
    assert other(1.0) == [1.0] and (owner._hits, other._hits) == (1, 0)
    owner.forget()
    assert other(1.0) == "missed"


def test_the_same_object_in_a_key():
    a, b = [1], [1]
    same = _core._Same(a)
    assert same == _core._Same(a) and hash(same) == hash(_core._Same(a)) and {same: 1}[_core._Same(a)] == 1
    assert same != _core._Same(b) and same != a and same.x is a and same != 3


def test_every_call_goes_the_long_way_within_detect_anomaly():
    """Whether it is on there or not, and no longer."""
    calls = replay_of(NUMBER)
    for switch in (None, True, False):
        assert calls(1.0) == [1.0]
        with flatgrad.detect_anomaly():
            assert calls(1.0) == "missed"
            if switch is not None:
                flatgrad.set_detect_anomaly(switch)
            assert calls(1.0) == "missed"
    assert calls(1.0) == [1.0]


def test_numbers_without_numpy():
    """Programs of micrograd's kind do without it."""
    code = """
import sys
from flatgrad import _core
replay = _core._Replay((_core._LEAVES[0],), (), (), None, "key", list)
class Calls(_core._Replays):
    def _call(self, args, kwargs):
        return "missed"
calls = Calls()
calls._programs = {}
calls.remember(replay)
assert calls(1.0) == [1.0] and calls(2) == [2] and calls("a") == calls(True) == "missed"
assert "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
