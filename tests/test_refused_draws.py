"""Random numbers that the compiled module does not draw: of shapes that no Tensor has, and where a lock cannot be had;
and a Tensor that is made while its elements move."""
import numpy as np
import pytest

from flatgrad import Tensor, _core
from flatgrad.errors import ShapeError
from test_refusals import MOST, refused, unmade

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def test_draws_of_other_shapes():
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    for shape in ((0,), (-1,), (2, 0), (0, 2**40)):
        refused(ShapeError, "shape: expected at least one element in each dimension", _core._Draws, rng, "normal",
                shape)
    refused(ShapeError, "shape: expected at most two dimensions", _core._Draws, rng, "normal", (1, 1, 1))
    for shape in ((MOST,), (2**15, 2**15), (MOST, 1), (1, MOST), (2**40, 2), (2, 2**29), (2**70,), (2**70, 2)):
        refused(MemoryError, "do not fit on the tape", _core._Draws, rng, "normal", shape)
    draws = _core._Draws(rng, "normal", (2,))
    for times in (2**29, 2**40):
        refused(MemoryError, "do not fit on the tape", draws.repeated, times)
    refused(ShapeError, "expected at least one element in each dimension", draws.repeated, 0)
    refused(RuntimeError, "draws are made once", draws.__init__, rng)
    assert rng.bit_generator.state == before and draws.size == 2
    none = _core._Draws()
    assert none.draw() == [] and none.shapes == [] and none.size == 0


def test_a_lock_that_cannot_be_had():
    """Those that were had are let go, and nothing is drawn."""
    class Lock:
        def __init__(self, fails):
            self.fails, self.held = fails, 0

        def acquire(self):
            if self.fails:
                raise KeyboardInterrupt
            self.held += 1

        def release(self):
            self.held -= 1

    class Bits:
        def __init__(self, fails):
            self.own = np.random.PCG64(1)
            self.capsule, self.lock = self.own.capsule, Lock(fails)

    class Generator:
        def __init__(self, fails):
            self.bit_generator = Bits(fails)

    for order in ((False, True), (True, False)):
        pair = [Generator(fails) for fails in order]
        states = [g.bit_generator.own.state for g in pair]
        draws = _core._Draws(pair[0], "uniform", (2,))
        draws.extend(_core._Draws(pair[1], "uniform", (3,)))
        with pytest.raises(KeyboardInterrupt):
            draws.draw()
        assert [g.bit_generator.lock.held for g in pair] == [0, 0]
        assert [g.bit_generator.own.state for g in pair] == states
        for g in pair:
            g.bit_generator.lock.fails = False
        expected = [np.random.Generator(np.random.PCG64(1)).random(n) for n in (2, 3)]
        assert all(map(np.array_equal, draws.draw(), expected))
        assert [g.bit_generator.lock.held for g in pair] == [0, 0]


def test_a_tensor_that_is_made_while_its_elements_move():
    part = unmade(Tensor)

    def move(places):
        part.__init__([1.0, 2.0, 3.0])
        return places[0]

    try:
        found = _core._moved("own()", [part, Tensor([1.0])], move)
    except (RuntimeError, ValueError) as error:
        assert "a Tensor changed while it was read" in str(error) or "expected a result" in str(error)
    else:
        assert found.shape == ()
    assert _core._check()
