"""What the tests share: fixtures, and a collector that keeps up with some thousand tests."""
import gc
import os
import signal
import sysconfig

import pytest
from leaks import living

from flatgrad import _core

FREEZE_EVERY = 250   # tests


def pytest_configure(config):
    """SIGINT is a KeyboardInterrupt, in the background job of a shell as well, which is born without. Processes that tests
    start do not say that a Python without the GIL turns it on."""
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        os.environ["PYTHONWARNINGS"] = "ignore:The global interpreter lock:RuntimeWarning"
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish(session):
    """Python's collector need not look at pytest's own objects, a tenth of a second each time."""
    gc.collect()
    gc.freeze()


def pytest_runtest_logfinish(nodeid, location, finished=[0]):
    finished[0] += 1
    if finished[0] % FREEZE_EVERY == 0:
        gc.collect()
        gc.freeze()


@pytest.fixture
def nothing_left_behind():
    """The tape is sound after the test, and holds no more than before."""
    before = living()
    yield
    _core._testing(fail_after=-1, limit=0xFFFFFFF0, sweep_chunk=1 << 18, collect_floor=131072, stop_after=-1)
    assert _core._check()
    if living() > before:
        gc.collect()
        assert living() <= before


@pytest.fixture(params=["as it is", "collecting all the time"])
def moving(request, nothing_left_behind):
    """With ids as they are, and with a collection, that renumbers, before each operation."""
    if request.param != "as it is":
        _core._testing(collect_floor=0)
