"""Files of C on a microcontroller, a Cortex-M4: no warnings, few bytes, and the numbers of the program."""
import shutil

import cortex_m4
import pytest

pytestmark = pytest.mark.skipif(not shutil.which(cortex_m4.COMPILER), reason="no arm-none-eabi-gcc")
ends = pytest.mark.parametrize("name", [
    "forward, constant parameters", "forward", "gradient", "step of SGD", "step of SGD with momentum", "step of Adam"])


@pytest.fixture(scope="module")
def programs():
    return cortex_m4.programs()


def test_there_are_no_others(programs):
    assert list(programs) == test_code_and_memory.pytestmark[0].args[1]


# Bytes: code with constants and what it needs of C's library, the structs, the stack.
MOST = {"forward, constant parameters": (2100, 0, 256), "forward": (750, 1348, 256), "gradient": (1200, 2696, 600),
        "step of SGD": (1250, 2900, 400), "step of SGD with momentum": (1300, 4250, 400), "step of Adam": (1450, 5600, 400)}


@ends
def test_code_and_memory(name, programs, tmp_path):
    made, call, _ = programs[name]
    code, memory, stack = MOST[name]
    cortex_m4.compiled(tmp_path, made, "-Os")
    assert cortex_m4.code_of(tmp_path, call) <= code
    assert sum(size for _, size in cortex_m4.memory_of(tmp_path, made, call)) <= memory
    assert cortex_m4.stack_of(tmp_path) <= stack


@ends
@pytest.mark.parametrize("flags", [["-O2"], ["-O3", "-ffreestanding"]], ids=" ".join)
def test_no_warnings(name, flags, programs, tmp_path):
    made, call, _ = programs[name]
    cortex_m4.compiled(tmp_path, made, *flags)


@ends
@pytest.mark.skipif(not shutil.which(cortex_m4.MACHINE), reason="no qemu-system-arm")
@pytest.mark.parametrize("level", ["-Os", "-O3"])
def test_the_numbers_are_the_programs(name, level, programs, tmp_path):
    made, call, expected = programs[name]
    cortex_m4.compiled(tmp_path, made, level)
    assert expected > 0.1
    assert cortex_m4.run(tmp_path, made, call) == pytest.approx(expected, rel=1e-5)
