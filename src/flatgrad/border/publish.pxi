# publish.pxi: What users see of the compiled part: functions and methods from the rows of ops.def, names and
# signatures.
#
# Runs once, at the end of the import: everything is there.
#
# Uses attributes, elementwise, python, ufuncs, value_type.

cdef extern from *:
    """
    /* A Python method or function is a C function of its own, so each row of ops.def makes one
     * that only adds its opcode. */
    typedef PyObject *(*fg_apply_method)(int op, PyObject *self);
    typedef PyObject *(*fg_apply_function)(int op, PyObject **args, Py_ssize_t count);
    static fg_apply_method fg_method_hook;
    static fg_apply_function fg_function_hook;
    typedef PyObject *(*fg_apply_call)(int op, PyObject *self, PyObject **args, Py_ssize_t count, PyObject *names);
    static fg_apply_call fg_call_hook;

    #define FG_ROW_FUNCTION(ID)                                                              \\
        static PyObject *fg_function_##ID(PyObject *m, PyObject *const *args, Py_ssize_t n)  \\
        {                                                                                    \\
            (void)m;                                                                         \\
            return fg_function_hook(FG_##ID, (PyObject **)args, n);                          \\
        }
    #define FG_UNARY(ID, ...)                                                                \\
        FG_ROW_FUNCTION(ID)                                                                  \\
        static PyObject *fg_method_##ID(PyObject *self, PyObject *unused)                    \\
        {                                                                                    \\
            (void)unused;                                                                    \\
            return fg_method_hook(FG_##ID, self);                                            \\
        }
    #define FG_BINARY(ID, ...)                                                               \\
        FG_ROW_FUNCTION(ID)                                                                  \\
        static PyObject *fg_call_##ID(PyObject *self, PyObject *const *args, Py_ssize_t n,   \\
                                      PyObject *names)                                       \\
        {                                                                                    \\
            return fg_call_hook(FG_##ID, self, (PyObject **)args, n, names);                 \\
        }
    #define FG_TERNARY(ID, ...) FG_ROW_FUNCTION(ID)
    #include "ops.def"

    static PyCFunction const fg_methods[FG_OPS] = {
    #define FG_UNARY(ID, ...) [FG_##ID] = fg_method_##ID,
    #define FG_BINARY(ID, ...) [FG_##ID] = (PyCFunction)(void (*)(void))fg_call_##ID,
    #include "ops.def"
    };
    static PyCFunction const fg_functions[FG_OPS] = {
    #define FG_UNARY(ID, ...) [FG_##ID] = (PyCFunction)(void (*)(void))fg_function_##ID,
    #define FG_BINARY(ID, ...) [FG_##ID] = (PyCFunction)(void (*)(void))fg_function_##ID,
    #define FG_TERNARY(ID, ...) [FG_##ID] = (PyCFunction)(void (*)(void))fg_function_##ID,
    #include "ops.def"
    };
    """
    ctypedef object (*fg_apply_method)(int, PyObject *)
    ctypedef object (*fg_apply_function)(int, PyObject **, Py_ssize_t)
    ctypedef object (*fg_apply_call)(int, PyObject *, PyObject **, Py_ssize_t, PyObject *)
    fg_apply_method fg_method_hook
    fg_apply_function fg_function_hook
    fg_apply_call fg_call_hook
    const PyCFunction fg_methods[]
    const PyCFunction fg_functions[]


fg_method_hook = apply_method
fg_function_hook = apply_function
fg_call_hook = apply_call


cdef str row_doc(const fg_op_info *info, str name, bint is_method):
    """The numpydoc page of an operation, from its row; the first lines are its signature."""
    cdef str domain = info.domain.decode(), edge = info.edge.decode(), first
    cdef list names = info.operands.decode().split(", ")
    first = names[0]
    shown = (["$self"] if is_method else [first]) + names[1:]
    if isnan(info.second):
        shown.append("/")
        number = "A number becomes a constant leaf."
    else:
        shown[1] += f"={info.second}"
        number = f"A number becomes a constant leaf. `{names[1]}` may be left out."
    doc = [f"{name}({', '.join(shown)})", "--", "",
           f"{info.formula.decode()}, as one node of the graph{f'; {first} is this value' if is_method else ''}.", ""]
    if len(names) > is_method:
        doc += ["Parameters", "----------", f"{', '.join(names[is_method:])} : Value, Tensor or real number",
                f"    Dimensionless. {number}", ""]
    doc += ["Returns", "-------", "Value, or Tensor if an operand is one",
            f"    The result, with `_op` '{info.symbol.decode()}'.", ""]
    if domain:
        doc += ["Raises", "------", "ValueError, ArithmeticError", f"    Unless: {domain}.", ""]
    if edge:
        doc += ["Notes", "-----", edge, ""]
    arguments = [f"Value({k + 0.5})" for k in range(info.arity)]
    call = f"Value(0.5).{name}({', '.join(arguments[1:])})" if is_method else f"flatgrad.{name}({', '.join(arguments)})"
    doc += ["Examples", "--------", ">>> import flatgrad", ">>> from flatgrad import Value",
            f">>> z = {call}", ">>> z._op, len(z._prev)",
            f"('{info.symbol.decode()}', {info.parents})", ""]
    return "\n".join(doc)


cdef PyMethodDef *new_definition(const char *name, bytes doc, PyCFunction function, int flags):
    cdef PyMethodDef *definition = <PyMethodDef *>PyMem_Calloc(1, sizeof(PyMethodDef))
    if definition == NULL:
        raise MemoryError()
    kept_alive.append(doc)
    definition.ml_name = name
    definition.ml_meth = function
    definition.ml_flags = flags
    definition.ml_doc = doc
    return definition


