"""The dependencies of a class's code, found by reading the code without running it.

flatgrad's operations depend only on the data of their operands, and change only the graph. A method of a program's
class may be replaced by an operation only if the same is true of the method. Equal numbers do not prove this.
"""
from __future__ import annotations

import dis
import itertools
import math
import sys
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["constants", "decides", "foreign"]

# Builtins that depend only on their arguments, and exceptions.
PLAIN = set("""isinstance issubclass float int bool str abs max min len range set list tuple dict frozenset zip
    enumerate reversed sorted sum any all id hash super pow iter map filter callable object next NotImplemented Exception
    TypeError ValueError AssertionError ZeroDivisionError OverflowError ArithmeticError NotImplementedError RuntimeError
    AttributeError repr format __build_class__ __name__""".split())
# Methods of containers and numbers.
METHODS = set("""append add extend pop popleft appendleft remove discard insert reverse items keys values index
    update get union copy sort is_integer count astype item""".split())
# Functions of math and NumPy that test for numbers missing from the samples, or that have a state.
ASKING = {"isnan", "isinf", "isfinite", "nan_to_num", "seterr", "errstate", "random", "round", "around", "clip", "fabs"}
# Modules of classes that are only used in comparisons.
TYPES = {"builtins", "numbers", "typing", "collections", "collections.abc", "abc", "types", "numpy", "decimal",
         "fractions"}


def foreign(function: Any, cls: Any, attributes: Any, job: Any, seen: Any = None) -> Any:
    """The names that a function reads or changes, besides its operands.

    Parameters
    ----------
    function : function
        A method of the class, or a function that a method calls.
    cls : type
    attributes : set of str
        The attributes that are allowed: every Value has them, with the same meaning in flatgrad.
    job : source.Job
        The job, which knows the names that the program writes and whether the class has subclasses.

    Returns
    -------
    list of str
        The names; empty if there are none.
    """
    seen = {} if seen is None else seen
    if function in seen:
        return []
    seen[function] = True
    found = []
    members = {name: member for base in reversed(cls.__mro__[:-1]) for name, member in vars(base).items()}
    modules = set()
    codes = [function.__code__]
    for code in codes:
        codes += [part for part in code.co_consts if isinstance(part, types.CodeType)]
    for code in codes:
        before = None  # the global variable loaded last, if the next instruction may use it
        for instruction in dis.get_instructions(code):
            operation, name = instruction.opname, instruction.argval
            of, before = before, before if operation in ("COPY", "DUP_TOP", "CACHE", "PUSH_NULL") else None
            if operation in ("LOAD_GLOBAL", "LOAD_NAME"):
                if name in function.__globals__:
                    before = value = function.__globals__[name]
                    if value is cls:
                        pass
                    elif name in job.written:
                        found.append(name)
                    elif isinstance(value, types.ModuleType):
                        modules.add(value)
                        if value.__name__ not in ("math", "numpy", "operator", "numbers"):
                            found.append(name)
                    elif isinstance(value, types.FunctionType):
                        found += foreign(value, cls, attributes, job, seen)
                    elif isinstance(value, type):
                        if value.__module__ not in TYPES and not issubclass(value, BaseException):
                            found.append(name)
                    elif isinstance(value, types.BuiltinFunctionType):
                        if value.__module__ != "math" or name in ASKING:
                            found.append(name)
                    elif not isinstance(value, (int, float, str, type(None), itertools.count)) and (
                            type(value).__module__ not in ("typing", "types")):
                        found.append(name)
                elif name not in PLAIN and not (name == "type" and not job.subclasses) and name != cls.__name__:
                    found.append(name)
            elif operation in ("STORE_GLOBAL", "DELETE_GLOBAL", "DELETE_ATTR", "IMPORT_NAME"):
                if operation != "IMPORT_NAME" or name not in ("math", "numpy"):
                    found.append(str(name))
                else:
                    modules.add(sys.modules.get(name, math))
            elif operation == "STORE_DEREF" and name in function.__code__.co_freevars:
                found.append(name)
            elif operation in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"):
                if isinstance(of, types.ModuleType):
                    if name in ASKING or name in job.written:
                        found.append(name)
                    continue
                if isinstance(of, types.FunctionType):
                    found.append(name)
                if name in attributes or name in METHODS:
                    continue
                member = members.get(name)
                member = getattr(member, "__func__", member)
                if isinstance(member, property):
                    member = member.fget
                if isinstance(member, types.FunctionType):
                    if name in job.patched and member is not function:
                        found.append(name)
                    elif member is not function:
                        found += foreign(member, cls, attributes, job, seen)
                elif isinstance(member, itertools.count):
                    pass  # an attribute computed from it differs from Value to Value; flatgrad's do not have it
                elif name in ASKING or name in job.written:
                    found.append(name)
                elif name in ("__class__", "__name__", "__init__"):
                    if job.subclasses and name == "__class__":
                        found.append(name)
                elif name in members or not any(hasattr(module, name) for module in modules):
                    found.append(name)
    for cell in function.__closure__ or ():
        try:
            inside = cell.cell_contents
        except ValueError:
            continue
        if isinstance(inside, types.FunctionType):
            found += foreign(inside, cls, attributes, job, seen)
        elif inside is not cls and not isinstance(inside, (int, float, str, type(None), type)):
            found.append("a variable around it")
    return list(dict.fromkeys(found))


def decides(function: Any) -> Any:
    """Whether a function compares numbers, rounds, or takes the smaller or larger one."""
    return any(step.opname == "COMPARE_OP" or step.argval in ("min", "max", "abs", "round")
               for step in dis.get_instructions(function))


def constants(function: Any) -> Any:
    """The numbers in a function, and in global variables that it reads, at which it might branch."""
    found, codes = set(), [function.__code__]
    for code in codes:
        codes += [part for part in code.co_consts if isinstance(part, types.CodeType)]
        found |= {x for x in code.co_consts if type(x) in (int, float)}
        found |= {x for x in map(function.__globals__.get, code.co_names) if type(x) in (int, float)}
    return sorted(x for x in found if math.isfinite(x) and abs(x) not in (0, 1, 2, 3, 0.5) and abs(x) < 1e15)


