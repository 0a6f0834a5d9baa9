# reductions.pxi: Sums and their like along an axis, the least and the greatest, and softmax.
#
# Uses arrays, instructions, messages, numbers, operands, views.

cdef int axis_of(str name, object axis, int ndim) except -2:
    """0, 1, or -1 for None: of an array of 2 dimensions, or the 1 of those with one."""
    if axis is None:
        return -1
    try:
        number = range(axis).stop
    except TypeError:
        raise ArgumentTypeError(f"{name}: axis: expected an int or None, got {describe(axis)}") from None
    if not -ndim <= number < ndim:
        raise ArgumentError(f"{name}: axis: expected {-ndim} to {ndim - 1} or None for {ndim} "
                            f"dimension{'s' if ndim > 1 else ''}, got {axis}")
    number = number % ndim
    return 1 if ndim == 1 else number


cdef int axes_of(str name, object axis, int ndim) except -2:
    """axis_of(), and the same for a tuple of axes."""
    if not isinstance(axis, tuple):
        return axis_of(name, axis, ndim)
    axes = [axis_of(name, one, ndim) if one is not None else None for one in axis]
    if not axes or None in axes or len(set(axes)) < len(axes):
        raise ArgumentError(f"{name}: axis: expected different axes in a tuple, one at least, got {axis}")
    return -1 if len(axes) == ndim else axes[0]


cdef bint kept_dims(str name, object keepdims) except -1:
    if not (isinstance(keepdims, bool) or (numpy_is_there() and isinstance(keepdims, np_bool))):
        raise ArgumentTypeError(f"{name}: keepdims: expected True or False, got {describe(keepdims)}")
    return bool(keepdims)


cdef object reduce_(int op, object x, object axis, object keepdims=False, str name=None):
    """A sum, mean, maximum or logsumexp of all elements or along an axis. name: what messages call it."""
    cdef Operand a
    cdef list keep
    cdef int along
    cdef bint kept, is_scalar
    if (take_plain(x, &a) and a.ndim > 0 and axis is None and keepdims is False
            and elements_of(&a) > 0):
        return instruction_(op, FG_LEAF, 0, &a, 1, 1, 1, GIVE_VALUE, 0)
    keep = []
    if name is None:
        name = f"{fg_op_table[op].name.decode()}()"
    kept = kept_dims(name, keepdims)
    take(f"{name}: x", x, &a, keep)
    is_scalar = a.ndim == 0
    if is_scalar:
        a.ndim = 1
    along = axes_of(name, axis, a.ndim)
    if elements_of(&a) == 0:
        if op == FG_SUM and along < 0 and not kept:
            return Value(0.0)
        raise ShapeError(f"{name}: x: expected at least one element, got shape {shape_of(&a)}")
    if along < 0 or a.ndim == 1:
        if not kept or is_scalar:
            return instruction_(op, FG_LEAF, 0, &a, 1, 1, 1, GIVE_VALUE, 0)
        return with_dims(instruction_(op, FG_LEAF, 0, &a, 1, 1, 1, GIVE_TENSOR, 1), along, a.ndim)
    a.turned = along == 0   # if that leaves one row, its result alone, and still a Tensor
    result = instruction_(op, FG_LEAF, 0, &a, 1, 1, rows_of(&a), GIVE_TENSOR, 1)
    return with_dims(result, along, a.ndim) if kept else result


cdef object softmax_(int op, object x, object axis):
    """softmax or log_softmax along an axis."""
    cdef Operand a
    cdef str name
    cdef list keep
    cdef int along
    if take_plain(x, &a) and a.ndim == 1 and a.cols > 0 and type(axis) is int and axis == -1:
        return instruction_(op, FG_LEAF, 0, &a, 1, 1, a.cols, GIVE_LIST if a.flat else GIVE_TENSOR, 1)
    name, keep = fg_op_table[op].name.decode(), []
    take(f"{name}(): x", x, &a, keep)
    if a.ndim == 0:
        raise TypeError(f"{name}(): x: expected a Tensor, an array or a list, got {describe(x)}")
    if axis is None:
        raise ArgumentTypeError(f"{name}(): axis: expected an int, got None")
    along = axis_of(f"{name}()", axis, a.ndim)
    if elements_of(&a) == 0:
        raise ShapeError(f"{name}(): x: expected at least one element, got shape {shape_of(&a)}")
    a.turned = along == 0
    return instruction_(op, FG_LEAF, 0, &a, 1, rows_of(&a), cols_of(&a),
                        GIVE_LIST if a.flat else GIVE_TENSOR, a.ndim, a.turned)


