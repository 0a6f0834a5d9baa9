# operators.pxi: One scalar node: the hot path.
#
# Each function converts, makes room, then reads ids, computes, and appends when nothing can fail any more. `binary`
# is inlined into each operator of Value, with the operation folded in: all that is seldom needed stands apart. What
# fg_is_quick() allows is done by fg_append() in a few stores; it is all that an operator of Values mostly does.
#
# Uses handles, messages, numbers, tape, ufuncs.

cdef extern from *:
    """
    /* What is inlined into each operator, with the operation folded in: gcc 16 would rather have one function of them,
     * which finds out the operation: 314 instructions for an operation of a chain instead of 291. */
    static FG_ALWAYS PyObject *fg_binary_values(int op, PyObject *left, PyObject *right);
    static FG_ALWAYS PyObject *fg_value_number(int op, PyObject *left, double y);
    static FG_ALWAYS PyObject *fg_number_value(int op, double x, PyObject *right);
    static FG_ALWAYS PyObject *fg_unary(int op, PyObject *x, int32_t k);
    static FG_ALWAYS PyObject *fg_binary(int op, PyObject *left, PyObject *right);
    """


cdef object binary_failed(int status, int op, double x, double y):
    """The exception for x op y. Apart, for the operators below are to be inlined."""
    raise_operation(status, op, (x, y))


cdef inline object binary_values "fg_binary_values"(int op, object left, object right):
    """left op right, both Values."""
    cdef double z = 0.0
    cdef fg_id a, b
    if fg_is_quick(&tape, 1):
        a = (<Value>left).id
        b = (<Value>right).id
        if FG_LIKELY(fg_op_binary_known(op, tape.data[a], tape.data[b], &z) >= 0):
            return FG_GIVE(fg_append(&tape, op, a, b, z))
    return binary_values_apart(op, left, right)


cdef object binary_values_apart(int op, object left, object right):
    """The same with what may have to be done before, and the exceptions. Apart, as all that follows: a call in their
    midst would cost those operators that make none."""
    cdef double z = 0.0
    cdef int status
    cdef fg_id a, b
    cdef fg_handle *handle
    reserve_few(1)
    a = (<Value>left).id
    b = (<Value>right).id
    status = fg_op_binary(op, tape.data[a], tape.data[b], &z)
    if status < 0:
        return binary_failed(status, op, tape.data[a], tape.data[b])
    handle = new_handle()
    return FG_GIVE(fg_give(&tape, handle, fg_tape_push(&tape, op, a, b, z)))


cdef inline object value_number "fg_value_number"(int op, object left, double y):
    """left op y: a constant leaf and the operation."""
    cdef double z = 0.0
    cdef fg_id a
    if fg_is_quick(&tape, 2):
        a = (<Value>left).id
        if FG_LIKELY(fg_op_binary_known(op, tape.data[a], y, &z) >= 0):
            return FG_GIVE(fg_append(&tape, op, a, fg_tape_push_leaf(&tape, y), z))
    return value_number_apart(op, left, y)


cdef object value_number_apart(int op, object left, double y):
    """The same where it is not quick."""
    cdef double z = 0.0
    cdef int status
    cdef fg_id a, b
    cdef fg_handle *handle
    reserve_few(2)
    a = (<Value>left).id
    status = fg_op_binary(op, tape.data[a], y, &z)
    if status < 0:
        return binary_failed(status, op, tape.data[a], y)
    handle = new_handle()
    b = fg_tape_push_leaf(&tape, y)
    return FG_GIVE(fg_give(&tape, handle, fg_tape_push(&tape, op, a, b, z)))


cdef inline object number_value "fg_number_value"(int op, double x, object right):
    """x op right: a constant leaf and the operation."""
    cdef double z = 0.0
    cdef fg_id b
    if fg_is_quick(&tape, 2):
        b = (<Value>right).id
        if FG_LIKELY(fg_op_binary_known(op, x, tape.data[b], &z) >= 0):
            return FG_GIVE(fg_append(&tape, op, fg_tape_push_leaf(&tape, x), b, z))
    return number_value_apart(op, x, right)


