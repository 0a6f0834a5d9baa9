"""What programs see of micrograd, and what the same programs see of flatgrad.

Each row of `ROWS` is a small program and either SAME or the name of a difference. The differences are
the tables of docs/differences.md, read here: a difference that is not on that page fails, and so does
an entry of the page that no row shows. How the numbers agree on whole graphs is test_micrograd.py's.
"""
import ast
import copy
import gc
import math
import operator
import pickle
import random
import warnings
import weakref
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("micrograd")

import micrograd.engine  # noqa: E402
import micrograd.nn  # noqa: E402

import flatgrad.engine  # noqa: E402
import flatgrad.nn  # noqa: E402

MICROGRAD = (micrograd.engine.Value, micrograd.nn)
FLATGRAD = (flatgrad.engine.Value, flatgrad.nn)
PAGE = Path(__file__).parent.parent / "docs" / "differences.md"

SAME = None

# A program, run as a module is; what its last line, an expression, gives is compared. What a row names
# is the first cell of an entry of the page, or any text that one entry alone holds.
ROWS = [
    # ---- the constructor ----
    ("Value(2)", SAME),
    ("Value(2.5)", SAME),
    ("Value(-0.0).data, math.copysign(1, Value(-0.0).data)", SAME),
    ("Value(math.inf), Value(math.nan)", SAME),
    ("Value(True)", SAME),
    ("Value(10**22)", SAME),
    ("Value(data=2.5)", SAME),
    ("Value(2.5, (), 'x')", SAME),
    ("Value(2.5, _children=(), _op='x')", SAME),
    ("Value()", SAME),
    ("Value(1.0, (), '', '', '')", SAME),
    ("Value(1.0, color='red')", SAME),
    ("Value(1.0, None)", SAME),
    ("Value(1.0, 3)", SAME),
    ("a = Value(1.0); v = Value(2.0, (a,), 'mine'); v, v._prev == {a}", SAME),
    ("a = Value(1.0); v = Value(2.0, [a, a], 'mine'); v, v._prev == {a}", SAME),
    ("a = Value(1.0); b = Value(3.0); v = Value(2.0, {a, b}, 'mine'); v, v._prev == {a, b}", SAME),
    ("a = Value(1.0); v = Value(2.0, (x for x in [a]), 'mine'); v, v._prev == {a}", SAME),
    ("c = [Value(float(k)) for k in range(70)]; v = Value(1.0, c); v, v._prev == set(c)", SAME),
    ("v = Value(1.0); v.grad = 5.0; v.__init__(3.0); v", SAME),
    ("Value(np.float64(2.5))", SAME),
    ("Value(np.int64(2))", SAME),
    ("Value(np.float32(0.5))", SAME),
    ("Value(2), repr(Value(2))", "`data`, `grad`"),
    ("type(Value(2).data), type(Value(2.0).grad)", "`data`, `grad`"),
    ("Value(2**53 + 1).data == 2**53 + 1", "an int that float64 cannot hold"),
    ("Value(2.0) + (2**53 + 1)", "an int that float64 cannot hold"),
    ("Value('2.5')", "complex, `Fraction`, `Decimal`"),
    ("Value(None)", "complex, `Fraction`, `Decimal`"),
    ("Value([1.0])", "complex, `Fraction`, `Decimal`"),
    ("Value(1j)", "complex, `Fraction`, `Decimal`"),
    ("Value(Fraction(1, 2))", "complex, `Fraction`, `Decimal`"),
    ("Value(Decimal(1))", "complex, `Fraction`, `Decimal`"),
    ("Value(np.array([1.0, 2.0]))", "complex, `Fraction`, `Decimal`"),
    ("Value(Value(1.0))", "complex, `Fraction`, `Decimal`"),
    ("type(Value(np.float32(0.5)).data)", "a NumPy scalar, a 0-d"),
    ("Value(np.array(2.5))", "a NumPy scalar, a 0-d"),
    ("Value(np.array([2.5]))", "a NumPy scalar, a 0-d"),
    ("(Value(np.float32(0.1)) + np.float32(0.2)).data", "a NumPy scalar, a 0-d"),
    ("Value(1.0, label='x')", "`Value(..., label=)`"),
    ("x = Value(2.0); y = Value(3.0); Value(6.0, (x, y), (3.0, 2.0)).backward(); x.grad",
     "`Value(..., label=)`"),
    ("Value(1.0, (1, 2))", "`_children` that are no Values"),
    ("Value(1.0, (), 5)", "`_children` that are no Values"),
    ("Value.__new__(Value).data", "`Value.__new__(Value)`"),

    # ---- attributes ----
    ("v = Value(2.0); v.data, v.grad, v._op, v._prev", SAME),
    ("v = Value(2.0) * 3.0; v.data, v.grad, v._op, sorted(x.data for x in v._prev)", SAME),
    ("v = Value(2.0); v.data = 5; v.data += 0.5; v", SAME),
    ("v = Value(2.0); v.grad = 5; v.grad -= 0.5; v", SAME),
    ("v = Value(2.0); v.data = np.float64(3.5); v.grad = np.int64(3); v", SAME),
    ("v = Value(2.0); v.label = 'x'; v.note = [1]; v.label, v.note", SAME),
    ("Value(2.0).label", "`v.label` that nobody has set"),
    ("v = Value(2.0); v.label = 'x'; del v.label; hasattr(v, 'label')", "`v.label` that nobody has set"),
    ("del Value(2.0).label", SAME),
    ("Value(2.0).note", SAME),
    ("v = Value(2.0); v.note = 'x'; del v.note; hasattr(v, 'note')", SAME),
    ("del Value(2.0).note", SAME),
    ("Value.tag = ''; v = Value(2.0); w = Value(3.0); v.tag = 'q'; v.tag, w.tag, Value.tag, (v + w).tag", SAME),
    ("Value.tag = None; v = Value(2.0); v.tag = 'q'; del v.tag; v.tag", SAME),
    ("Value.tag = 'a'; v = Value(2.0); v.tag = 'q'; del v.tag; del v.tag", SAME),
    ("Value.tag = 'a'; v = Value(2.0); v.tag = 'q'; Value.tag = 'z'; w = Value(3.0); w.tag = 5; v.tag, w.tag, Value(1.0).tag",
     SAME),
    ("Value.tag = 'a'; v = Value(2.0); v.tag = 'q'; Value.tag = 'z'; v.tag", "`Value.tag` assigned again"),
    ("Value.tag = 'a'; v = Value(2.0); v.tag = 'q'; del Value.tag; v.tag", "`Value.tag` assigned again"),
    ("Value.tag = 'a'; v = Value(2.0); v.tag = 'q'; c = copy.copy(v); c.tag, copy.deepcopy(v).tag, copy.copy(Value(1.0)).tag",
     SAME),
    ("Value.tag = []; v = Value(2.0); w = Value(3.0); v.tag.append(1); w.tag = [2]; v.tag, w.tag", SAME),
    ("class Named(Value):\n    tag = 'n'\nNamed(1.0).tag, Value.__name__", SAME),
    ("class Named(Value):\n    tag = 'n'\nv = Named(1.0); v.tag = 'q'; w = Named(2.0); del v.tag; v.tag, w.tag", SAME),
    ("a = Value(2.0); b = a * 3; b.label = 'b'; c = b + 1; del b; [v.label for v in c._prev if v._op]", SAME),
    ("v = Value(2.0) * 3.0; v._op = 'times'; v", SAME),
    ("callable(Value(2.0)._backward), Value(2.0)._backward()", SAME),
    ("a = Value(2.0); b = a * 3.0; b.grad = 5.0; b._backward(); a.grad", SAME),
    ("v = Value(2.0); [x._backward.__qualname__ for x in (v, v + v, v * 2, 2 + v, v ** 2, v ** 0.5, v.relu())]", SAME),
    ("v = Value(2.0); [x._backward.__name__ for x in (v, v + v, v * 2, v ** 2, v.relu())]", SAME),
    ("v = Value(2.0); [x._backward.__qualname__ for x in (v - 1, v / 2)]", "`a - b`, `a / b`, `-a`"),
    ("import inspect; str(inspect.signature(Value(2.0)._backward)), str(inspect.signature(Value(2.0).relu))", SAME),
    ("import inspect; str(inspect.signature(Value))", "`Value(..., label=)`"),
    ("import inspect; list(inspect.signature(Value).parameters)[:3]", SAME),
    ("import inspect; [len(inspect.signature(getattr(Value, name)).parameters) for name in ('relu', '__add__', "
     "'__radd__', '__mul__', '__rmul__', '__sub__', '__rsub__', '__truediv__', '__rtruediv__', '__neg__', '__repr__')]",
     SAME),
    ("Value.__name__, Value.__qualname__, Value.__module__.split('.')[1:]", "`Value.__module__`"),
    ("Value.__name__, Value.__qualname__", SAME),
    ("a = Value(2.0); (a + a)._prev == {a}, (a * a)._prev == {a}, (a ** 2)._prev == {a}", SAME),
    ("v = Value(2.0); isinstance(v, Value), type(v), type(v * 2)", SAME),
    ("v = Value(2.0); v.data = None", "complex, `Fraction`, `Decimal`"),
    ("v = Value(2.0); v.grad = None", "complex, `Fraction`, `Decimal`"),
    ("a = Value(2.0); b = a * 3.0; c = b * 5.0; c._prev.discard(b); c.backward(); a.grad", "`_prev`"),
    ("v = Value(2.0); v._prev = {Value(1.0)}", "`_prev`"),
    ("v = Value(2.0); v.relu = lambda: 5; v.relu()", "an attribute named like a method"),
    ("v = Value(2.0); v.requires_grad = False; (v * v).backward(); v.grad", "`v.requires_grad`"),
    ("v = Value(2.0) * 2.0; v.requires_grad = False; v.data", "`v.requires_grad`"),
    ("import warnings\nwith warnings.catch_warnings(record=True) as seen:\n    warnings.simplefilter('always')\n"
     "    Value(1.0).dtaa = 0\nlen(seen)", "an attribute that is nearly"),
    ("v = Value(2.0); v._backward = None", "`_children` that are no Values"),
    ("v = Value(2.0); v._backward = None; v.backward()", SAME),
    ("v = Value(2.0); del v.data; hasattr(v, 'data')", "`del v.data`"),
    ("x = Value(2.0); y = x * x; y._backward = lambda: None; del y._backward; y.backward(); x.grad", "`del v._backward`"),
    ("v = Value(2.0); del v._backward", "`del v._backward`"),
    ("v = Value(2.0); sorted(vars(v))", "`vars(v)`"),
    ("v = Value(2.0) * 3.0; len(v._children)", "`Value(..., label=)`"),

    # ---- + and * with every kind of operand, on both sides ----
    ("a = Value(2.0); b = Value(3.0); a + b, a * b", SAME),
    ("Value(2.0) + 3, 3 + Value(2.0), Value(2.0) * 3, 3 * Value(2.0)", SAME),
    ("Value(2.0) + 0.5, 0.5 + Value(2.0), Value(2.0) * 0.5, 0.5 * Value(2.0)", SAME),
    ("Value(2.0) + True, True + Value(2.0), Value(2.0) * True, False * Value(2.0)", SAME),
    ("Value(2.0) + np.float64(3), Value(2.0) * np.float64(3)", SAME),
    ("np.float64(3) + Value(2.0), np.float64(3) * Value(2.0)", SAME),
    ("Value(2.0) + np.int64(3), Value(2.0) * np.int64(3)", SAME),
    ("np.int64(3) + Value(2.0), np.int64(3) * Value(2.0)", SAME),
    ("Value(2.0) + np.float32(0.5), Value(2.0) * np.float32(0.5)", SAME),
    ("np.float32(0.5) + Value(2.0), np.float32(0.5) * Value(2.0)", SAME),
    ("Value(2.0) + np.bool_(True), np.bool_(True) * Value(2.0)", SAME),
    ("np.array(3.0) + Value(2.0), np.array(3.0) * Value(2.0)", SAME),
    ("Value(2.0) + np.array(3.0), Value(2.0) * np.array(3.0)", SAME),
    ("np.array([1.0, 2.0]) + Value(2.0)", SAME),
    ("np.array([1.0, 2.0]) * Value(2.0)", SAME),
    ("Value(2.0) + np.array([1.0, 2.0])", "`v * ndarray`"),
    ("Value(2.0) * np.array([1.0, 2.0])", "`v * ndarray`"),
    ("Value(2.0) * np.array([3.0])", "`v * ndarray`"),
    ("Value(2.0) + 'a'", SAME),
    ("'a' + Value(2.0)", SAME),
    ("Value(2.0) * 'a'", SAME),
    ("Value(2) * 'a'", "complex, `Fraction`, `Decimal`"),
    ("Value(2.0) + None", SAME),
    ("None * Value(2.0)", SAME),
    ("Value(2.0) + [1.0]", SAME),
    ("[1.0] + Value(2.0)", SAME),
    ("Value(2.0) * (1.0,)", SAME),
    ("Value(2) * [1.0]", "complex, `Fraction`, `Decimal`"),
    ("Value(2.0) + 1j", "complex, `Fraction`, `Decimal`"),
    ("1j * Value(2.0)", "complex, `Fraction`, `Decimal`"),
    ("Value(2.0) + Fraction(1, 2)", "complex, `Fraction`, `Decimal`"),
    ("Fraction(1, 2) * Value(2.0)", "complex, `Fraction`, `Decimal`"),
    ("Value(2.0) + Decimal(1)", SAME),
    ("Value(2.0) + object()", SAME),
    ("Value(1e308) * 10, Value(math.inf) * 0, Value(math.inf) + -math.inf", SAME),

    # ---- - and / ----
    ("(Value(2.0) - 3).data, (3 - Value(2.0)).data, (Value(2.0) - Value(0.5)).data, (-Value(2.0)).data",
     SAME),
    ("(Value(2.0) / 4).data, (3 / Value(2.0)).data, (Value(3.0) / Value(0.5)).data", SAME),
    ("(np.float64(3) - Value(2.0)).data, (np.int64(3) - Value(2.0)).data, (np.float32(3) - Value(2.0)).data",
     SAME),
    ("(np.float64(3) / Value(2.0)).data, (np.int64(3) / Value(2.0)).data, (np.float32(3) / Value(2.0)).data",
     SAME),
    ("(Value(2.0) - np.float64(3)).data, (Value(2.0) - np.int64(3)).data, (Value(2.0) - np.float32(3)).data",
     SAME),
    ("(Value(2.0) / np.float64(4)).data, (Value(2.0) / np.float32(4)).data", SAME),
    ("a = Value(2.0); b = Value(3.0); c = (a - b) / a - -b; c.backward(); c.data, a.grad, b.grad", SAME),
    ("a = Value(2.0); a - a, (a - a).data", "`a - b`, `a / b`, `-a`"),
    ("Value(2.0) - 3", "`a - b`, `a / b`, `-a`"),
    ("3 - Value(2.0)", "`a - b`, `a / b`, `-a`"),
    ("Value(2.0) / 4", "`a - b`, `a / b`, `-a`"),
    ("3 / Value(2.0)", "`a - b`, `a / b`, `-a`"),
    ("-Value(2.0)", "`a - b`, `a / b`, `-a`"),
    ("[(Value(float(k)) / 49.0).data == k / 49.0 for k in range(50)]", "`a / b`"),
    ("Value(2.0) - 'a'", SAME),
    ("'a' / Value(2.0)", SAME),
    ("Value(2.0) - None", SAME),
    ("Value(2.0) / [1.0]", SAME),
    ("Value(1.0) / 0", SAME),
    ("Value(1.0) / 0.0", SAME),
    ("1.0 / Value(0.0)", SAME),
    ("Value(1.0) / Value(0)", SAME),
    ("(Value(2.0) / np.int64(4)).data", "`v / np.int64(4)`"),
    ("(Value(2.0) - np.bool_(True)).data", "`v / np.int64(4)`"),
    ("v = Value(2.0); v.__eq__(v)", "special methods called by name"),
    ("Value(2.0).__add__('a')", "special methods called by name"),
    ("v = Value(2.0); v.__add__(1), v.__radd__(1), v.__mul__(v), v.__pow__(2)", SAME),

    # ---- ** ----
    ("Value(2.0) ** 3, Value(2) ** 3, Value(2.0) ** -1, Value(2.0) ** 0, Value(2.0) ** 1", SAME),
    ("Value(2.0) ** 0.5, Value(2.0) ** -0.5, Value(2.0) ** 2.0", SAME),
    ("Value(-2.0) ** 3, Value(-2.0) ** -3, Value(-2.0) ** 2.0", SAME),
    ("Value(2.0) ** True", "`v ** True`"),
    ("(Value(2.0) ** True).data, (Value(2.0) ** False).data", SAME),
    ("Value(2.0) ** np.float64(0.5)", SAME),
    ("Value(0.0) ** 0, Value(0.0) ** 2, Value(0.0) ** 0.5, Value(math.inf) ** 0, Value(math.nan) ** 0", SAME),
    ("Value(2.0) ** math.inf, Value(0.5) ** math.inf, Value(2.0) ** -math.inf, Value(2.0) ** math.nan", SAME),
    ("Value(0.0) ** -1", SAME),
    ("Value(0) ** -0.5", SAME),
    ("Value(1e200) ** 2", SAME),
    ("a = Value(2.0); (a ** 3).backward(); a.grad", SAME),
    ("a = Value(4.0); (a ** -0.5).backward(); a.grad", SAME),
    ("a = Value(0.0); (a ** 2).backward(); a.grad", SAME),
    ("a = Value(0.0); (a ** 1).backward(); a.grad", SAME),
    ("Value(-8.0) ** (1 / 3)", "`(-8.0) ** (1/3)`"),
    ("a = Value(0.0); (a ** 0.5).backward(); a.grad", "backward through"),
    ("a = Value(0.0); (a ** 0).backward(); a.grad", "backward through"),
    ("Value(2.0) ** Value(3.0)", "`v ** w`"),
    ("2 ** Value(3.0)", "`v ** w`"),
    ("np.float64(2) ** Value(3.0)", "`v ** w`"),
    ("Value(2.0) ** np.int64(3)", "`v ** w`"),
    ("Value(2.0) ** np.float32(3)", "`v ** w`"),
    ("Value(2.0) ** None", "an exponent that is no number"),
    ("Value(2.0) ** 'a'", "an exponent that is no number"),
    ("Value(2.0) ** 1j", "an exponent that is no number"),
    ("'a' ** Value(2.0)", SAME),
    ("None ** Value(2.0)", SAME),
    ("pow(Value(2.0), 3)", SAME),
    ("pow(Value(2.0), 3, 5)", SAME),

    # ---- in place ----
    ("v = w = Value(2.0); v += 3; v, w, v is w", SAME),
    ("v = w = Value(2.0); v *= Value(3.0); v, w, v is w", SAME),
    ("v = Value(2.0); v -= 3; v /= 4; v.data", SAME),
    ("v = Value(2.0); v **= 3; v", SAME),
    ("x = 3; x += Value(2.0); x", SAME),
    ("x = 3.0; x *= Value(2.0); x", SAME),
    ("v = Value(2.0); v += 'a'", SAME),

    # ---- comparison, identity, truth ----
    ("a = Value(2.0); b = Value(2.0); a == a, a == b, a != b, a == 2.0, 2.0 == a, a != None", SAME),
    ("a = Value(2.0); b = Value(2.0); len({a, b, a}), {a: 1}[a], a in [b], a in (b, a)", SAME),
    ("a = Value(2.0); hash(a) == hash(a), [Value(2.0), a].index(a)", SAME),
    ("bool(Value(0.0)), not Value(0.0), bool(Value(math.nan)), bool(Value(0.0) and 5)", SAME),
    ("v = Value(2.0); weakref.ref(v)() is v", SAME),
    ("v = Value(2.0); r = weakref.ref(v); del v; r()", SAME),
    ("Value(2.0) < 'a'", SAME),
    ("Value(2.0) < Value(3.0)", "`<  <=  >  >=`"),
    ("Value(2.0) >= 3, 3 > Value(2.0)", "`<  <=  >  >=`"),
    ("max([Value(2.0), Value(3.0)])", "`<  <=  >  >=`"),
    ("[v.data for v in sorted([Value(3.0), Value(2.0)])]", "`<  <=  >  >=`"),
    ("[v.data for v in sorted([Value(3.0), Value(2.0)], key=lambda v: v.data)]", SAME),

    # ---- as text, as a number, as something else ----
    ("repr(Value(2.5)).startswith('Value(data=2.5, grad='), str(Value(2.5)) == f'{Value(2.5)}'", SAME),
    ("v = Value(2.5); v.grad = -1.5; repr(v), str(v), f'{v}', f'{v!r}', '%s' % v, f'{[v]}'", SAME),
    ("a = Value(2.5); a.grad = 0.5; b = a * 1.5; b.backward(); repr(a)", SAME),
    ("f'{Value(2.5).data:.4f}'", SAME),
    ("f'{Value(2.5):.4f}'", "`<  <=  >  >=`"),
    ("f'{Value(2.5):nonsense}'", "`<  <=  >  >=`"),
    ("float(Value(2.5))", "`<  <=  >  >=`"),
    ("int(Value(2.5))", "`<  <=  >  >=`"),
    ("round(Value(2.5), 1)", "`<  <=  >  >=`"),
    ("abs(Value(-2.5))", "`<  <=  >  >=`"),
    ("+Value(2.5)", "`<  <=  >  >=`"),
    ("math.sqrt(Value(2.25))", "`<  <=  >  >=`"),
    ("complex(Value(2.5))", "`<  <=  >  >=`"),
    ("np.array([Value(2.5)], dtype=float)", "`<  <=  >  >=`"),
    ("operator.index(Value(2.0))", SAME),
    ("Value(7.0) // 2", SAME),
    ("7 % Value(2.0)", SAME),
    ("divmod(Value(7.0), 2)", SAME),
    ("Value(2.0) @ Value(3.0)", SAME),
    ("Value(2.0) & 1", SAME),
    ("~Value(2.0)", SAME),
    ("len(Value(2.0))", SAME),
    ("Value(2.0)[0]", SAME),
    ("list(Value(2.0))", SAME),
    ("Value(2.0)()", SAME),
    ("1 in Value(2.0)", SAME),
    ("sum([Value(2.0), Value(3.0)])", SAME),
    ("sum([Value(2.0), 3.0], Value(1.0))", SAME),
    ("math.prod([Value(2.0), Value(3.0)])", SAME),
    ("Value(0.5).tanh()", "`v.tanh()`"),
    ("Value(0.5).exp().data", "`v.tanh()`"),

    # ---- relu ----
    ("Value(2.5).relu(), Value(-2.5).relu(), Value(0.0).relu(), Value(3).relu()", SAME),
    ("math.copysign(1, Value(-0.0).relu().data)", SAME),
    ("Value(math.nan).relu(), Value(math.inf).relu(), Value(-math.inf).relu()", SAME),
    ("g = []\nfor x in (2.5, -2.5, 0.0, -0.0, math.inf, -math.inf, math.nan):\n"
     "    v = Value(x); v.relu().backward(); g.append(v.grad)\ng", SAME),
    ("v = Value(2.0); r = v.relu(); v.data = -1.0; r.backward(); v.grad", SAME),
    ("v = Value(2.0); r = v.relu(); r.data = -1.0; r.backward(); v.grad", SAME),
    ("v = Value(-2.0); r = v.relu().relu() + v.relu(); r.backward(); r.data, v.grad", SAME),
    ("Value(2.0).relu(0.1)", SAME),

    # ---- backward ----
    ("Value(2.0).backward()", SAME),
    ("v = Value(2.0); v.grad = 7.0; v.backward(); v.grad", SAME),
    ("a = Value(2.0); b = Value(3.0); c = a * b + a; c.backward(); a.grad, b.grad, c.grad", SAME),
    ("a = Value(2.0); (a * a).backward(); a.grad", SAME),
    ("a = Value(2.0); b = a * 3.0; b.backward(); b.backward(); a.grad", SAME),
    ("a = Value(2.0); b = a * 3.0 * 1.0; b.backward(); b.backward(); a.grad", SAME),
    ("a = Value(2.0); a.grad = 5.0; (a * 3.0).backward(); a.grad", SAME),
    ("a = Value(2.0); b = a * 3.0; b.backward(); a.grad = 0; b.grad = 0; b.backward(); a.grad", SAME),
    ("a = Value(2.0); b = Value(3.0); c = a * b; a.data = 5.0; c.backward(); c.data, b.grad", SAME),
    ("a = Value(2.0); b = a ** 2; a.data = 5.0; b.backward(); b.data, a.grad", SAME),
    ("a = Value(2.0); b = a * 3.0; c = b * b; b.backward(); c.grad, b.grad, a.grad", SAME),
    ("a = Value(0.0); (a * math.inf).backward(); a.grad", SAME),
    ("a = Value(math.inf); b = Value(0.0); (a * b * 0.0).backward(); a.grad, b.grad", SAME),
    ("x = Value(1.0); y = x\nfor _ in range(500):\n    y = y * 1.001\ny.backward(); y.data, x.grad", SAME),
    ("x = Value(1.0); y = x\nfor _ in range(50):\n    y = y + y\ny.backward(); y.data, x.grad", SAME),
    ("Value(2.0).backward(1.0)", "`v.backward(gradient, create_graph)`"),
    ("Value(2.0).backward(1.0, False, 3)", SAME),
    ("import inspect; len(inspect.signature(Value.backward).parameters)", "`v.backward(gradient, create_graph)`"),
    ("x = Value(0.5); y = 1.0 - x; y.backward(); y.backward(); x.grad", "two backward passes in a row"),
    ("x = Value(1.0); y = x\nfor _ in range(5_000):\n    y = y * 1.0\ny.backward(); x.grad", "depth"),
    ("""
class Node(Value):
    def __hash__(self):
        return self.place

def gradient(places):
    x = Value(1.0)
    nodes = []
    for slope, place in zip((1e16, 1.0, -1e16), places):
        node = Node(slope, (x,), "term")
        node.place = place
        def rule(slope=slope, node=node):
            x.grad += slope * node.grad
        node._backward = rule
        nodes.append(node)
    total = Value(1.0, nodes, "sum")
    def rule():
        for node in nodes:
            node.grad += total.grad
    total._backward = rule
    total.backward()
    return x.grad

gradient((1, 2, 3)) == gradient((3, 1, 2)) == gradient((2, 3, 1))
""", "order in which gradients are added"),

    # ---- operations of one's own, and rules replaced ----
    ("""
def tanh(x):
    t = math.tanh(x.data)
    out = Value(t, (x,), "tanh")
    def rule():
        x.grad += (1 - t * t) * out.grad
    out._backward = rule
    return out

x = Value(0.5)
y = tanh(tanh(x) * 2.0) * x
y.backward()
y, x.grad, tanh(x)
""", SAME),
    ("x = Value(2.0); y = Value(5.0, (x,), 'opaque'); (y * 3.0).backward(); x.grad, y.grad", SAME),
    ("x = Value(2.0); y = x * 3.0; y._backward = lambda: None; (y * 5.0).backward(); x.grad, y.grad", SAME),
    ("x = Value(2.0); y = x * 3.0; calls = []; rule = y._backward\n"
     "def logged():\n    calls.append(y.grad); rule()\n"
     "y._backward = logged; (y * 5.0).backward(); calls, x.grad", SAME),
    ("x = Value(2.0); calls = []; x._backward = lambda: calls.append(x.grad); (x * 3.0).backward(); calls",
     SAME),
    ("x = Value(2.0); y = Value(5.0, (x,)); y._backward = lambda: 1 / 0; (y * 3.0).backward()", SAME),
    ("x = Value(2.0); y = Value(5.0, (x,)); y._backward = lambda: {}['no']; (y * 3.0).backward()", SAME),
    ("x = Value(2.0); y = x * 3.0; z = y * 2.0; z._backward = y.backward; z.backward(); x.grad", SAME),

    # ---- numbers that do not fit, and lifetimes ----
    ("Value(10) ** 400", "`Value(10)**400`"),
    ("Value(10.0) ** 400", SAME),
    ("Value(10) * 10**400", "an int that float64 cannot hold"),
    ("import gc\ngc.disable()\nv = Value(2.0); n = v * 3.0; r = weakref.ref(n); n = None\nr() is None", "nodes that nobody uses"),
    ("import gc\nv = Value(2.0); n = v * 3.0; r = weakref.ref(n); n = None\ngc.collect()\nr() is None", SAME),

    # ---- NumPy: arrays of Values ----
    ("np.array([Value(1.0), Value(2.0)]).dtype == object, np.array(Value(1.0)).shape", SAME),
    ("a = np.array([Value(1.0), Value(2.0)]); a + a, a * a, a + 1.0, 2.0 * a", SAME),
    ("a = np.array([Value(1.0), Value(2.0)]); b = np.array([3.0, 4.0]); a + b, b * a", SAME),
    ("a = np.array([Value(1.0), Value(2.0)]); a ** 2, a ** 0.5", SAME),
    ("a = np.array([Value(1.0), Value(2.0)]); [v.data for v in a - 1.0], [v.data for v in a / 2.0]", SAME),
    ("a = np.array([Value(1.0), Value(2.0)]); [v.data for v in -a], [v.data for v in 1.0 - a]", SAME),
    ("a = np.array([Value(1.0), Value(2.0)]); a @ a, np.dot(a, a), np.dot(a, np.array([3.0, 4.0]))", SAME),
    ("A = np.array([[Value(1.0), Value(2.0)], [Value(3.0), Value(4.0)]]); A @ A, A.T, A.sum(axis=0)", SAME),
    ("A = np.array([[Value(1.0), Value(2.0)]]); A @ np.ones((2, 3)), np.ones((3, 1)) @ A", SAME),
    ("a = np.array([Value(1.0), Value(2.0)]); a.sum(), np.sum(a), a.prod(), a.cumsum()", SAME),
    ("a = np.array([Value(1.0), Value(2.0)]); a.mean().data, np.mean(a).data", "`v / np.int64(4)`"),
    ("np.sum([Value(1.0), Value(2.0)]), np.dot([Value(1.0)], [Value(2.0)])", SAME),
    ("a = np.array([Value(1.0), Value(2.0)]); (a @ a).backward(); [v.grad for v in a]", SAME),
    ("a = np.array([Value(1.0), Value(2.0)]); (a.sum() / 2).backward(); [v.grad for v in a]", SAME),
    ("a = np.array([Value(1.0), Value(2.0)]); a += 1.0; a", SAME),
    ("v = Value(2.0); a = np.array([Value(1.0), v]); v + a", "`v * ndarray`"),
    ("np.array([v.data for v in [Value(1.0), Value(2.5)]])", SAME),
    ("np.array([v.data for v in [Value(1.0), Value(2.5)]]).dtype == np.float64", SAME),
    ("np.outer(np.array([Value(1.0), Value(2.0)]), np.array([3.0, 4.0]))", SAME),
    ("np.array([Value(1.0)]) == np.array([Value(1.0)])", SAME),
    ("np.tanh(np.array([Value(0.5)]))", "`v.tanh()`"),
    ("np.max(np.array([Value(1.0), Value(2.0)]))", "`<  <=  >  >=`"),
    ("np.abs(np.array([Value(-1.0)]))", "`<  <=  >  >=`"),
    ("np.isnan(Value(1.0))", SAME),
    ("Value.exp = lambda v: Value(math.exp(v.data), (v,), 'exp'); np.exp(np.array([Value(0.5)]))", SAME),
    ("Value.exp = lambda v: Value(math.exp(v.data), (v,), 'exp'); np.exp(Value(0.5))", SAME),
    ("np.exp(Value(0.5))", "`v.tanh()`"),
    ("np.arctan(Value(0.5))", SAME),
    ("np.add(Value(1.0), 2.0), np.add(Value(1.0), Value(2.0)), np.multiply(np.float32(0.5), Value(2.0))", SAME),
    ("np.multiply(np.array([1.0, 2.0]), Value(2.0)), np.multiply(Value(2.0), np.array([1.0, 2.0]))", SAME),
    ("np.add([Value(1.0), 2.0], Value(3.0)), np.add(Value(3.0), [[1.0], [2.0]])", SAME),
    ("np.subtract(np.float64(3), Value(2.0)).data, np.true_divide(3, Value(2.0)).data", SAME),
    ("np.power(Value(2.0), 3), np.power(Value(2.0), np.int64(3)), np.power(Value(2.0), [2, 0.5])", SAME),
    ("np.square(Value(3.0)), np.reciprocal(Value(4.0)).data, np.negative(Value(3.0)).data", SAME),
    ("a = np.array([Value(1.0)]); a += Value(2.0); a", SAME),
    ("a = np.array([Value(1.0), Value(2.0)]); b = a; b += Value(3.0); b is a, a, b", SAME),
    ("a = np.array([Value(3.0), Value(2.0)]); b = a; b -= a[0]; b is a, [v.data for v in a]", SAME),
    ("a = np.array([Value(3.0), Value(2.0)]); a *= a[1]; a /= a[0]; [v.data for v in a]", SAME),
    ("a = np.array([Value(3.0), Value(2.0)]); a **= 2; a **= np.float64(0.5); a", SAME),
    ("a = np.array([Value(3.0), Value(-2.0)]); v = Value(5.0); a[np.array([True, False])] *= v; a", SAME),
    ("a = np.array([Value(3.0), Value(2.0)]); v = Value(5.0); a *= v; a.sum().backward(); v.grad", SAME),
    ("A = np.array([[Value(1.0), Value(2.0)], [Value(3.0), Value(4.0)]]); A[:, 0] += Value(1.0); A[0] *= A[1, 1]; A", SAME),
    ("a = np.array([Value(3.0), Value(2.0)]); np.add.at(a, [0, 0, 1], Value(5.0)); a", SAME),
    ("np.add.at(Value(3.0), 0, 1.0)", SAME),
    ("a = np.array([Value(3.0), Value(2.0)]); np.add(a, Value(1.0), out=a), a", SAME),
    ("a = np.array([Value(3.0), 2.0]); np.add(a, Value(1.0), where=[True, False], out=a)", SAME),
    ("np.add(1.0, 2.0, out=Value(1.0))", SAME),
    ("a = np.ones(2); a *= Value(2.0); a", SAME),
    ("a = np.ones(2); np.add(a, Value(2.0), out=a, casting='unsafe'); a", "`<  <=  >  >=`"),
    ("np.add.reduce(Value(1.0))", SAME),
    ("np.sum(Value(1.0)), np.prod(Value(2.0))", SAME),
    ("np.add.reduce(np.array([Value(1.0), Value(2.0)]), initial=Value(5.0))", SAME),
    ("np.multiply.outer(Value(2.0), np.array([1.0, 3.0])), np.multiply.outer([1.0, 3.0], Value(2.0))", SAME),
    ("np.add.accumulate(Value(2.0))", SAME),
    ("np.dot(Value(2.0), Value(3.0)), np.dot(Value(2.0), np.array([1.0, 2.0])), np.vdot([1.0], [Value(2.0)])", SAME),
    ("np.outer(Value(2.0), [1.0, 2.0]), np.inner([Value(2.0)], [3.0])", SAME),
    ("np.float64(3) @ Value(2.0)", SAME),
    ("np.float64(3) // Value(2.0)", SAME),
    ("np.int64(3) & Value(2.0)", SAME),
    ("np.str_('a') * Value(2.0)", SAME),
    ("np.array(['a']) + Value(2.0)", SAME),
    ("np.timedelta64(1, 's') * Value(2.0)", "complex, `Fraction`, `Decimal`"),
    ("np.array([1], 'm8[ns]') * Value(2.0)", SAME),
    ("v = Value(2.0); np.array([1.0, 2.0]) == v, v == np.array([1.0, v]), np.float64(2) == v, v != np.float64(2)", SAME),
    ("v = Value(2.0); v in np.array([Value(1.0), v]), v in np.array([Value(2.0)]), list(np.array([v, 2.0]) == v)", SAME),
    ("np.float64(1) < Value(2.0), np.int64(1) >= Value(2.0)", "`<  <=  >  >=`"),
    ("np.array([1.0, 3.0]) < Value(2.0), np.array([Value(1.0), Value(3.0)]) > Value(2.0)", "`<  <=  >  >=`"),
    ("np.maximum(Value(2.0), 1.0), np.clip(np.array([Value(2.0)]), 0.0, 1.0)", "`<  <=  >  >=`"),
    ("np.maximum(Value(2.0), 'a')", SAME),
    ("np.logical_and(Value(2.0), 3.0), np.logical_not(Value(0.0)), np.logical_or(0, Value(0.0))", SAME),
    ("Value.exp = lambda v: Value(math.exp(v.data), (v,), 'exp')\na = np.array([Value(0.5), Value(1.5), Value(-1.0)])\n"
     "a -= a[1]; e = np.exp(a); e /= np.sum(e); [v.data for v in e]", SAME),
    ("class Mine(Value):\n    def __rmul__(self, x):\n        return type(x).__name__\n"
     "np.multiply(np.array([2.0]), Mine(3.0)), np.multiply(2.0, Mine(3.0))", SAME),
    ("class Mine(Value):\n    def __rmul__(self, x):\n        return float(x)\nnp.float64(2) * Mine(3.0)", SAME),
    ("Value.__rmul__ = lambda self, x: float(x); np.float64(2) * Value(3.0), np.array([2.0]) * Value(3.0)", SAME),
    ("np.divmod(Value(2.0), 2.0)", SAME),
    ("np.isfinite(Value(2.0))", SAME),

    # ---- nn ----
    ("n = nn.Neuron(2); n.w, n.b, n.nonlin, repr(n)", SAME),
    ("n = nn.Neuron(2); n.w is n.w, n.b is n.b, isinstance(n.w, list)", SAME),
    ("class M(nn.Module):\n    def __init__(self):\n        self.layer = nn.Layer(2, 2); self.w = Value(1.0)\n"
     "len(M().parameters())", "a `Module` subclass without `parameters()`"),
    ("class M(nn.Module):\n    def __init__(self):\n        self.w = Value(1.0); self.w.grad = 5.0\n"
     "m = M(); m.zero_grad(); m.w.grad", "a `Module` subclass without `parameters()`"),
    ("class M(nn.Module):\n    def __init__(self):\n        self.w = Value(1.0); self.v = Value(2.0); self.w.grad = 5.0\n"
     "    def parameters(self):\n        return [self.w]\nm = M(); m.zero_grad(); m.parameters() == [m.w], m.w.grad", SAME),
    ("class M(nn.Module):\n    pass\nM().parameters(), M().zero_grad()", SAME),
    ("class M(nn.Module):\n    pass\nM()([1.0])", SAME),
    ("n = nn.Neuron(2); n.own = 5; sorted(vars(n))", "`vars(neuron)`"),
    ("n = nn.Neuron(3, nonlin=False); n, repr(n), n.parameters() == n.w + [n.b]", SAME),
    ("n = nn.Neuron(2); n([1.0, -2.0]), n((Value(1.0), 2)), n(np.array([0.5, 0.25]))", SAME),
    ("n = nn.Neuron(2, False); y = n([1.0, -2.0]); y.backward(); y, [p.grad for p in n.parameters()]", SAME),
    ("n = nn.Neuron(2, False); n(x for x in [1.0, 2.0])", SAME),
    ("n = nn.Neuron(0); n([]), n.w, repr(n)", SAME),
    ("n = nn.Neuron(2, False); n.w[0] = Value(5.0); n.b = Value(1.0); n([1.0, 1.0])", SAME),
    ("nn.Neuron(2)(['a', 'b'])", SAME),
    ("nn.Neuron(2)(5)", SAME),
    ("nn.Neuron('a')", SAME),
    ("nn.Neuron(2.0)", SAME),
    ("nn.Neuron()", SAME),
    ("l = nn.Layer(2, 3); repr(l), sorted(vars(l)), len(l.neurons)", SAME),
    ("l = nn.Layer(2, 3); [y.data for y in l([1.0, 2.0])], l.parameters()", SAME),
    ("l = nn.Layer(2, 3); l.fused = False; l([1.0, 2.0])", SAME),
    ("l = nn.Layer(2, 1); l([1.0, 2.0])", "what `Layer` and `MLP` return"),
    ("l = nn.Layer(2, 2); [len(y._prev) for y in l([1.0, 2.0])]", "what `Layer` and `MLP` return"),
    ("nn.Layer(2, 2)([[1.0, 2.0], [3.0, 4.0]])", "several samples"),
    ("l = nn.Layer(2, 2, nonlin=False); repr(l), l.parameters()", SAME),
    ("nn.Layer(2, 0)([1.0, 2.0]), nn.Layer(2, 0).parameters()", SAME),
    ("nn.Layer(2, 2, bias=False)", "more arguments of `Neuron`, `Layer` and `MLP`"),
    ("m = nn.MLP(2, [3, 1]); repr(m), sorted(vars(m)), len(m.layers), m.parameters()", SAME),
    ("m = nn.MLP(2, [3, 1]); m([1.0, 2.0])", "what `Layer` and `MLP` return"),
    ("m = nn.MLP(2, [3, 1]); m.fused = False; m([1.0, 2.0])", SAME),
    ("m = nn.MLP(2, [3, 2]); m.fused = False; m([Value(1.0), Value(2.0)])", SAME),
    ("m = nn.MLP(2, [3, 1]); m.fused = False; m(np.array([1.0, 2.0])), m(np.array([1, 2]))", SAME),
    ("nn.MLP(2, [3, 1])(np.ones((4, 2)))", "several samples"),
    ("m = nn.MLP(2, [3, 1]); p = m.parameters(); p is m.parameters(), p == m.parameters()", SAME),
    ("m = nn.MLP(2, [3, 1]); m([1.0, 2.0]).backward(); g = [p.grad for p in m.parameters()]; m.zero_grad();"
     " g, [p.grad for p in m.parameters()]", SAME),
    ("m = nn.MLP(2, []); m([1.0]), m.parameters(), repr(m)", SAME),
    ("nn.MLP(2, 3)", SAME),
    ("nn.MLP(2)", SAME),
    ("nn.Module().parameters(), nn.Module().zero_grad()", SAME),
    ("class Scale(nn.Module):\n    def __init__(self):\n        self.s = Value(2.0)\n"
     "    def parameters(self):\n        return [self.s]\n"
     "m = Scale(); m.s.grad = 3.0; m.zero_grad(); m.s", SAME),
    ("""
m = nn.MLP(2, [4, 1])
losses = []
for step in range(5):
    loss = sum((m(x) - y) ** 2 for x, y in [([0.5, 1.0], 1.0), ([-1.0, 0.25], -1.0)])
    m.zero_grad()
    loss.backward()
    for p in m.parameters():
        p.data -= 0.05 * p.grad
    losses.append(loss.data)
losses
""", SAME),
    ("nn.Neuron(2, False)([1.0]), 'cut'", "an input longer or shorter"),
    ("nn.MLP(2, [3, 1])([1.0, 2.0, 3.0]), 'cut'", "an input longer or shorter"),
    ("nn.MLP(2, (3, 1)), 'made'", "`nouts`"),
    ("nn.Neuron(-1), 'made'", "a negative size"),
    ("nn.Layer(2, 3, nonlin=False)(x for x in [1.0, 2.0])", "an input that can be read once"),

    # ---- subclasses, and methods put on the class ----
    ("class Mine(Value):\n    pass\nv = Mine(2.0); v, v + 1.0, 1.0 + v, v * v, type(v ** 2), v.relu()", SAME),
    ("class Mine(Value):\n    def __init__(self, data, name):\n        super().__init__(data)\n"
     "        self.name = name\nv = Mine(2.0, 'v'); v, v.name, (v * 3.0)._prev >= {v}", SAME),
    ("class Mine(Value):\n    def relu(self):\n        return self * 0.1\nv = Mine(2.0); v.relu()", SAME),
    ("class Mine(Value):\n    def __add__(self, other):\n        return 'mine'\n"
     "Mine(2.0) + 1, Value(2.0) + 1", SAME),
    ("class Mine(Value):\n    def __add__(self, other):\n        return 'mine'\n1 + Mine(2.0)",
     "replaced or overridden"),
    ("class Mine(Value):\n    def __repr__(self):\n        return 'mine'\nrepr(Mine(2.0)), f'{Mine(2.0)}'",
     SAME),
    ("class Mine(Value):\n    def __eq__(self, other):\n        return True\nMine(2.0) == 5, hash(Mine(2.0))",
     SAME),
    ("class Mine(Value):\n    pass\nv = Mine(2.0); (v * v + 3.0).backward(); v.grad", SAME),
    ("Value.double = lambda v: v * 2; Value(2.0).double()", SAME),
    ("Value.tanh = lambda v: Value(math.tanh(v.data), (v,), 'mine'); Value(0.5).tanh()", SAME),
    ("Value.relu = lambda v: v * 0.5; Value(2.0).relu(), nn.Neuron(0)([])", SAME),
    ("Value.__add__ = lambda v, w: 'replaced'; Value(2.0) + 1", SAME),
    ("Value.__add__ = Value.__radd__ = lambda v, w: 'replaced'; Value(2.0) + 1, 1 + Value(2.0)", SAME),
    ("Value.__add__ = lambda v, w: 'replaced'; 1 + Value(2.0)", "replaced or overridden"),
    ("Value.__mul__ = lambda v, w: 'replaced'; Value(2.0) / 4", "replaced or overridden"),
    ("Value.__repr__ = lambda v: f'V({v.data})'; f'{Value(2.5)}', str([Value(2.5)])", SAME),
    ("Value.__abs__ = lambda v: 'mine'; abs(Value(2.0))", SAME),
    ("Value.__lt__ = lambda v, w: v.data < w.data; Value(2.0) < Value(3.0)", SAME),
    ("Value.__matmul__ = lambda v, w: 'mine'; Value(2.0) @ 3", SAME),
    ("Value.half = property(lambda v: v.data / 2); Value(3.0).half", SAME),
    ("Value.rate = 0.1; Value(3.0).rate", SAME),

    # ---- copies ----
    ("v = Value(2.0); c = copy.copy(v); c.data += 1; v, c, c is v", SAME),
    ("v = Value(2.0); v.label = 'x'; c = copy.deepcopy(v); c.data += 1; v, c, c.label", SAME),
    ("v = Value(2.0) * 3.0; c = copy.deepcopy(v); c, sorted(x.data for x in c._prev), c._prev & v._prev",
     SAME),
    ("m = nn.MLP(2, [2, 1]); m.fused = False; c = copy.deepcopy(m); c.parameters()[0].data = 9.0; "
     "m([1.0, 2.0]), c([1.0, 2.0])", SAME),
    ("v = Value(2.0); v.n = [1]; copy.copy(v).n is v.n, copy.deepcopy(v).n is v.n", SAME),
    ("v = Value(2.0); a, b = copy.deepcopy([v, v]); a is b, a is v", SAME),
    ("x = Value(2.0); y = x * x; a, b = copy.deepcopy((x, y)); b._prev == {a}", SAME),
    ("x = Value(2.0); w = Value(3.0); y = x * w; c = copy.copy(y); c, c._prev == y._prev", SAME),
    ("y = Value(2.0) * 3.0; c = copy.copy(y); c, c._prev == y._prev", "`copy.copy`, `copy.deepcopy`"),
    ("""
def operation(x):
    out = Value(5.0, (x,), "mine")
    def rule():
        x.grad += 7.0 * out.grad
    out._backward = rule
    return out

x = Value(2.0)
copy.copy(operation(x)).backward()
x.grad
""", SAME),
    ("class Mine(Value):\n    pass\nv = Mine(2.0); v.n = [1]; c = copy.deepcopy(v); c, c.n, c.n is v.n",
     SAME),
    ("x = Value(2.0); y = x * 3.0; c = copy.copy(y); c.backward(); x.grad", "`copy.copy`, `copy.deepcopy`"),
    ("x = Value(2.0); c = copy.deepcopy(x * 3.0); c.backward(); x.grad, sorted(v.grad for v in c._prev)",
     "`copy.copy`, `copy.deepcopy`"),
    ("x = Value(2.0); y = x * 3.0; w = weakref.ref(y); z = y + 1.0; del y; w() is None",
     "a weak reference to a result that only later results use"),
    ("pickle.loads(pickle.dumps(Value(2.0)))", "`pickle`"),
    ("y = pickle.loads(pickle.dumps(Value(2.0) * 3.0)); y.backward(); sorted(v.grad for v in y._prev)",
     "`pickle`"),
    ("m = nn.MLP(2, [2, 1]); pickle.loads(pickle.dumps(m))([1.0, 2.0]).data == m([1.0, 2.0]).data",
     "`pickle`"),
]


