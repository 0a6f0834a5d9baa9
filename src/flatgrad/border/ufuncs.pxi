# ufuncs.pxi: NumPy's ufuncs with Values: the operators themselves, or NumPy's own loop over objects.
#
# NumPy is asked for nothing before it has been imported by somebody else. Tensors answer NumPy in arrays.pxi.
#
# Uses handles, messages, numbers, python.

cdef extern from *:
    """
    /* NumPy's ufuncs that are operators, in the order of `operator_ufuncs`, and its scalars; NULL until it has asked
     * for one. */
    enum { FG_UFUNC_ADD, FG_UFUNC_SUB, FG_UFUNC_MUL, FG_UFUNC_DIV, FG_UFUNC_POW, FG_UFUNC_LT, FG_UFUNC_LE,
           FG_UFUNC_GT, FG_UFUNC_GE, FG_UFUNCS };
    static PyObject *fg_ufuncs[FG_UFUNCS];
    static PyTypeObject *fg_np_generic, *fg_np_array;
    typedef PyObject *(*fg_ufunc_function)(PyObject *self, PyObject **args, Py_ssize_t count, PyObject *names);
    static fg_ufunc_function fg_ufunc_hook;

    /* Value.__array_ufunc__(ufunc, method, *inputs, **kwargs). Here NumPy leaves `np.float64(2) * v` to us: it takes
     * the operator itself, by the slot that Python would call had NumPy's scalar declined. */
    static PyObject *fg_array_ufunc(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
    {
        if (count == 4 && names == NULL && fg_np_generic != NULL && PyUnicode_Check(args[1])
            && PyUnicode_CompareWithASCIIString(args[1], "__call__") == 0) { /* NumPy makes it anew each time */
            PyObject *left = args[2], *right = args[3], *other = left == self ? right : left, *z = NULL;
            const PyTypeObject *type = Py_TYPE(self);
            static const int swapped[] = {Py_GT, Py_GE, Py_LT, Py_LE}, straight[] = {Py_LT, Py_LE, Py_GT, Py_GE};
            if (PyObject_TypeCheck(other, fg_np_generic)) {
                if (args[0] == fg_ufuncs[FG_UFUNC_MUL])
                    z = type->tp_as_number->nb_multiply(left, right);
                else if (args[0] == fg_ufuncs[FG_UFUNC_ADD])
                    z = type->tp_as_number->nb_add(left, right);
                else if (args[0] == fg_ufuncs[FG_UFUNC_SUB])
                    z = type->tp_as_number->nb_subtract(left, right);
                else if (args[0] == fg_ufuncs[FG_UFUNC_DIV])
                    z = type->tp_as_number->nb_true_divide(left, right);
                else if (args[0] == fg_ufuncs[FG_UFUNC_POW])
                    z = type->tp_as_number->nb_power(left, right, Py_None);
                else
                    goto compare;
                if (z != Py_NotImplemented)
                    return z;
                Py_DECREF(z);
            } else if (PyObject_TypeCheck(other, fg_np_array)) {
            compare:
                for (int k = 0; k < 4; k++)
                    if (args[0] == fg_ufuncs[FG_UFUNC_LT + k]) {
                        z = type->tp_richcompare(self, other, left == self ? straight[k] : swapped[k]);
                        if (z != Py_NotImplemented)
                            return z;
                        Py_DECREF(z);
                    }
            }
        }
        return fg_ufunc_hook(self, (PyObject **)args, count, names);
    }
    static PyCFunction const fg_array_ufunc_method = (PyCFunction)(void (*)(void))fg_array_ufunc;
    """
    int FG_UFUNCS
    PyObject *fg_ufuncs[]
    PyTypeObject *fg_np_generic
    PyTypeObject *fg_np_array
    ctypedef object (*fg_ufunc_function)(PyObject *, PyObject **, Py_ssize_t, PyObject *)
    fg_ufunc_function fg_ufunc_hook
    const PyCFunction fg_array_ufunc_method


cdef list operator_ufuncs = ["add", "subtract", "multiply", "true_divide", "power", "less", "less_equal", "greater",
                             "greater_equal"]


