"""A short form of `python tests/checks exports`: random functions as C, as JAX and as PyTorch."""
import subprocess
import sys
from pathlib import Path

import c_files
from checks import exports
import pytest


@c_files.needs_compiler
@pytest.mark.parametrize("compiler", c_files.COMPILERS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_random_functions_as_c(dtype, compiler):
    first = 500 * c_files.COMPILERS.index(compiler)
    assert exports.check(range(first, first + 12), dtype, ["c"], compiler)["c"] >= 14


@pytest.mark.parametrize("package", ["jax", "torch"])
def test_random_functions_as_those_of_another_package(package):
    pytest.importorskip(package)
    for dtype in "float64", "float32":
        assert exports.check(range(1000, 1006), dtype, [package])[package] >= 6


@c_files.needs_compiler
def test_the_check_fails_for_a_function_that_is_another_by_little(monkeypatch):
    """By 1e-10 of what it is; and where gradients are those of other operands."""
    real = exports.Case.evaluated

    def other(self, f, x, t):
        results, gradients = real(self, f, x, t)
        return (results * (1 + 1e-10), gradients) if self.seed % 2 else (results, gradients[::-1])

    caught = 0
    for seed in range(4):
        with monkeypatch.context() as patch:
            patch.setattr(exports.Case, "evaluated", other)
            cases = exports.cases_of([seed], "float64")
        assert cases
        try:
            exports.check_c(cases)
        except AssertionError as error:
            assert f"seed {seed}, " in str(error) and "expected" in str(error)
            caught += 1
    assert caught == 4


@c_files.needs_compiler
def test_the_command():
    command = [sys.executable, str(Path(__file__).parent / "checks"), "exports", "--count", "3", "--into", "c"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0 and "exports: 3 functions, seeds 0 to 2, float64; comparisons: " in result.stdout
