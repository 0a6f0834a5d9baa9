"""Bytes of code and memory on a Cortex-M4 of a perceptron that flatgrad has written in C, and of its training.

Run ``python tests/cortex_m4.py``: it needs arm-none-eabi-gcc, and with qemu-system-arm it runs the programs as well. As a
module it has the same for the tests.
"""
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from others import other

import flatgrad
from flatgrad.nn import MLP
from flatgrad.optim import SGD, Adam

COMPILER, SIZE, MACHINE = "arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm"
CORE = "-mcpu=cortex-m4 -mthumb -mfpu=fpv4-sp-d16 -mfloat-abi=hard".split()
FLAGS = [*CORE, *"-std=c11 -Wall -Wextra -Wconversion -Wdouble-promotion -pedantic -Werror "
         "-ffunction-sections -fdata-sections -fstack-usage -fno-math-errno".split()]
STEPS = 20


def problem():
    """The perceptron of the moons, with 337 parameters, and its loss: a hinge."""
    model = MLP(2, [16, 16, 1], rng=1)
    predict = flatgrad.compile(lambda x: model(x))
    loss = flatgrad.compile(lambda x, y: (1.0 - y * model(x)).relu())
    return model, predict, loss


X, Y = [0.5, -1.25], -1.0


def programs():
    """By name: what C computes, the call of it, whether it trains, and what Python says."""
    model, predict, loss = problem()
    options = {"dtype": "float32"}
    found = {
        "forward, constant parameters": (predict.to_c(
            arguments=(X,), name="net", gradient=False, parameters="constant", **options), "net", predict(X).data),
        "forward": (predict.to_c(arguments=(X,), name="net", gradient=False, **options), "net", predict(X).data),
        "gradient": (loss.to_c(arguments=(X, Y), name="net", **options), "net_gradient", loss(X, Y).data)}
    for name, kind in (("SGD", SGD), ("SGD with momentum", lambda p, lr: SGD(p, lr, momentum=0.5)), ("Adam", Adam)):
        model, _, loss = problem()
        optimizer = kind(model.parameters(), lr=0.001)
        made = loss.to_c(arguments=(X, Y), name="net", gradient=False, optimizer=optimizer, **options)
        for _ in range(STEPS):
            out = loss(X, Y)
            optimizer.zero_grad()
            out.backward()
            optimizer.step()
        found[f"step of {name}"] = made, "net_step", out.data
    return found


def main_of(made, call):
    """A program that writes the last of some results of a call, in parts per million."""
    prototype = re.search(rf"^float {call}\((.*?)\);", made.header, re.MULTILINE | re.DOTALL)[1]
    structs = re.findall(r"(net_\w+) \*(\w+)", prototype)
    given = {"x": "x", "y": f"{Y}f"}
    arguments = [given.get(name, f"&{name}") for name in re.findall(r"(\w+)(?:\[\d+\])?(?:,|$)", prototype)]
    starts = {"net_parameters": "net_start", "net_state": "net_state_start"}
    lines = [f"    {starts[kind]}(&{name});\n" for kind, name in structs if kind in starts and name != "gradient"]
    variables = "".join([f"static {kind} {name};\n" for kind, name in structs])
    return BARE.replace("VARIABLES", variables).replace("STARTS", "".join(lines)).replace("TIMES", str(
        STEPS if call == "net_step" else 1)).replace("CALL", f"{call}({', '.join(arguments)})").replace(
        "X", ", ".join([f"{x}f" for x in X]))


# Starts with the processor's reset, which has the unit for floats switched off; the debugger writes and ends.
BARE = """
#include "net.h"

VARIABLES
extern char stack_end[];
int main(void);
void reset(void);
__attribute__((section(".vectors"), used)) static const void *const vectors[] = {stack_end, (void *)reset};

static int host(int what, const void *with)
{
    register int r0 __asm__("r0") = what;
    register const void *r1 __asm__("r1") = with;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void reset(void)
{
    *(volatile unsigned *)0xe000ed88 |= 0xfu << 20;
    __asm__ volatile("dsb; isb");
    main();
    host(0x18, (const void *)0x20026);
}

int main(void)
{
    static char text[16];
    const float x[2] = {X};
    float out = 0.0f;
STARTS
    for (int k = 0; k < TIMES; k++)
        out = CALL;
    long n = (long)(out * 1e6f);
    char *at = text + 14;
    const int sign = n < 0;
    *at = 10;
    for (n = sign ? -n : n; n || at == text + 14; n /= 10)
        *--at = (char)('0' + n % 10);
    if (sign)
        *--at = '-';
    host(4, at);
    return 0;
}
"""