cdef object number_value_apart(int op, double x, object right):
    """The same where it is not quick."""
    cdef double z = 0.0
    cdef int status
    cdef fg_id a, b
    cdef fg_handle *handle
    reserve_few(2)
    b = (<Value>right).id
    status = fg_op_binary(op, x, tape.data[b], &z)
    if status < 0:
        return binary_failed(status, op, x, tape.data[b])
    handle = new_handle()
    a = fg_tape_push_leaf(&tape, x)
    return FG_GIVE(fg_give(&tape, handle, fg_tape_push(&tape, op, a, b, z)))


cdef object unary_failed(int status, int op, double x, int32_t k):
    """The exception for op of x. Apart, so that `unary` is inlined where op is known."""
    operands = (x,)
    raise_operation(status, op, operands + (k,) if op == FG_POWI else operands)


cdef inline object unary "fg_unary"(int op, object x, int32_t k):
    """op of a Value, with the row's immediate k (0 if it has none)."""
    cdef double z = 0.0
    cdef fg_id a
    if fg_is_quick(&tape, 1):
        a = (<Value>x).id
        if FG_LIKELY(fg_op_unary_known(op, tape.data[a], k, &z) >= 0):
            return FG_GIVE(fg_append(&tape, op, a, <fg_id>k, z))
    return unary_apart(op, x, k)


cdef object unary_apart(int op, object x, int32_t k):
    """The same where it is not quick."""
    cdef double z = 0.0
    cdef int status
    cdef fg_id a
    cdef fg_handle *handle
    reserve_few(1)
    a = (<Value>x).id
    status = fg_op_unary(op, tape.data[a], k, &z)
    if status < 0:
        return unary_failed(status, op, tape.data[a], k)
    handle = new_handle()
    return FG_GIVE(fg_give(&tape, handle, fg_tape_push(&tape, op, a, <fg_id>k, z)))


cdef object binary_slow(int op, object left, object right):
    """Every other pair of operands: subclasses, ints, NumPy scalars and arrays, the unknown."""
    cdef double number = 0.0
    cdef bint left_is_value = isinstance(left, Value)
    if left_is_value and isinstance(right, Value):
        return binary_values_apart(op, left, right)
    other = right if left_is_value else left
    if is_lost(other) or is_other_array(other):
        refuse_lost(f"operand of {fg_op_table[op].symbol.decode()}", other)
    try:
        known = to_double(other, &number)
    except ValueError as error:
        raise ValueError(f"operand of {fg_op_table[op].symbol.decode()}: {error}") from None
    if not known:
        if is_ndarray(other):
            return elementwise(op, left, right)
        return NotImplemented
    if not left_is_value:
        return number_value_apart(op, number, right)
    if op != FG_POW:
        return value_number_apart(op, left, number)
    if (is_int32(number)
            and (PyLong_Check(other) or (numpy_is_there() and isinstance(other, np_integer)))):
        return unary_apart(FG_POWI, left, <int32_t>number)
    return value_number_apart(FG_POWC, left, number)


cdef inline object binary "fg_binary"(int op, object left, object right):
    """The common pairs of operands, here so that each operator has its own copy with op folded in."""
    cdef double number = 0.0
    if type(left) is Value:
        if type(right) is Value:
            return binary_values(op, left, right)
        if op != FG_POW:
            if type(right) is float:
                return value_number(op, left, PyFloat_AS_DOUBLE(right))
            if type(right) is int and small_int(right, &number):
                return value_number(op, left, number)
        elif type(right) is int and small_int(right, &number) and is_int32(number):
            return unary(FG_POWI, left, <int32_t>number)
    elif type(right) is Value:
        if type(left) is float:
            return number_value(op, PyFloat_AS_DOUBLE(left), right)
        if type(left) is int and small_int(left, &number):
            return number_value(op, number, right)
    return binary_slow(op, left, right)
