# elementwise.pxi: Operations by element, on Values, Tensors and numbers: the rows of ops.def as functions and
# methods.
#
# One result is a node, several are an instruction. Their names and docstrings are made in publish.pxi.
#
# Uses handles, instructions, messages, numbers, operands, operators, python, tape.

cdef object map_tensors(int op, int32_t k, tuple xs, tuple names):
    """A row of ops.def on every element, as one instruction."""
    cdef Operand[3] operands
    cdef fg_id rows = 0, cols = 0, v, count = <fg_id>len(xs)
    cdef int ndim = 0
    cdef list keep = []
    cdef str symbol = fg_op_table[op].symbol.decode()
    for v in range(count):
        take(names[v] if names else f"operand of {symbol}", xs[v], &operands[v], keep)
    check_shapes(symbol, operands, count, &rows, &cols, &ndim)
    return instruction_(FG_MAP, <fg_id>op, k, operands, count, rows, cols,
                        GIVE_TENSOR if ndim else GIVE_VALUE, ndim)


cdef object tensor_binary(int op, object left, object right):
    """left op right where one is a Tensor."""
    cdef double number = 0.0
    other = right if isinstance(left, Tensor) else left
    if not (isinstance(other, (Tensor, Value, list, tuple))
            or is_ndarray(other)):
        refuse_lost(f"operand of {fg_op_table[op].symbol.decode()}", other)
        try:
            if not to_double(other, &number):
                return map_tensors(op, 0, (left, right), ()) if has_array(other) else NotImplemented
        except ValueError as error:
            raise ValueError(f"operand of {fg_op_table[op].symbol.decode()}: {error}") from None
        if op == FG_POW and other is right:
            if (is_int32(number)
                    and (PyLong_Check(right) or (numpy_is_there() and isinstance(right, np_integer)))):
                return map_tensors(FG_POWI, <int32_t>number, (left,), ())
            op = FG_POWC
    return map_tensors(op, 0, (left, right), ())


cdef object apply_method(int op, PyObject *self):
    if is_value(self):
        return unary(op, <object>self, 0)
    return map_tensors(op, 0, (<object>self,), ())


cdef object apply_function(int op, PyObject **args, Py_ssize_t count):
    """flatgrad.<op>(...) of Values and numbers."""
    cdef const fg_op_info *info = &fg_op_table[op]
    cdef double[3] x = [0.0, 0.0, 0.0]
    cdef double z = 0.0
    cdef bint[3] is_value
    cdef fg_id[3] ids = [0, 0, 0]
    cdef int k, status
    cdef fg_handle *handle
    if count != info.arity:
        raise TypeError(f"{info.name.decode()}() takes {info.arity} operand"
                        f"{'s' if info.arity > 1 else ''} ({info.operands.decode()}), got {count}")
    for k in range(info.arity):
        if Py_TYPE(args[k]) == <PyTypeObject *>Tensor:
            names = info.operands.decode().split(", ")
            return map_tensors(op, 0, tuple([<object>args[k] for k in range(info.arity)]),
                               tuple([f"{info.name.decode()}(): {name}" for name in names]))
    for k in range(info.arity):
        is_value[k] = isinstance(<object>args[k], Value)
        if not is_value[k]:
            if is_lost(<object>args[k]):
                raise_lost(f"{info.name.decode()}()", repr(<object>args[k]))
            x[k] = to_data(f"{info.name.decode()}(): {info.operands.decode().split(', ')[k]}",
                           <object>args[k])
    reserve(1 + info.arity, info.arity)
    for k in range(info.arity):
        if is_value[k]:
            ids[k] = (<Value>args[k]).id
            x[k] = tape.data[ids[k]]
    if info.arity == 1:
        status = fg_op_unary(op, x[0], 0, &z)
    elif info.arity == 2:
        status = fg_op_binary(op, x[0], x[1], &z)
    else:
        status = fg_op_ternary(op, x[0], x[1], x[2], &z)
    if status < 0:
        raise_operation(status, op, tuple([x[k] for k in range(info.arity)]))
    handle = new_handle()
    for k in range(info.arity):
        if not is_value[k]:
            ids[k] = fg_tape_push_leaf(&tape, x[k])
    if info.arity == 3:
        return FG_GIVE(fg_give(&tape, handle, fg_tape_push_pooled(&tape, op, ids, 3, NULL, z)))
    return FG_GIVE(fg_give(&tape, handle, fg_tape_push(&tape, op, ids[0], ids[1], z)))


