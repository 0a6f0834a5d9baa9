# products.pxi: Products with a matrix: dot, matvec, linear and @, each one LAYER instruction.
#
# A LAYER's weights are one row for each output. Layers of neurons are the matter of layers.pxi.
#
# Uses contexts, elementwise, instructions, messages, numbers, operands, scalars, views.

cdef int take_layer(str name, object x, object w, object b, Operand *operands, list keep, tuple names) except -1:
    """Look at the operands of a layer; ValueError unless their shapes fit."""
    take(names[0], x, &operands[0], keep)
    take(names[1], w, &operands[1], keep)
    if b is not None:
        take(names[2], b, &operands[2], keep)
    if operands[0].ndim == 0 or operands[1].ndim != 2:
        raise ShapeError(f"{name}: expected {names[0]} of one or two dimensions and {names[1]} of two, got "
                         f"shapes {shape_of(&operands[0])} and {shape_of(&operands[1])}")
    if operands[0].cols != operands[1].cols:
        raise ShapeError(f"{name}: shapes {names[1]} {shape_of(&operands[1])} and {names[0]} "
                         f"{shape_of(&operands[0])} do not fit each other")
    if b is not None and (operands[2].rows != 1 or operands[2].cols != operands[1].rows):
        raise ShapeError(f"{name}: {names[2]}: expected {operands[1].rows} number"
                         f"{'s' if operands[1].rows > 1 else ''}, one for each row of {names[1]}, got shape "
                         f"{shape_of(&operands[2])}")
    if operands[0].rows == 0 or operands[1].rows == 0:
        raise ShapeError(f"{name}: expected at least one row, got shapes {shape_of(&operands[0])} and "
                         f"{shape_of(&operands[1])}")
    return 0


cdef int check_layer(str name, object x, object w, object b) except -1:
    cdef Operand[3] operands
    return take_layer(name, x, w, b, operands, [], ("x", "W", "b"))


cdef object layer_(str name, object x, object w, object b, int activation, tuple names, int give_what):
    """activation(x @ w.T + b): x of one row or several, w of one row for each output."""
    cdef Operand[3] operands
    cdef list keep = []
    cdef fg_id count = 3 if b is not None else 2
    take_layer(name, x, w, b, operands, keep, names)
    out = instruction_(FG_LAYER, <fg_id>activation if fg_op_table[activation].fused else FG_LEAF, 0, operands, count,
                       operands[0].rows, operands[1].rows, give_what, operands[0].ndim)
    return out if fg_op_table[activation].fused else activated(activation, out)


def dot(w, x, b=None):
    """w[0] * x[0] + w[1] * x[1] + ..., plus b, as one instruction.

    Parameters
    ----------
    w, x : list of Value and real number, array_like of shape (n,), or Tensor of shape (n,)
    b : Value or real number, optional

    Returns
    -------
    Value

    Raises
    ------
    TypeError, ValueError
        If `w` and `x` differ in length, or an argument is not as described.

    Notes
    -----
    The products are not added one after the other, so the last bits differ from those of ``+`` and ``*``.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Value
    >>> flatgrad.dot([Value(2.0), Value(3.0)], [10.0, 100.0], Value(1.0)).data
    321.0
    """
    cdef Operand[3] operands
    cdef list keep
    if in_scalar_graph():
        return scalar("dot")(unpacked(w), unpacked(x), b)
    if not (take_plain(x, &operands[0]) and take_plain(w, &operands[1])
            and (b is None or take_plain(b, &operands[2]))):
        keep = []
        take("dot(): x", x, &operands[0], keep)
        take("dot(): w", w, &operands[1], keep)
        if b is not None:
            take("dot(): b", b, &operands[2], keep)
    if (operands[0].ndim != 1 or operands[1].ndim != 1 or operands[0].cols != operands[1].cols
            or (b is not None and elements_of(&operands[2]) != 1)):
        raise ShapeError(f"dot(): expected w and x of one length, and b a scalar, got shapes "
                         f"{shape_of(&operands[1])} and {shape_of(&operands[0])}"
                         + (f", b {shape_of(&operands[2])}" if b is not None else ""))
    return instruction_(FG_LAYER, FG_LEAF, 0, operands, 2 if b is None else 3, 1, 1, GIVE_VALUE, 0)


