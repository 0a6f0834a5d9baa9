# numbers.pxi: Python's numbers, and NumPy's, as doubles; and what users iterate over, as lists.
#
# Conversion may run Python code (`__float__`, `__index__`, `__array__`, `__iter__`): it comes first, before there is
# room and before anything is read from the tape. Messages name the argument. Tables and their shapes are the matter
# of operands.pxi.
#
# Uses messages, python, tape.

cdef object np = None   # NumPy's types, once it has been imported: before that nobody has any
cdef object np_array, np_generic, np_integer, np_timedelta64, np_floating, np_bool


cdef bint numpy_is_there():
    global np, np_array, np_generic, np_integer, np_timedelta64, np_floating, np_bool
    if np is None:
        np = sys.modules.get("numpy")
        if np is None:
            return False
        np_array, np_generic, np_bool = np.ndarray, np.generic, np.bool_
        np_integer, np_timedelta64, np_floating = np.integer, np.timedelta64, np.floating
    return True


cdef bint is_ndarray(object x):
    return numpy_is_there() and isinstance(x, np_array)


cdef extern from *:
    """
    /* Whether an int has one digit at most, and its number: without a call, for operators do this again and again. */
    #if PY_VERSION_HEX >= 0x030C0000
    #define fg_is_digit(x) PyUnstable_Long_IsCompact((const PyLongObject *)(x))
    #define fg_digit(x) ((double)PyUnstable_Long_CompactValue((const PyLongObject *)(x)))
    #else
    #if PY_VERSION_HEX < 0x030B0000
    #include <longintrepr.h>
    #endif
    #define fg_is_digit(x) (Py_SIZE(x) >= -1 && Py_SIZE(x) <= 1)
    #define fg_digit(x) (Py_SIZE(x) == 0 ? 0.0 : (double)Py_SIZE(x) * ((PyLongObject *)(x))->ob_digit[0])
    #endif
    """
    bint fg_is_digit(object x) noexcept
    double fg_digit(object x) noexcept


cdef inline bint small_int(object x, double *out) noexcept:
    """1 and *out if the int is within 2**53 of 0. Runs no Python code."""
    if FG_LIKELY(fg_is_digit(x)):
        out[0] = fg_digit(x)
        return True
    return longer_int(x, out)


cdef bint longer_int(object x, double *out) noexcept:
    """The same for an int of any length. Apart, for small_int() is inlined into the operators."""
    cdef int overflow
    cdef long long small = PyLong_AsLongLongAndOverflow(x, &overflow)
    out[0] = <double>small
    return overflow == 0 and -(1LL << 53) <= small <= (1LL << 53)


cdef inline bint is_int32(double number) noexcept:
    """Whether an integer is an exponent of FG_POWI. (To compare with 1 << 31, Cython would make two Python objects.)"""
    return -2147483648.0 < number < 2147483648.0


cdef int int_to_double(object x, double *out) except -1:
    """1, or ValueError if float64 does not hold the int exactly."""
    if small_int(x, out):
        return 1
    try:
        out[0] = float(x)
    except OverflowError:
        out[0] = 0.0
    if int(out[0]) != x:
        raise ValueError("expected a number that float64 holds exactly, got the int "
                         + (str(x) if x.bit_length() < 200 else f"of {x.bit_length()} bits")
                         + "; convert it with float() to round it")
    return 1


cdef int to_double(object x, double *out) except -1:
    """1 and *out for a real number: float, int, bool, their subclasses, a NumPy scalar.
    0 for anything else. May run Python code."""
    if PyFloat_Check(x):   # np.float64 as well
        out[0] = PyFloat_AS_DOUBLE(x)
        return 1
    if PyLong_Check(x):    # bool as well
        return int_to_double(x, out)
    if numpy_is_there() and isinstance(x, np_generic):
        if isinstance(x, np_integer) and not isinstance(x, np_timedelta64):   # a subclass
            return int_to_double(int(x), out)
        if isinstance(x, np_floating) or isinstance(x, np_bool):
            out[0] = float(x)
            return 1
    return 0


cdef inline double to_data(str name, object x) except? -1.0:
    """The float64 for the argument `name`; also takes a one-element array. May run Python code."""
    return PyFloat_AS_DOUBLE(x) if type(x) is float else to_data_slow(name, x)


cdef double to_data_slow(str name, object x) except? -1.0:
    cdef double out = 0.0
    try:
        if to_double(x, &out):
            return out
        if (is_ndarray(x) and x.size == 1 and x.dtype.kind in "biuf"
                and to_double(x.reshape(-1)[0], &out)):
            return out
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if isinstance(x, Value):
        raise TypeError(f"{name}: expected a real number, got a Value; use its .data")
    raise TypeError(f"{name}: expected a real number, got {describe(x)}")