cdef int find_ufuncs() except -1:
    """Tell fg_array_ufunc what NumPy's are: now that it asks, it is there."""
    global fg_np_generic, fg_np_array
    cdef int k
    if fg_np_generic != NULL:
        return 0
    found = [getattr(np, name) for name in operator_ufuncs]
    kept_alive.append((found, np_array, np_generic))
    for k in range(FG_UFUNCS):
        fg_ufuncs[k] = <PyObject *>found[k]
    fg_np_array = <PyTypeObject *>np_array
    fg_np_generic = <PyTypeObject *>np_generic   # last: it says that the others are there
    return 0


cdef int refuse_operand(str name, object x) except -1:
    """An error if NumPy would make a number of a time: it gives those in nanoseconds as ints. And if x is an array of
    dimension 0 with an array in it: NumPy does without the count of its own that ends the recursion into it. And for a
    derivative of lost.py, whose elements would be plain floats."""
    if is_lost(x) or is_other_array(x):
        refuse_lost(f"operand of {name}", x)
    if isinstance(x, (np_array, np_generic)) and x.dtype.kind in "mM":
        raise ArgumentTypeError(f"operand of {name}: expected numbers and Values, got times: {describe(x)}")
    if isinstance(x, np_array) and x.ndim == 0 and isinstance(x[()], np_array):
        raise ArgumentTypeError(f"operand of {name}: expected an array of numbers and Values, got one of dimension 0 "
                                "with an array in it")
    return 0


cdef int enter_array(str name) except -1:
    """Count an operation on the elements of an array, which may contain itself; leave_array() when it is over."""
    global fg_arrays
    if fg_arrays == 32:   # long before NumPy's frames fill a small stack; Python's own count may let them fill 8 MiB
        raise RecursionError(f"operand of {name}: expected an array of numbers and Values, got one that is in itself, "
                             "or arrays in one another more than 32 deep")
    fg_arrays += 1
    return 0


cdef void leave_array() noexcept:
    global fg_arrays
    fg_arrays -= 1


cdef object elementwise(int op, object left, object right):
    """An ndarray on one side: an object array of Values, each made by the operator itself."""
    ufunc = getattr(np, fg_op_table[op].ufuncs.decode())
    for array in (left, right):
        refuse_operand(fg_op_table[op].symbol.decode(), array)
    enter_array(fg_op_table[op].symbol.decode())
    try:
        return ufunc(np.asarray(left, dtype=object), np.asarray(right, dtype=object))
    finally:
        leave_array()


cdef object array_ufunc(PyObject *self, PyObject **args, Py_ssize_t count, PyObject *names):
    """What fg_array_ufunc leaves: NumPy's own loop over objects, in which a Value is an array of dimension 0. It asks
    each Value for its operator, or for the method of the ufunc's name."""
    cdef Py_ssize_t k
    if count < 2:
        raise ArgumentTypeError(f"__array_ufunc__(): expected a ufunc, the name of its method and inputs, got {count} "
                                "arguments")
    ufunc, method = <object>args[0], <object>args[1]
    if not numpy_is_there() or not isinstance(ufunc, np.ufunc) or not isinstance(method, str):
        raise ArgumentTypeError(f"__array_ufunc__(): expected a ufunc and the name of its method, got "
                                f"{describe(ufunc)} and {describe(method)}")
    find_ufuncs()
    keywords = keywords_of(args, count, names)
    out = keywords.get("out", ())
    inputs = [<object>args[k] for k in range(2, count)]
    name = f"np.{ufunc.__name__}" if method == "__call__" else f"np.{ufunc.__name__}.{method}"
    for x in (*inputs, *(out if isinstance(out, tuple) else (out,))):
        if type(x) is Tensor:
            return NotImplemented   # its own method knows what this means
    for x in out if isinstance(out, tuple) else (out,):
        if isinstance(x, Value):
            raise ArgumentTypeError(f"{name}: out: expected an array, got a Value; assign its data")
    if method == "at" and inputs and isinstance(inputs[0], Value):
        raise ArgumentTypeError(f"{name}: expected an array to change, got a Value")
    for k, x in enumerate(inputs):
        refuse_operand(name, x)
        if isinstance(x, Value):
            inputs[k] = np.empty((), object)
            inputs[k][()] = x
    enter_array(name)
    try:
        return getattr(ufunc, method)(*inputs, **keywords)
    finally:
        leave_array()


fg_ufunc_hook = array_ufunc
