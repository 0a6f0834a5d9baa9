"""The checks of faults find what they are for: leaks, other numbers, steps in part, crashes."""
import ctypes
import sys
from pathlib import Path

import pytest
from checks import children, ids, malloc, memory, subjects
from checks.limits import Limit, Unavailable

from flatgrad import Value, _core

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


@pytest.fixture
def subject(monkeypatch):
    """Puts code among the subjects."""
    def put(work, state=None):
        monkeypatch.setitem(subjects.SUBJECTS, "mine", lambda: subjects.Subject(work, state))
        return "mine"
    return put


def test_code_that_leaves_something_is_found(subject):
    kept, has_failed = [], []

    def work():
        if has_failed:
            kept.append(Value(1.0))
        return 1.0

    quiet = subjects.Quiet(subject(work))
    quiet.check("nothing")
    has_failed.append(1)
    quiet.check("after it there are more")
    with pytest.raises(AssertionError, match="mine: later: .* nodes are alive, not"):
        quiet.check("later")


def test_other_numbers_are_found(subject):
    numbers = [0.0, 0.0, -0.0]
    quiet = subjects.Quiet(subject(lambda: numbers.pop(0)))
    with pytest.raises(AssertionError, match="mine: a fault: other numbers afterwards"):
        quiet.check("a fault")
    assert subjects.same([float("nan"), (1, 2.0)], [float("nan"), (1, 2.0)]) and not subjects.same(1, 1.0)
    with pytest.raises(AssertionError, match="two runs differ"):
        subjects.Quiet(subject(iter(range(9)).__next__))


def test_a_step_in_part_is_found(subject):
    """Where there are too few ids for its second half."""
    x = [0.0, 0.0]

    def work(armed=lambda: None):
        x[:] = 0.0, 0.0
        armed()
        x[0] = (Value(1.0) * 2.0).data
        x[1] = (Value(2.0) * 3.0 * 4.0 * 5.0).data
        return list(x)

    with pytest.raises(AssertionError, match="ids: a step was done in part"):
        ids.at_every_limit(subject(work, lambda: list(x)), 1)


@pytest.mark.parametrize("name", ["scalars", "tensors", "replays", "recordings", "collections"])
def test_every_number_of_ids(name):
    assert ids.at_every_limit(name, 5) > 3


@pytest.mark.parametrize("name", sorted(subjects.SUBJECTS))
def test_every_subject_leaves_all_as_it_was(name):
    if name != "exports":
        subjects.Quiet(name).check("nothing")


def test_a_crash_is_told_with_its_seed(tmp_path, monkeypatch):
    package = tmp_path / "checks"
    package.mkdir()
    for name in ("__init__", "children", "limits"):
        (package / f"{name}.py").write_text(Path(children.__file__).with_name(f"{name}.py").read_text("utf-8"), "utf-8")
    (package / "ends.py").write_text(
        "import os\n\n\nclass Rounds:\n    counts = {'done': 3}\n\n    def round(self, seed):\n"
        "        print('nothing')\n        if seed == 4:\n            os.abort()\n")
    monkeypatch.setattr(children, "__file__", str(package / "children.py"))
    limit = Limit(count=3)
    assert children.rounds("ends", limit) == {"done": 3} and limit.rounds == 3
    limit = Limit(count=9)
    with pytest.raises(AssertionError, match="the round of --seed 4 ended with -6"):
        children.rounds("ends", limit)
    assert limit.seed == 4


@pytest.fixture
def shim(tmp_path):
    try:
        return malloc.compiled(tmp_path)
    except Unavailable as why:
        pytest.skip(str(why))


def test_calls_of_malloc_that_fail(shim):
    """Of our own code and NumPy's, in calls of several kinds."""
    if malloc.sanitized():
        pytest.skip("a sanitizer has a malloc of its own")
    cases = ["of scalars", "of step_of_sgd", "of recordings", "Tensor.sum", "Tensor.__matmul__"]
    points, failed = memory.sweep(cases, 3, 0, "memory.child({}, malloc.Mallocs)",
                                  LD_PRELOAD=shim, FLATGRAD_FAULTS=shim)
    assert failed == [] and points > 30


def test_malloc_counts_the_calls_of_the_code_that_it_is_told(shim):
    library = ctypes.CDLL(shim)
    library.faults_end.restype = ctypes.c_long
    library.malloc.restype = ctypes.c_void_p
    library.faults_begin(ctypes.c_long(0), ctypes.c_long(0))   # no code yet: none counts
    library.malloc(ctypes.c_size_t(8))
    assert library.faults_end() == 0
    library.faults_of(ctypes.c_size_t(0), ctypes.c_size_t(2**64 - 1))
    library.faults_begin(ctypes.c_long(1), ctypes.c_long(2))
    got = [library.malloc(ctypes.c_size_t(8)) for _ in range(3)]
    assert library.faults_end() == 1 and [x is None for x in got] == [False, True, False]


def test_values_that_are_used_again_are_counted():
    """Debug builds of Python count all references."""
    if not hasattr(sys, "gettotalrefcount"):
        pytest.skip("not a debug build of Python")
    counts = []
    for _ in range(50):
        x = [Value(1.0) for _ in range(100)]
        x = None
        counts.append(sys.gettotalrefcount())
    assert max(counts[25:]) - max(counts[:25]) < 100 and x is None and _core._check()