def sum(x, axis=None, keepdims=False):
    """The sum of all elements, or along an axis, as one instruction.

    Parameters
    ----------
    x : Tensor, array_like, or list of Value and real number; shape (n,) or (n_rows, n_columns)
    axis : {None, 0, 1, -1, -2} or tuple of them, optional
        None: over all elements. 0: over the rows. 1: over the columns. (0, 1): over both, which is all.
    keepdims : bool, optional
        True leaves each axis that is summed over in the shape, with length 1.

    Returns
    -------
    Value, or Tensor of shape (n_columns,) or (n_rows,); with `keepdims` always a Tensor
        The sum of an empty list is 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    The terms are not added one after the other, so the last bits differ from those of ``+``.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Value
    >>> flatgrad.sum([Value(1.0), Value(2.0), 3.0]).data
    6.0
    """
    return reduce_(FG_SUM, x, axis, keepdims)


def mean(x, axis=None, keepdims=False):
    """The mean of all elements, or along an axis, as one instruction.

    Parameters
    ----------
    x, axis, keepdims
        As for `sum`.

    Returns
    -------
    Value, or Tensor of shape (n_columns,) or (n_rows,); with `keepdims` always a Tensor

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or there are no elements.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Value
    >>> flatgrad.mean([Value(1.0), Value(2.0), 3.0]).data
    2.0
    """
    return reduce_(FG_MEAN, x, axis, keepdims)


def max(x, axis=None, keepdims=False):
    """The largest element of all, or along an axis, as one instruction.

    Parameters
    ----------
    x, axis, keepdims
        As for `sum`.

    Returns
    -------
    Value, or Tensor of shape (n_columns,) or (n_rows,); with `keepdims` always a Tensor

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or there are no elements.

    Notes
    -----
    Equal largest elements share the gradient, as in PyTorch's `amax`. nan if any element is nan.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Value
    >>> flatgrad.max([Value(1.0), Value(2.0)]).data
    2.0
    """
    return reduce_(FG_MAX, x, axis, keepdims)


def min(x, axis=None, keepdims=False):
    """The smallest element of all, or along an axis: minus the largest of ``-x``.

    Parameters
    ----------
    x, axis, keepdims
        As for `sum`.

    Returns
    -------
    Value, or Tensor of shape (n_columns,) or (n_rows,); with `keepdims` always a Tensor

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or there are no elements.

    Notes
    -----
    Equal smallest elements share the gradient, as in PyTorch's `amin`. nan if any element is nan.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Value
    >>> flatgrad.min([Value(1.0), Value(2.0)]).data
    1.0
    """
    return least(x, axis, keepdims)


cdef object least(object x, object axis, object keepdims):
    cdef Operand a
    cdef list keep = []
    take("min(): x", x, &a, keep)
    if elements_of(&a) == 0:
        raise ShapeError(f"min(): x: expected at least one element, got shape {shape_of(&a)}")
    if a.ndim > 0:
        axes_of("min()", axis, a.ndim)
    kept_dims("min()", keepdims)
    negated = instruction_(FG_MAP, FG_NEG, 0, &a, 1, a.rows, a.cols, GIVE_TENSOR if a.ndim else GIVE_VALUE, a.ndim)
    return -reduce_(FG_MAX, negated, axis, keepdims, "min()")