cdef object apply_call(int op, PyObject *self, PyObject **args, Py_ssize_t count, PyObject *names):
    """A row with two operands as a method, `self` the first of them, or if that is NULL as a function; the second may
    be left out if it has a default. Both may be given by keyword."""
    cdef const fg_op_info *info = &fg_op_table[op]
    cdef PyObject *x[2]
    cdef Py_ssize_t k, n = count + (self != NULL)
    cdef object second = None
    if names == NULL and (n == 2 or n == 1 and not isnan(info.second)):
        second = info.second
        x[0], x[1] = self if self != NULL else args[0], args[count - 1] if n == 2 else <PyObject *>second
        return apply_function(op, x, 2)
    given = [<object>args[k] for k in range(count)]
    if self != NULL:
        given.insert(0, <object>self)
    keywords = keywords_of(args, count, names)
    for name in info.operands.decode().split(", ")[len(given):]:
        if name in keywords:
            given.append(keywords.pop(name))
        elif len(given) == 1 and not isnan(info.second):
            given.append(info.second)
    if keywords or len(given) != 2:
        raise TypeError(f"{info.name.decode()}() takes {'2' if isnan(info.second) else '1 or 2'} operands "
                        f"({info.operands.decode()}), got {', '.join(keywords) or len(given)}")
    x[0], x[1] = <PyObject *>given[0], <PyObject *>given[1]
    return apply_function(op, x, 2)


def square(x):
    """x ** 2.

    Parameters
    ----------
    x : Value, Tensor, real number, array or list

    Returns
    -------
    Value, or Tensor if `x` is a Tensor, an array or a list

    Raises
    ------
    TypeError, ValueError
        If `x` is not as described.
    OverflowError
        If the result is too large.

    Examples
    --------
    >>> import flatgrad
    >>> flatgrad.square(flatgrad.Tensor([1.0, -3.0])).tolist()
    [1.0, 9.0]
    """
    if isinstance(x, Value):
        return unary(FG_POWI, x, 2)
    return map_tensors(FG_POWI, 2, (x,), ("square(): x",))


# ---- activations ----

cdef list rows_in_order():
    """The opcodes of the rows as they stand in ops.def."""
    cdef Py_ssize_t k = 0
    found = []
    while fg_op_rows[k] != FG_LEAF:
        found.append(fg_op_rows[k])
        k += 1
    return found


# What an activation is called, and its row.
cdef dict ACTIVATIONS = {fg_op_table[op].name.decode(): op for op in rows_in_order()
                         if fg_op_table[op].kind == FG_ACTIVATION}
_activations = tuple(ACTIVATIONS)
ACTIVATIONS = {"linear": FG_LEAF, **ACTIVATIONS}


cdef int activation_of(str name, object activation) except -1:
    """The opcode, FG_LEAF for none."""
    if activation is None:
        return FG_LEAF
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        one_of(name, activation, ACTIVATIONS)
    return ACTIVATIONS[activation]


cdef object activated(int activation, object x):
    """An activation of a Value, of each of a list, or of a Tensor."""
    if isinstance(x, list):
        return [activated(activation, item) for item in x]
    if activation == FG_LEAF:
        return x
    if fg_op_table[activation].arity == 1:
        return apply_method(activation, <PyObject *>x)
    return apply_call(activation, <PyObject *>x, NULL, 0, NULL)
