"""Which interpreters may import flatgrad: the main one of a process, with the lock that all its threads share."""
import ctypes
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from flatgrad import _core

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

# Makes interpreters and runs code in them, on each Python by what it has; prints what came of it.
SUBINTERPRETERS = """if True:
    import sys
    sys.path[:] = {path!r}
    if {first}:
        import flatgrad
        v = flatgrad.Value(1.0) * 2.0
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters
    code = '''if True:
        import sys
        sys.path[:] = {path!r}
        for _ in range(3):
            try:
                import flatgrad
            except ImportError as error:
                print(type(error).__name__, error, flush=True)
            else:
                print("imported", flush=True)
            print(sorted(name for name in sys.modules if name.startswith("flatgrad._core")), flush=True)
    '''
    for _ in range(2):
        for keywords in {kinds!r}:
            by_name = sys.version_info < (3, 13)
            made = interpreters.create(**keywords) if by_name else interpreters.create(*keywords.values())
            interpreters.run_string(made, code)
            interpreters.destroy(made)
    import flatgrad
    if {first}:
        v.backward()
        assert v._children[0].grad == 2.0
    assert (flatgrad.Value(3.0) * 2.0).data == 6.0
    print("main", flush=True)
"""
KINDS = ([dict(config="isolated"), dict(config="legacy")] if sys.version_info >= (3, 13) else
         [dict(isolated=True), dict(isolated=False)])
WHY = ("ImportError flatgrad: cannot be imported in a subinterpreter: the graphs of a process lie on one tape, which "
       "belongs to its main interpreter; use threads or processes instead")


@pytest.mark.parametrize("first", [False, True], ids=["the subinterpreters try first", "the main one has it"])
def test_subinterpreters_are_refused(first):
    """Those with a lock of their own, and those that share the main one's; the main interpreter is none the worse."""
    code = SUBINTERPRETERS.format(path=sys.path, first=first, kinds=KINDS)
    done = subprocess.run([sys.executable, "-X", "faulthandler", "-W", "ignore", "-c", code], capture_output=True,
                          text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    *lines, last = done.stdout.splitlines()
    assert last == "main" and lines == [WHY, "[]"] * 3 * len(KINDS) * 2


@pytest.mark.skipif(sys.version_info < (3, 14), reason="needs concurrent.interpreters")
def test_a_pool_of_interpreters_says_why():
    code = """if True:
        from concurrent.futures import InterpreterPoolExecutor
        with InterpreterPoolExecutor(1) as pool:
            try:
                pool.submit(__import__, "flatgrad").result()
            except Exception as error:
                print(type(error).__name__, error)
    """
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=environ)
    assert done.returncode == 0 and "flatgrad: cannot be imported in a subinterpreter" in done.stdout, done


# ---- Pythons without the GIL ----

@pytest.mark.skipif(not FREE_THREADED, reason="needs a Python that was built without the GIL")
def test_a_python_without_the_gil_turns_it_on():
    code = """if True:
        import sys, warnings
        assert not sys._is_gil_enabled()
        with warnings.catch_warnings(record=True) as given:
            warnings.simplefilter("always")
            import flatgrad
        assert sys._is_gil_enabled()
        assert any(w.category is RuntimeWarning and "flatgrad._core" in str(w.message) for w in given)
    """
    environ = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300, env=environ)


REFUSED = """if True:
    import sys
    if {pretended}:
        sys._is_gil_enabled = lambda: False
    for name in "flatgrad", "flatgrad", "flatgrad._core", "flatgrad.nn":
        try:
            __import__(name)
        except ImportError as error:
            print(error)
        else:
            print("imported", name)
    print("flatgrad" in sys.modules)
"""
FORBIDDEN = ("flatgrad: cannot be imported while PYTHON_GIL=0 or -X gil=0 keeps the GIL off: threads would share one tape "
             "without a lock; leave it out, and Python turns the GIL on to import flatgrad")


@pytest.mark.parametrize("options, gil, pretended", [
    ([], "0", False), (["-X", "gil=0"], None, False), ([], None, True)], ids=["PYTHON_GIL", "-X gil", "pretended"])
def test_a_python_whose_gil_stays_off_is_refused(options, gil, pretended):
    """Where somebody forbids it; a Python that has the GIL always is told that it has not."""
    if not FREE_THREADED and not pretended:
        pytest.skip("needs a Python that was built without the GIL")
    environ = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    if gil is not None:
        environ["PYTHON_GIL"] = gil
    environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    program = REFUSED.format(pretended=pretended)
    done = subprocess.run([sys.executable, "-W", "ignore", *options, "-c", program], capture_output=True, text=True,
                          timeout=60, env=environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [FORBIDDEN] * 4 + ["False"]


class Definition(ctypes.Structure):
    """PyModuleDef, after the head of its object."""
    _fields_ = [(name, ctypes.c_void_p)
                for name in ("init", "index", "copy", "name", "doc", "size", "methods", "slots")]


class Slot(ctypes.Structure):
    _fields_ = [("slot", ctypes.c_int), ("value", ctypes.c_void_p)]


GIL = {4, 87}   # the numbers of the slot Py_mod_gil: before Python 3.15, and after
NOT_USED = 1    # Py_MOD_GIL_NOT_USED; without the slot a module uses the GIL


def test_the_module_does_not_say_that_it_can_do_without_the_gil():
    initial = ctypes.PyDLL(_core.__file__).PyInit__core
    initial.restype = ctypes.c_void_p
    head = object.__basicsize__
    slots = ctypes.cast(Definition.from_address(initial() + head).slots, ctypes.POINTER(Slot))
    found = []
    while slots[len(found)].slot:
        found.append((slots[len(found)].slot, slots[len(found)].value))
        assert len(found) < 20
    assert {1, 2} & {slot for slot, _ in found} or {84, 85} & {slot for slot, _ in found}   # it creates or executes
    assert not [value for slot, value in found if slot in GIL and value == NOT_USED]
    if FREE_THREADED:
        assert [value or 0 for slot, value in found if slot in GIL] == [0]


def test_the_source_that_is_built_says_so():
    """What Cython is told."""
    setup = Path(__file__).parents[1] / "setup.py"
    if not setup.is_file():
        pytest.skip("needs the checkout")
    assert '"freethreading_compatible": False' in setup.read_text("utf-8")
    assert '"subinterpreters_compatible": "no"' in setup.read_text("utf-8")