def logsumexp(x, axis=None, keepdims=False):
    """log(sum(exp(x))) of all elements, or along an axis, as one instruction. Never overflows.

    Parameters
    ----------
    x, axis, keepdims
        As for `sum`.

    Returns
    -------
    Value, or Tensor of shape (n_columns,) or (n_rows,); with `keepdims` always a Tensor

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or there are no elements.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Value
    >>> round(flatgrad.logsumexp([Value(1000.0), Value(1000.0)]).data, 6)
    1000.693147
    """
    return reduce_(FG_LOGSUMEXP, x, axis, keepdims)


def softmax(x, axis=-1):
    """exp(x) divided by its sum along an axis, as one instruction. Never overflows.

    Parameters
    ----------
    x : Tensor, array_like, or list of Value and real number; shape (n,) or (n_rows, n_columns)
    axis : int, optional
        Along which the results add up to 1.

    Returns
    -------
    Tensor of the shape of `x`; of a flat list, a list of Value

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or there are no elements.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Value
    >>> [p.data for p in flatgrad.softmax([Value(1000.0), Value(1000.0)])]
    [0.5, 0.5]
    """
    return softmax_(FG_SOFTMAX, x, axis)


def log_softmax(x, axis=-1):
    """The logarithm of `softmax`, as one instruction. Never overflows.

    Parameters
    ----------
    x, axis
        As for `softmax`.

    Returns
    -------
    Tensor of the shape of `x`; of a flat list, a list of Value

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or there are no elements.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Value
    >>> [round(p.data, 6) for p in flatgrad.log_softmax([Value(0.0), Value(0.0)])]
    [-0.693147, -0.693147]
    """
    return softmax_(FG_LOG_SOFTMAX, x, axis)


def argmax(x, axis=None):
    """Where the largest element is: the first of them, counted row by row, or along an axis.

    Parameters
    ----------
    x : Tensor, array_like, or list of Value and real number; shape (n,) or (n_rows, n_columns)
    axis : {None, 0, 1, -1, -2}, optional
        None: among all elements. 0: in each column. 1: in each row.

    Returns
    -------
    int, or ndarray of int64
        It has no gradient. A nan counts as the largest.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or there are no elements.

    Examples
    --------
    >>> import flatgrad
    >>> flatgrad.argmax(flatgrad.Tensor([[1.0, 5.0], [7.0, 0.0]])), flatgrad.argmax([[1.0, 5.0], [7.0, 0.0]], axis=1)
    (2, array([1, 0]))
    """
    return extreme("argmax", x, axis)


def argmin(x, axis=None):
    """Where the smallest element is: the first of them, counted row by row, or along an axis.

    Parameters
    ----------
    x, axis
        As for `argmax`.

    Returns
    -------
    int, or ndarray of int64
        It has no gradient. A nan counts as the smallest.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or there are no elements.

    Examples
    --------
    >>> import flatgrad
    >>> flatgrad.argmin(flatgrad.Tensor([[1.0, 5.0], [7.0, 0.0]]))
    3
    """
    return extreme("argmin", x, axis)


cdef object extreme(str name, object x, object axis):
    import numpy
    numpy_is_there()
    if not isinstance(x, (Tensor, Value, list, tuple, type)) and not has_array(x) and hasattr(x, "__iter__"):
        x = list(x)
    numbers = numbers_in(x)
    if numbers is NotImplemented or numpy.ndim(numbers) == 0 or numpy.asarray(numbers).dtype.kind not in "biuf":
        raise ArgumentTypeError(f"{name}(): x: expected a Tensor, an array or a list, got {describe(x)}")
    if numpy.ndim(numbers) > 2 or numpy.size(numbers) == 0:
        raise ShapeError(f"{name}(): x: expected one or two dimensions and at least one element, got shape "
                         f"{numpy.shape(numbers)}")
    if axis is None:
        return int(getattr(numpy, name)(numbers))
    axis_of(f"{name}()", axis, numpy.ndim(numbers))
    result = getattr(numpy, name)(numbers, axis=axis)
    return result if numpy.ndim(result) else int(result)