LAYOUT = """
SECTIONS
{
    .text 0x00000000 : { KEEP(*(.vectors)) *(.text*) *(.rodata*) *(.ARM*) }
    .data 0x20000000 : { *(.data*) }
    .bss : { *(.bss*) *(COMMON) . = ALIGN(8); . += 16384; stack_end = .; }
}
"""


def run(folder, made, call):
    """What the program writes, on a machine with this processor."""
    (folder / "main.c").write_text(main_of(made, call))
    (folder / "layout.ld").write_text(LAYOUT)
    done([COMPILER, *CORE, "-O2", "-std=gnu11", "-ffreestanding", "-nostartfiles", "-T", "layout.ld", "main.c", "net.o",
          "-o", "main.elf", "-lm", "-lc", "-lgcc", "--specs=nosys.specs"], cwd=folder)
    made = done([MACHINE, "-M", "mps2-an386", "-nographic", "-semihosting-config", "enable=on,target=native",
                 "-kernel", "main.elf"], cwd=folder, timeout=60, stdin=subprocess.DEVNULL)
    return int(made.stdout + made.stderr) / 1e6


def done(command, **options):
    """A command that succeeds."""
    made = other(*command, **options)
    assert made.returncode == 0, made.stdout + made.stderr
    return made


def compiled(folder, made, *flags):
    (folder / "net.c").write_text(made.source)
    (folder / "net.h").write_text(made.header)
    done([COMPILER, *FLAGS, *flags, "-c", "net.c"], cwd=folder)


def code_of(folder, call):
    """Bytes of code and constants of a call, with what it needs of C's library."""
    done([COMPILER, *CORE, "-nostartfiles", "-Wl,--gc-sections", f"-Wl,-e,{call}", "net.o", "-o", "call.elf",
          "-lm", "-lc", "-lgcc", "--specs=nosys.specs"], cwd=folder)
    lines = done([SIZE, "call.elf"], cwd=folder).stdout.splitlines()
    text, data, bss = map(int, lines[1].split()[:3])
    assert data == bss == 0, lines   # no variables that keep anything
    return text


def stack_of(folder):
    """Bytes of the stack at most, as if each function called all others."""
    return sum(int(line.split("\t")[1]) for line in (folder / "net.su").read_text().splitlines())


def memory_of(folder, made, call):
    """Bytes of each struct that a call takes."""
    prototype = re.search(rf"^float {call}\((.*?)\);", made.header, re.MULTILINE | re.DOTALL)[1]
    kinds = re.findall(r"(net_\w+) \*\w+", prototype)
    (folder / "sizes.c").write_text('#include "net.h"\n' + "".join(
        [f"extern char size_{k}[sizeof({kind})];\nchar size_{k}[sizeof({kind})] = {{1}};\n" for k, kind in enumerate(kinds)]))
    done([COMPILER, *CORE, "-c", "sizes.c"], cwd=folder)
    found = done(["arm-none-eabi-nm", "-S", "sizes.o"], cwd=folder)
    sizes = {line.split()[3]: int(line.split()[1], 16) for line in found.stdout.splitlines()}
    return [(kind, sizes[f"size_{k}"]) for k, kind in enumerate(kinds)]


def table(rows):
    return "\n".join(["| program | code and constants, -Os | -O2 | memory | stack |", "|---|---|---|---|---|", *rows])


def main():
    rows = []
    for name, (made, call, _) in programs().items():
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            sizes = []
            for level in ("-O2", "-Os"):
                compiled(folder, made, level)
                sizes.insert(0, code_of(folder, call))
            memory = memory_of(folder, made, call)
            rows.append(f"| {name} | {sizes[0]:,} | {sizes[1]:,} | {sum(n for _, n in memory):,} "
                        f"({', '.join(f'{k[4:]} {n:,}' for k, n in memory)}) | {stack_of(folder):,} |")
    print(table(rows))


if __name__ == "__main__":
    sys.exit(main())
