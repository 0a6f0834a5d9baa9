"""What the public functions say of themselves: their repr, names, signatures, help and pickles."""
import copy
import inspect
import pickle
import pydoc
import sys

import pytest

import flatgrad

FUNCTIONS = sorted(name for name in dir(flatgrad) if name[0] != "_" and callable(getattr(flatgrad, name))
                   and not isinstance(getattr(flatgrad, name), type))


def test_there_are_functions():
    assert {"tanh", "where", "elu", "softmax", "grad", "collect"} <= set(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_says_what_it_is(name):
    function = getattr(flatgrad, name)
    shown = repr(function)
    assert f"function {name}" in shown and "NoneType" not in shown
    assert function.__name__ == function.__qualname__ == name
    assert getattr(sys.modules[function.__module__], name) is function
    assert function.__module__.split(".")[0] == "flatgrad"
    assert inspect.signature(function).parameters or name in ("collect", "is_anomaly_enabled", "stats", "install_as_micrograd")
    assert pydoc.plain(pydoc.render_doc(function)).count(name + "(")
    assert pickle.loads(pickle.dumps(function)) is copy.deepcopy(function) is function
