# value_type.pxi: Value's type where Cython's own would be slow or wrong, and whether users have changed what it does.
#
# Uses handles, numbers, python, tape.

# ---- the type, finished by hand ----
#
# Cython's own tp_dealloc keeps a dying object alive around user code and gives its memory back; ours
# needs neither, and that is a fifth of the cost of an operation.

if (Value.__basicsize__ != sizeof(fg_handle) or Value.__weakrefoffset__ <= 0
        or <size_t>Value.__weakrefoffset__ != sizeof(fg_handle) - sizeof(PyObject *)):
    raise SystemError("flatgrad: a Value is not laid out as fg_handle says")


cdef object value_vectorcall(PyObject *tp, PyObject **args, size_t flags, PyObject *names):
    """Value(...): one number needs no argument tuple; all else goes the ordinary way."""
    cdef Py_ssize_t count = PyVectorcall_NARGS(flags), k
    cdef double number = 0.0
    cdef fg_handle *handle
    if (count == 1 and names == NULL and tp == <PyObject *>Value
            and (<PyTypeObject *>tp).tp_init == our_init
            and (<PyTypeObject *>tp).tp_new == our_new):
        number = to_data("data", <object>args[0])
        reserve_few(1)
        handle = new_handle()
        return FG_GIVE(fg_give(&tape, handle, fg_tape_push_leaf(&tape, number)))
    positional = tuple([<object>args[k] for k in range(count)])
    return PyType_Type.tp_call(tp, positional, keywords_of(args, count, names))


# What Value has been given here; users may put methods of their own in their place.
cdef void *our_init = (<PyTypeObject *>Value).tp_init
cdef void *our_new = (<PyTypeObject *>Value).tp_new

(<PyTypeObject *>Value).tp_dealloc = <destructor>value_dealloc
(<PyTypeObject *>Value).tp_vectorcall = <vectorcallfunc>value_vectorcall


# ---- whether operators and methods are still ours ----

cdef void *our_add = (<PyTypeObject *>Value).tp_as_number.nb_add
cdef void *our_multiply = (<PyTypeObject *>Value).tp_as_number.nb_multiply
cdef list our_operators = [(sys.intern(name), Value.__dict__[name])
                           for name in ("__add__", "__radd__", "__mul__", "__rmul__")]


cdef bint operators_are_ours() noexcept:
    """Whether nobody has put other operators for sums and products on the class."""
    cdef PyTypeObject *value = <PyTypeObject *>Value
    if value.tp_as_number.nb_add == our_add and value.tp_as_number.nb_multiply == our_multiply:
        return True
    # Or somebody had, and has put ours back: they are then reached by another way.
    for operator_ in our_operators:
        if (_PyType_Lookup(value, <PyObject *>(<tuple>operator_)[0])
                != <PyObject *>(<tuple>operator_)[1]):
            return False
    return True


cdef PyObject *our_methods[128]        # by opcode: Value.relu and the like, as publish_operations() made them
cdef PyObject *our_method_names[128]


cdef bint rule_is_ours(int activation) noexcept:
    """Whether the scalar graph of a neuron would be made by our operators, and not by others that somebody
    has put on the class."""
    return operators_are_ours() and (activation == FG_LEAF or _PyType_Lookup(
        <PyTypeObject *>Value, our_method_names[activation]) == our_methods[activation])
