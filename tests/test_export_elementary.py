"""The elementary functions that exported C has of its own: against libm, for all kinds of numbers."""
import ctypes
import re
import shutil

import numpy as np
import pytest
from others import run

from flatgrad.export.c import elementary

COMPILERS = [cc for cc in ("gcc", "clang") if shutil.which(cc)]
pytestmark = pytest.mark.skipif(not COMPILERS, reason="there is no C compiler")

FUNCTIONS = {**{name: f"z[k] = {own}(x[k])" for name, own in elementary.OWN.items()},
             "sin": "fg_sines(1, x + k, z + k)", "cos": "fg_cosines(1, x + k, z + k)"}
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 5e-324, -5e-324, 2.2e-308, 1e-300, -1e-300, 1e-17, -1e-17,
           1e300, -1e300, 0.6, -0.6, 709.78, 709.79, -745.13, -745.14, 1e5, 1e5 + 1, 1e22, np.pi, np.pi / 2, 2.0**53]


@pytest.fixture(scope="module", params=[(cc, flags) for cc in COMPILERS for flags in (
    ("-O3",), ("-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno"), ("-O0",))],
    ids=lambda param: " ".join([param[0], *param[1]]))
def library(request, tmp_path_factory):
    cc, flags = request.param
    source = tmp_path_factory.mktemp("c") / "functions.c"
    loops = "".join(f"void all_{name}(int n, const double *x, double *z)\n{{ for (int k = 0; k < n; k++) {call}; }}\n"
                    for name, call in FUNCTIONS.items())
    source.write_text("#include <math.h>\n#include <stdint.h>\n#include <string.h>\n" + elementary.definitions(loops)
                      + loops, encoding="utf-8")
    file = source.with_suffix(".so")
    run(cc, "-std=c11", *flags, "-Wall", "-Wextra", "-Wconversion", "-Wpedantic", "-Werror", "-shared", "-fPIC", source,
        "-o", file, "-lm")
    return ctypes.CDLL(str(file))


def points(name):
    rng = np.random.default_rng(0)
    wide = rng.choice([-1.0, 1.0], 20_000) * 10.0 ** rng.uniform(-310, 308, 20_000)
    return np.concatenate([SPECIAL, rng.normal(size=20_000), rng.uniform(-750, 750, 20_000), wide,
                           np.nextafter(np.pi / 2 * np.arange(-2_000, 2_000), 0), 1 + 1e-3 * rng.normal(size=5_000)])


def units(found, expected):
    """How far apart, in units of the last place; 0 for two nan or inf alike."""
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    with np.errstate(all="ignore"):
        return np.where(same, 0.0, np.abs(found - expected) / np.spacing(np.abs(expected)))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_against_libm(library, name):
    x = points(name)
    found = np.empty_like(x)
    pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (x, found)]
    getattr(library, f"all_{name}")(len(x), *pointers)
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(x)
    apart = units(found, expected)
    worst = int(np.argmax(np.where(np.isnan(apart), np.inf, apart)))
    assert apart[worst] <= 2.5, (x[worst], found[worst], expected[worst])
    assert np.array_equal(np.signbit(found[expected == 0.0]), np.signbit(expected[expected == 0.0]))


def test_units_can_fail():
    assert units(np.array([1.0 + 4e-16]), np.array([1.0])) > 1.5 and np.isnan(units(np.array([np.nan]), np.array([1.0])))


def test_calls_are_replaced():
    text = elementary.substituted("fg_sigmoid(x) + exp(-x) * expm1(x) - tanh(log1p(log(x))) + atanh(x)")
    assert text == "fg_sigmoid(x) + fg_exp(-x) * expm1(x) - fg_tanh(fg_log1p(fg_log(x))) + atanh(x)"


def test_only_what_is_needed():
    assert re.findall(r"^static inline \w+ (\w+)", elementary.definitions("z = fg_tanh(x);"), re.MULTILINE) == [
        "fg_power_of_two", "fg_exp", "fg_tanh"]
    assert elementary.definitions("z = exp(x);") == ""
