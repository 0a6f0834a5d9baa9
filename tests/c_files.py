"""Compiles files of C that flatgrad has written, and calls their functions by what the headers declare."""
import ctypes
import re
import shutil

import numpy as np
import pytest
from others import run

WARNINGS = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror"]
COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)]
needs_compiler = pytest.mark.skipif(not COMPILERS, reason="no C compiler")


def library(folder, sources, *flags, compiler=None):
    """All sources as one library, compiled once."""
    paths = []
    for made in sources:
        paths.append(folder / f"{made.name}.c")
        paths[-1].write_text(made.source)
    out = folder / "all.so"
    run(compiler or COMPILERS[0], *WARNINGS, *(flags or ["-O0"]), "-fPIC", "-shared", "-o", out, *paths, "-lm")
    return ctypes.CDLL(str(out))


PROTOTYPE = re.compile(r"^(void|double|float) (\w+)\(([^;]*)\);$", re.MULTILINE)
NUMBERS = {"double": ctypes.c_double, "float": ctypes.c_float}


class Functions:
    """The functions of a header.

    ``f.loss(parameters, 2.0, x)`` calls one with the arguments that are const, numbers and arrays, and gives it room
    for all others: the result is the number that is returned, or the first of the others, and all of them are in
    `written` by their names. Around each array are numbers that the function must not touch.
    """

    def __init__(self, made, lib):
        self.made, self.lib, self.written = made, lib, {}
        self.structs = {name: int(size) for size, name in
                        re.findall(r"typedef struct \{\n    \w+ \w+\[(\d+)\];\n\} (\w+);", made.header)}
        self.prototypes = {name: (result, [p.strip() for p in parameters.split(",") if p.strip() != "void"])
                           for result, name, parameters in PROTOTYPE.findall(made.header)}
        self.real = "float" if re.search(r"\bfloat\b", made.header) else "double"

    def __getattr__(self, end):
        name = f"{self.made.name}_{end}" if end else self.made.name
        result, parameters = self.prototypes[name]

        def call(*given):
            given, raw, arrays, rooms = list(given), [], {}, []
            for parameter in parameters:
                words = re.fullmatch(r"(const )?(\w+) (\*?)(\w+)(?:\[([\d *]+)\])?", parameter)
                assert words, parameter
                const, kind, pointer, own, shape = words.groups()
                size = eval(shape) if shape else self.structs.get(kind, 1)
                if not pointer and not shape:
                    raw.append(NUMBERS[kind](given.pop(0)))
                    continue
                room = np.full(size + 16, 7.25, np.float32 if self.real == "float" else float)
                inner = room[8:8 + size]
                if const:
                    numbers = np.ravel(np.asarray(given.pop(0), float))
                    assert len(numbers) == size, parameter
                    inner[:] = numbers
                    arrays[own] = inner.copy()
                else:
                    inner[:] = np.nan
                rooms.append((own, const, room, inner))
                raw.append(inner.ctypes.data_as(ctypes.c_void_p))
            assert not given, "arguments that the function does not take"
            function = getattr(self.lib, name)
            function.restype = NUMBERS.get(result)
            returned = function(*raw)
            self.written = {}
            for own, const, room, inner in rooms:
                assert (room[:8] == 7.25).all() and (room[8 + len(inner):] == 7.25).all(), own
                if const:
                    assert np.array_equal(inner, arrays[own], equal_nan=True), own
                else:
                    self.written[own] = inner
            return returned if result != "void" else next(iter(self.written.values()))
        return call

    def value(self, *given):
        return self.__getattr__("")(*given)