cdef PyMethodDef *row_definition(int op, bytes name, PyCFunction function, int flags, bint is_method) except NULL:
    kept_alive.append(name)
    return new_definition(name, row_doc(&fg_op_table[op], name.decode(), is_method).encode(), function, flags)


cdef object row_method(int op, bytes name, type cls):
    """Row `op` as a method of that name."""
    flags = METH_NOARGS if fg_op_table[op].arity == 1 else METH_FASTCALL | METH_KEYWORDS
    method = PyDescr_NewMethod(<PyTypeObject *>cls, row_definition(op, name, fg_methods[op], flags, True))
    setattr(cls, name.decode(), method)
    return method


cdef bytes UFUNC_DOC = b"""__array_ufunc__($self, ufunc, method, /, *inputs, **kwargs)
--

What NumPy's functions mean of Values: what they mean of any object in an array.

Operators of NumPy's numbers and arrays are Value's own operators, and ``np.exp(v)`` calls ``v.exp()``.

Parameters
----------
ufunc : np.ufunc
method : str
    '__call__', or the name of another of its methods.
*inputs, **kwargs
    The arguments that NumPy was given.

Returns
-------
Value, or ndarray of Values
    NotImplemented if there is a Tensor among the arguments, whose own method answers.

Examples
--------
>>> import numpy as np
>>> from flatgrad import Value
>>> v, a = Value(2.0), np.array([Value(1.0), Value(3.0)])
>>> np.multiply(a, v)
array([Value(data=2.0, grad=0.0), Value(data=6.0, grad=0.0)], dtype=object)
>>> a -= a[0]
>>> [float(x) for x in a], np.exp(v)._op
([0.0, 2.0], 'exp')
"""


cdef int note_method(int op, str name, object method) except -1:
    """Row `op` is this method of Value: rule_is_ours() asks whether it is still there."""
    name = sys.intern(name)
    kept_alive.extend((method, name))
    our_methods[op], our_method_names[op] = <PyObject *>method, <PyObject *>name
    return 0


cdef int publish_operations() except -1:
    """Every public row of ops.def becomes a function, and a method if its first operand is enough.

    And a method by another name that NumPy has for it: for `np.arctan2(v, w)` of objects it calls ``v.arctan2(w)``.
    """
    cdef const fg_op_info *info
    cdef int op
    cdef bint has_default
    for op in rows_in_order():
        info = &fg_op_table[op]
        if not fg_op_is_public(op):
            continue
        name, has_default = <bytes>info.name, not isnan(info.second)
        globals()[name.decode()] = PyCFunction_NewEx(
            row_definition(op, name, fg_methods[op], METH_FASTCALL | METH_KEYWORDS, False) if has_default
            else row_definition(op, name, fg_functions[op], METH_FASTCALL, False), NULL, __name__)
        __all__.append(name.decode())
        if info.arity == 1 or has_default:
            note_method(op, name.decode(), row_method(op, name, Value))
            row_method(op, name, Tensor)
        elif info.arity == 2:
            for other in set((<bytes>info.ufuncs).split()) - {name}:
                row_method(op, other, Value)
    return 0


publish_operations()
setattr(Value, "__array_ufunc__", PyDescr_NewMethod(<PyTypeObject *>Value, new_definition(
    "__array_ufunc__", UFUNC_DOC, fg_array_ufunc_method, METH_FASTCALL | METH_KEYWORDS)))
setattr(Value, "label", _Attribute("label", ""))


# ---- what users see of the classes ----
#
# Their home is `flatgrad`: there the API pages have them, Sphinx links to them and doctest finds them; pickles name it,
# and need no more than the package. `flatgrad.engine.Value` is the same class. Messages of Python call it 'Value', as
# they do a class written in Python.

cdef int introduce(object cls, const char *name, str signature) except -1:
    """Give a class its home, and `inspect.signature` what it asks for."""
    cdef PyTypeObject *tp = <PyTypeObject *>cls
    doc = cls.__doc__
    if doc.startswith(f"{name.decode()}("):   # Cython's line, in which keywords stand at the wrong place
        doc = doc.partition("\n\n")[2] if "\n\n" in doc[:doc.index("\n") + 2] else doc.partition("\n")[2]
    tp.tp_name = name
    text = f"{name.decode()}({signature})\n--\n\n{doc}".encode()
    kept_alive.append(text)
    tp.tp_doc = text
    cls.__doc__ = doc
    cls.__module__ = "flatgrad"
    for member in vars(cls).values():
        if getattr(member, "__module__", None) == __name__ and callable(member):
            member.__module__ = "flatgrad"   # doctest looks for a class's methods in its home
    for operator_, sign in [("add", "+"), ("sub", "-"), ("mul", "*"), ("truediv", "/"), ("matmul", "@")]:
        method = vars(cls).get(f"__{operator_}__")
        if type(method).__name__ == "method_descriptor" and method.__doc__ is None:
            text = f"__{operator_}__($self, value, /)\n--\n\nReturn self{sign}value.".encode()
            kept_alive.append(text)
            (<PyMethodDescrObject *>method).d_method.ml_doc = text
    return 0


introduce(Value, "Value", "data, _children=(), _op='', label=None, *, children=None, local_grads=None")
introduce(Tensor, "Tensor", "data, requires_grad=True")