# ---- what a program sees ----

def outcome(program, engine):
    """What the program's last expression gives, or the type of its exception, as plain objects."""
    Value, nn = engine
    tree = ast.parse(program.strip())
    last = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None
    modules = (copy, math, np, operator, pickle, weakref)
    names = {"__name__": "program", "Value": Value, "nn": nn, "np": np, "Fraction": Fraction,
             "Decimal": Decimal, **{module.__name__: module for module in modules}}
    class_as_it_was = dict(vars(Value))
    random.seed(1337)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")   # NumPy's, of micrograd's arithmetic on its scalars
            exec(compile(tree, "<program>", "exec"), names)
            result = eval(compile(last, "<program>", "eval"), names) if last else None
            return plain(result, Value)
    except Exception as error:
        return "raised", python_s_own(type(error)).__name__
    finally:
        gc.enable()     # a program may have turned it off
        names.clear()   # as the globals of the rules that it sets, it is part of cycles with its Values
        for name in [name for name in vars(Value) if name not in class_as_it_was]:
            delattr(Value, name)
        for name, was in class_as_it_was.items():
            if vars(Value).get(name) is not was:
                setattr(Value, name, was)


def python_s_own(error):
    """The exception of Python's that a class is, or is derived from."""
    return next(cls for cls in error.__mro__ if cls.__module__ == "builtins")