def matvec(W, x, b=None):
    """W @ x + b for a matrix and a vector, as one instruction.

    Parameters
    ----------
    W : list of rows of Value and real number, array_like or Tensor; shape (n_rows, n)
    x : list of Value and real number, array_like or Tensor; shape (n,)
    b : list, array_like or Tensor, shape (n_rows,), optional

    Returns
    -------
    list of Value; if x is an array, or an operand a Tensor, Tensor of shape (n_rows,)

    Raises
    ------
    TypeError, ValueError
        If the shapes do not fit, or an argument is not as described.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Value
    >>> W = [[Value(1.0), Value(2.0)], [Value(3.0), Value(4.0)]]
    >>> [y.data for y in flatgrad.matvec(W, [10.0, 1.0])]
    [12.0, 34.0]
    """
    x = reusable(x)
    if (not is_flat_list(x) if isinstance(x, (list, tuple))
            else not isinstance(x, type) and getattr(x, "ndim", 1) != 1):
        raise ShapeError(f"matvec(): x: expected one dimension, got {describe(x)}")
    return linear_("matvec()", x, W, b, FG_LEAF)


def linear(x, W, b=None, activation=None):
    """activation(x @ W.T + b), as one instruction: a layer over one sample or a batch.

    Parameters
    ----------
    x : Tensor, array_like or list; shape (n_in,) or (n_samples, n_in)
    W : Tensor, array_like or list of rows; shape (n_out, n_in)
    b : Tensor, array_like or list, shape (n_out,), optional
    activation : {None, 'linear', 'relu', 'leaky_relu', 'elu', 'gelu', 'gelu_tanh', 'silu', 'softplus', \
'tanh', 'sigmoid'}, optional
        relu, tanh and sigmoid are part of the instruction; the others are one of their own.

    Returns
    -------
    Tensor of shape (n_out,) or (n_samples, n_out); of a flat list and no Tensor, a list of Value

    Raises
    ------
    TypeError, ValueError
        If the shapes do not fit, or an argument is not as described.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Tensor
    >>> W, b = Tensor([[1.0, -2.0], [3.0, 4.0]]), Tensor([0.5, 0.5])
    >>> flatgrad.linear([[1.0, 1.0], [2.0, 0.0]], W, b, 'relu').tolist()
    [[0.0, 7.5], [2.5, 6.5]]
    """
    return linear_("linear()", x, W, b, activation_of("activation", activation))


cdef object linear_(str name, object x, object W, object b, int activation):
    cdef bint lists
    x = reusable(x)
    lists = is_flat_list(x) and not (isinstance(W, Tensor) or isinstance(b, Tensor))
    if in_scalar_graph():
        W, b = reusable(W), None if b is None else reusable(b)
        check_layer(name, x, W, b)
        return scalar_linear(x, W, b, activation, lists)
    return layer_(name, x, W, b, activation, ("x", "W", "b"), GIVE_LIST if lists else GIVE_TENSOR)


cdef object matmul_(object left, object right):
    """left @ right of one or two dimensions, one of them a Tensor."""
    cdef Operand[2] operands
    cdef list keep = []
    cdef fg_id rows, cols
    cdef int ndim
    for x in (left, right):
        if not (is_matrix(x) or has_array(x)):
            return NotImplemented
    take("left operand of @", left, &operands[0], keep)
    take("right operand of @", right, &operands[1], keep)
    if operands[0].ndim == 0 or operands[1].ndim == 0:
        raise ShapeError(f"@: shapes {shape_of(&operands[0])} and {shape_of(&operands[1])}: expected one or "
                         "two dimensions on both sides")
    shapes = shape_of(&operands[0]), shape_of(&operands[1])
    if operands[1].ndim == 2:   # a layer's weights are the rows of the transpose
        operands[1].turned = True
    if operands[0].cols != cols_of(&operands[1]):
        raise ShapeError(f"@: shapes {shapes[0]} and {shapes[1]} do not fit each other")
    rows, cols = operands[0].rows, rows_of(&operands[1])
    if rows == 0 or cols == 0:
        raise ShapeError(f"@: expected at least one element, got shapes {shapes[0]} and {shapes[1]}")
    ndim = operands[0].ndim + operands[1].ndim - 2
    if in_scalar_graph():
        return scalar_matmul(left, right, operands[0].ndim, operands[1].ndim)
    result = instruction_(FG_LAYER, FG_LEAF, 0, operands, 2, rows, cols, GIVE_TENSOR if ndim else GIVE_VALUE, ndim)
    if ndim == 1 and rows > 1:   # a matrix times a vector: the column that it made, as one dimension
        return tensor_view(<Tensor>result, 0, 1, rows, 0, 1, 1)
    return result
