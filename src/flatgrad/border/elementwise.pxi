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
        try:
            if not to_double(other, &number):
                return map_tensors(op, 0, (left, right), ()) if has_array(other) else NotImplemented
        except ValueError as error:
            raise ValueError(f"operand of {fg_op_table[op].symbol.decode()}: {error}") from None
        if op == FG_POW and other is right:
            if (fabs(number) < 1 << 31
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


cdef object apply_pair(int op, object x, object y):
    """A row with two operands of Values, Tensors and numbers."""
    cdef PyObject *args[2]
    args[0], args[1] = <PyObject *>x, <PyObject *>y
    return apply_function(op, args, 2)


def leaky_relu(x, negative_slope=0.01):
    """x if x > 0, else negative_slope * x.

    Parameters
    ----------
    x : Value, Tensor or real number
    negative_slope : Value, Tensor or real number, optional

    Returns
    -------
    Value, or Tensor if an operand is one

    Notes
    -----
    The derivative by `x` at 0 is `negative_slope`, as in PyTorch.

    Examples
    --------
    >>> import flatgrad
    >>> flatgrad.leaky_relu(-2.0).data
    -0.02
    """
    return apply_pair(FG_LEAKY_RELU, x, negative_slope)


def elu(x, alpha=1.0):
    """x if x > 0, else alpha * (exp(x) - 1).

    Parameters
    ----------
    x : Value, Tensor or real number
    alpha : Value, Tensor or real number, optional

    Returns
    -------
    Value, or Tensor if an operand is one

    Notes
    -----
    The derivative by `x` at 0 is `alpha`, as in PyTorch.

    Examples
    --------
    >>> import flatgrad
    >>> flatgrad.elu(-1000.0).data
    -1.0
    """
    return apply_pair(FG_ELU, x, alpha)


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

# What an activation is called, and its row.
cdef dict ACTIVATIONS = {"linear": FG_LEAF, "relu": FG_RELU, "leaky_relu": FG_LEAKY_RELU, "elu": FG_ELU,
                         "gelu": FG_GELU, "gelu_tanh": FG_GELU_TANH, "silu": FG_SILU, "softplus": FG_SOFTPLUS,
                         "tanh": FG_TANH, "sigmoid": FG_SIGMOID}


cdef int activation_of(str name, object activation) except -1:
    """The opcode, FG_LEAF for none."""
    if activation is None:
        return FG_LEAF
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        one_of(name, activation, ACTIVATIONS)
    return ACTIVATIONS[activation]


cdef inline bint is_fused(int activation) noexcept:
    """Whether the activation is part of a layer's instruction: its derivative follows from the result."""
    return (activation == FG_LEAF or activation == FG_RELU or activation == FG_TANH
            or activation == FG_SIGMOID)


cdef inline double default_of(int activation) noexcept:
    """The second operand of the activations that have two."""
    return 0.01 if activation == FG_LEAKY_RELU else 1.0


cdef object activated(int activation, object x):
    """An activation of a Value, of each of a list, or of a Tensor."""
    if isinstance(x, list):
        return [activated(activation, item) for item in x]
    if activation == FG_LEAF:
        return x
    if activation < FG_UNARY_END:
        return apply_method(activation, <PyObject *>x)
    return apply_pair(activation, x, default_of(activation))