def plain(x, Value):
    """x as tuples of strings, numbers and None that `agree` can compare."""
    if isinstance(x, Value):
        return type(x).__name__, plain(x.data, Value), plain(x.grad, Value), plain(x._op, Value)
    if isinstance(x, (int, float, np.bool_, np.integer, np.floating)):
        return x if isinstance(x, int) else float(x)
    if isinstance(x, np.ndarray):
        return "ndarray", x.shape, tuple(plain(item, Value) for item in x.flat)
    if isinstance(x, (list, tuple)):
        return tuple(plain(item, Value) for item in x)
    if isinstance(x, (set, frozenset)):
        return "set", tuple(sorted((plain(item, Value) for item in x), key=repr))
    if x is None or isinstance(x, str):
        return x
    if isinstance(x, type):
        return "class", x.__name__
    return "object", type(x).__name__, str(x) if isinstance(x, (complex, Fraction, Decimal)) else ""


def agree(x, y):
    """Whether two outcomes are the same, floats to 1e-12."""
    if isinstance(x, tuple) and isinstance(y, tuple):
        return len(x) == len(y) and all(map(agree, x, y))
    if isinstance(x, (int, float)) and isinstance(y, (int, float)):
        return x == y or (x != x and y != y) or math.isclose(x, y, rel_tol=1e-12)
    return type(x) is type(y) and x == y