cdef inline bint is_float(PyObject *o) noexcept:
    return PyObject_TypeCheck(o, &PyFloat_Type)


# ---- derivatives as numbers, of which lost.py tells ----

cdef object lost_float = None, lost_array = None   # their classes, once there can be some


cdef inline bint is_lost(object x) noexcept:
    return (<PyObject *>Py_TYPE(<PyObject *>x) == <PyObject *>lost_float
            or <PyObject *>Py_TYPE(<PyObject *>x) == <PyObject *>lost_array)


cdef int refuse_lost(str name, object x) except -1:
    """An error if an operand is such a number: what is computed from it would have no gradient through it. And one if
    it is an array of which something is masked: what is behind the mask would be computed with."""
    if is_lost(x):
        raise_lost(name, repr(x))
    if is_other_array(x):
        refuse_masked(name, x)
    return 0


cdef inline bint is_other_array(object x) noexcept:
    """Whether an array is of a subclass of ndarray."""
    return (np is not None and <PyObject *>Py_TYPE(<PyObject *>x) != <PyObject *>np_array
            and PyObject_TypeCheck(<PyObject *>x, <PyTypeObject *>np_array))


cdef int refuse_masked(str name, object x) except -1:
    """DataError if it is a masked array with masked elements. np.asarray ignores the mask."""
    ma = sys.modules.get("numpy.ma")
    if ma is not None and isinstance(x, ma.MaskedArray) and ma.is_masked(x):
        raise DataError(f"{name}: expected numbers, got an array with {ma.count_masked(x)} of them masked; write "
                        "x.filled(number) for one with a number in their place")
    return 0


cdef int raise_lost(str name, str text) except -1:
    raise ArgumentTypeError(
        f"{name}: expected no derivative that is a plain number, got {text if len(text) < 100 else 'an array of it'}: "
        "it comes from a function of Values or Tensors that take a gradient, such as parameters, and a result computed "
        "from it would lose that gradient. Differentiate the whole loss by value_and_grad(loss, parameters=...) or "
        "in a function of flatgrad.compile, or take flatgrad.gradients(..., create_graph=True) in place of the "
        "transform. Write float(g) or np.asarray(g) where a constant is meant")


def _mark_lost(number not None, array not None):
    """For lost.py: its classes of numbers and arrays."""
    global lost_float, lost_array
    lost_float, lost_array = number, array


def _refuse_masked(str name not None, x):
    """For our modules: an error if something in an array is masked."""
    if is_other_array(x):
        refuse_masked(name, x)


def _refuse_lost(str name not None, x):
    """For our modules: an error if an operand of this name is a derivative that lost.py has marked."""
    refuse_lost(name, x)


cdef inline object comparable(object x):
    """What `<` and the like compare data with; NotImplemented if x is no number."""
    if isinstance(x, Value):
        return tape.data[(<Value>x).id]
    if PyFloat_Check(x) or PyLong_Check(x) or is_number(x):
        return x
    return NotImplemented


cdef bint is_number(object x):
    """Whether x is some other number or array of them: Fraction, Decimal, NumPy's."""
    if numpy_is_there() and isinstance(x, (np_generic, np_array)):
        return True
    from numbers import Number
    return isinstance(x, Number)


cdef double learning_rate(object lr) except? -1.0:
    cdef double rate = to_data("lr", lr)
    if not isfinite(rate):
        raise ArgumentError(f"lr: expected a finite number, got {rate}")
    return rate


# ---- several numbers ----

cdef inline object plain_sequence(object x):
    """A list or tuple that has as many items as `len` says: of a subclass, what it gives when iterated over."""
    if type(x) is list or type(x) is tuple:
        return x
    return [item for item in x]   # list(x) would ask it for its length


cdef object one_sample(object x):
    """What can be iterated over as a list."""
    try:
        x = iter(x)
    except TypeError:
        raise ArgumentTypeError("x: expected a list or an array of numbers and Values, got "
                                f"{shortened(x)}") from None
    return list(x)


cdef object np_asarray(object x):
    if np is None:
        import numpy  # noqa: F401
        numpy_is_there()
    return np.asarray(x)


cdef bint has_array(object x):
    """Whether NumPy can make an array of it: a class has the method for its instances."""
    return not isinstance(x, type) and getattr(x, "__array__", None) is not None


cdef Py_ssize_t count_numbers(str name, object items, bint heed=True) except -1:
    """How many numbers there are in Values and Tensors. heed: Ctrl-C, which may run Python code."""
    cdef Py_ssize_t k, count = 0
    for k, item in enumerate(items):
        if heed:
            listen(k)
        if isinstance(item, Value):
            count += 1
        elif type(item) is Tensor and (<Tensor>item).rows > 0:
            count += (<Tensor>item).size
        else:
            raise ArgumentTypeError(f"{name}[{k}]: expected a Value or a Tensor, got {describe(item)}")
    return count