# ---- the page ----

def entries(page):
    """The rows of the page's tables without their headings: a list of cells each."""
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")]
            for line in page.splitlines() if line.startswith("|")]
    return [row for row in rows if row[0] and set(row[0]) != {"-"}]


def entry(name, table):
    """The row of `table` that `name` names."""
    found = ([row for row in table if row[0] == name]
             or [row for row in table if any(name in cell for cell in row)])
    if len(found) != 1:
        raise LookupError(f"{len(found)} entries of {PAGE.name} are named {name!r}")
    return found[0]


TABLE = entries(PAGE.read_text(encoding="utf-8"))


# ---- the tests ----

@pytest.mark.parametrize("program, difference", ROWS,
                         ids=[" ".join(program.split())[:60] for program, _ in ROWS])
def test_program(program, difference):
    theirs, ours = outcome(program, MICROGRAD), outcome(program, FLATGRAD)
    if difference is SAME:
        assert agree(theirs, ours), f"micrograd: {theirs}\nflatgrad:  {ours}"
    else:
        entry(difference, TABLE)
        assert not agree(theirs, ours), f"both: {ours}"


def test_every_entry_of_the_page_is_shown():
    shown = [entry(name, TABLE)[0] for name in {name for _, name in ROWS if name is not SAME}]
    assert sorted(shown) == sorted(row[0] for row in TABLE)


def test_every_entry_of_the_page_is_complete():
    assert len(TABLE) >= 30
    for row in TABLE:
        assert len(row) == 4 and all(row), row


def test_rows_are_distinct():
    assert len({program for program, _ in ROWS}) == len(ROWS) >= 150


# ---- the tester ----

def test_agreement():
    nan = math.nan
    for x, y in [(1, 1.0), (nan, nan), ((1.0, "a"), (1, "a")), (1.0, 1.0 + 1e-13), (math.inf, math.inf),
                 (10**400, 10**400), (None, None)]:
        assert agree(x, y)
    for x, y in [(1, 1.0 + 1e-11), (nan, 0.0), ((1.0,), (1.0, 1.0)), ("1", 1), (None, 0), ((), None),
                 (math.inf, -math.inf), (("raised", "TypeError"), ("raised", "ValueError")), (1e-300, 0.0)]:
        assert not agree(x, y) and not agree(y, x)


def test_outcomes():
    for engine in (MICROGRAD, FLATGRAD):
        assert outcome("Value(2.5) * 2", engine) == ("Value", 5.0, 0.0, "*")
        assert outcome("1 / 0", engine) == ("raised", "ZeroDivisionError")
        assert outcome("x = 5", engine) is None
        assert outcome("[Value(1.0).data], {2}, np.ones(2)", engine) == (
            (1.0,), ("set", (2,)), ("ndarray", (2,), (1.0, 1.0)))
        assert outcome("random", engine) == ("raised", "NameError")


def test_classes_are_left_as_they_were():
    for engine in (MICROGRAD, FLATGRAD):
        before = dict(vars(engine[0]))
        for program in ["Value.__add__ = Value.relu = Value.new = None; Value(1.0) + 1", "del Value.relu"]:
            outcome(program, engine)
            assert dict(vars(engine[0])) == before
        assert outcome("(Value(1.0) + 1).relu()", engine) == ("Value", 2.0, 0.0, "ReLU")


def test_names_of_entries():
    page = "| | a | b |\n|---|---|---|\n| one | two | three |\n| one more | two | four |\ntext | text\n"
    table = entries(page)
    assert table == [["one", "two", "three"], ["one more", "two", "four"]]
    assert entry("one", table) == table[0] and entry("four", table) == table[1]
    for name in ["two", "five", "on"]:
        with pytest.raises(LookupError, match=name):
            entry(name, table)
