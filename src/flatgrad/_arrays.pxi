# _arrays.pxi: part of _core.pyx. Tensors beside NumPy's arrays: the functions that NumPy has and ops.def has
# no row for, and what a Tensor says when NumPy asks.
#
# NumPy asks in three ways. A ufunc asks `__array_ufunc__`; the rows of ops.def are found here, at once, as
# `array * tensor` goes this way. Other functions ask `__array_function__`. Both are answered in
# array_functions.py. What does not know Tensors asks `__array__` for numbers, which would leave the graph
# without a word: only a constant Tensor gives them.

cdef object functions_module = None      # array_functions.py
cdef object data_class = None, grad_class = None
cdef dict known_ufuncs = None


cdef object array_functions():
    global functions_module
    if functions_module is None:
        from flatgrad import array_functions as functions_module
    return functions_module


cdef object array_class(bint data):
    """The class of the array that Tensor.data, or Tensor.grad, gives."""
    global data_class, grad_class
    if grad_class is None:
        from flatgrad import read_only
        data_class, grad_class = read_only.Data, read_only.Grad
    return data_class if data else grad_class


cdef object no_array(str what):
    """The TypeError for a use of a Tensor that its gradient would not survive."""
    return ArgumentTypeError(f"{what} a Tensor that requires a gradient: the gradient would be lost. Take its .data or "
                             ".numpy() for the numbers, or its .detach() for a constant Tensor")


# ---- ufuncs ----

cdef dict ufunc_rows():
    """For each ufunc that a row of ops.def means: (operands, opcode). The products of matrices are those of layers."""
    global known_ufuncs
    if known_ufuncs is None:
        import numpy
        numpy_is_there()
        known_ufuncs = {getattr(numpy, name): (count, opcodes[row]) for count, rows in (
            (2, {"add": "ADD", "subtract": "SUB", "multiply": "MUL", "true_divide": "DIV", "power": "POW",
                 "maximum": "MAXIMUM", "minimum": "MINIMUM"}),
            (1, {"negative": "NEG", "absolute": "ABS", "fabs": "ABS", "exp": "EXP", "log": "LOG", "sqrt": "SQRT",
                 "sin": "SIN", "cos": "COS", "tanh": "TANH"}),
        ) for name, row in rows.items()}
        known_ufuncs[numpy.matmul] = (2, FG_LAYER)
    return known_ufuncs


cdef object apply_ufunc(tuple row, tuple inputs):
    if row[1] == FG_LAYER:
        return matmul_(inputs[0], inputs[1])
    if row[0] == 2:
        return tensor_binary(row[1], inputs[0], inputs[1])
    return map_tensors(row[1], 0, inputs, ())


def _operator(str symbol not None, left, right):
    """left symbol right, at least one a Tensor: for array_functions.py, as NumPy would ask it again."""
    if symbol == "@":
        return matmul_(left, right)
    return tensor_binary({"/": FG_DIV, "*": FG_MUL}[symbol], left, right)


# ---- comparisons ----

cdef object numbers_in(object x, int depth=0):
    """The numbers of an operand, or an array of them; NotImplemented if it has none."""
    if isinstance(x, Tensor):
        return to_numpy(<Tensor>x, True)
    if isinstance(x, Value):
        return tape.data[(<Value>x).id]
    if isinstance(x, (list, tuple)):
        if depth == 2:   # what has more dimensions is no operand, and a list may be in itself
            return NotImplemented
        parts = [numbers_in(part, depth + 1) for part in plain_sequence(x)]
        return NotImplemented if any([part is NotImplemented for part in parts]) else np_asarray(parts)
    if isinstance(x, (np_array, np_generic)):
        if x.dtype == object:   # without dimensions it gives the object, which may be the array
            inner = x.tolist()
            return numbers_in(inner, depth) if x.ndim > 0 or isinstance(inner, (Value, float, int)) else NotImplemented
        return x if x.dtype.kind in "biufc" else NotImplemented
    if isinstance(x, (float, int)) or is_number(x):
        return x
    return numbers_in(np_asarray(x), depth) if has_array(x) else NotImplemented


cdef object compared(str name, object left, object right):
    """What NumPy's comparison of that name says of the numbers, an array of bool; NotImplemented unless both
    have numbers."""
    if np is None:
        import numpy  # noqa: F401
        numpy_is_there()
    left, right = numbers_in(left), numbers_in(right)
    if left is NotImplemented or right is NotImplemented:
        return NotImplemented
    try:
        return getattr(np, name)(left, right)
    except ValueError:
        raise ShapeError(f"{name}: shapes {np.shape(left)} and {np.shape(right)} do not fit each other") from None


# ---- functions ----

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
    x = reusable(x)
    take("min(): x", x, &a, keep)
    if elements_of(&a) == 0:
        raise ShapeError(f"min(): x: expected at least one element, got shape {shape_of(&a)}")
    if a.ndim > 0:
        axes_of("min()", axis, a.ndim)
    kept_dims("min()", keepdims)
    return -reduce_(FG_MAX, map_tensors(FG_NEG, 0, (x,), ("min(): x",)), axis, keepdims, "min()")


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
    if not isinstance(x, Tensor):
        x = reusable(x)
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


# ---- elements of several operands, in another order ----

def cat(tensors, axis=0):
    """Tensors one after the other along an axis that they have, as one instruction.

    Parameters
    ----------
    tensors : sequence of Tensor, array or list of Value and number; of shape (n,) or (n_rows, n_columns)
        Of one shape, but for the length of that axis.
    axis : int, optional
        0 or -1 for one dimension. For two, 0: below each other, 1: beside each other.

    Returns
    -------
    Tensor
        Constant if all of them are.

    Raises
    ------
    TypeError, ValueError
        If the shapes do not fit, or an argument is not as described.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Tensor
    >>> flatgrad.cat([Tensor([1.0, 2.0]), [3.0]]).tolist()
    [1.0, 2.0, 3.0]
    >>> flatgrad.cat([Tensor([[1.0], [2.0]]), Tensor([[3.0], [4.0]])], axis=1).tolist()
    [[1.0, 3.0], [2.0, 4.0]]
    """
    return together("cat()", tensors, axis)


def stack(tensors, axis=0):
    """Tensors of one dimension as the rows, or columns, of a matrix, as one instruction. Values as a vector.

    Parameters
    ----------
    tensors : sequence of Tensor, array or list of Value and number, all of shape (n,); or of Value and number
    axis : int, optional
        The new axis. For Tensors of one dimension, 0 or -2: they are the rows, 1 or -1: the columns.

    Returns
    -------
    Tensor
        Constant if all of them are.

    Raises
    ------
    TypeError, ValueError
        If the shapes differ, or an argument is not as described.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Tensor
    >>> flatgrad.stack([Tensor([1.0, 2.0]), Tensor([3.0, 4.0])], axis=1).tolist()
    [[1.0, 3.0], [2.0, 4.0]]
    """
    return together("stack()", tensors, axis)


cdef object together(str name, object tensors, object axis):
    import numpy
    parts = to_list("tensors", "Tensors", tensors)
    if not parts:
        raise ShapeError(f"{name}: tensors: expected one Tensor at least, got none")
    try:
        axis = operator.index(axis)
    except TypeError:
        raise ArgumentTypeError(f"{name}: axis: expected an int, got {describe(axis)}") from None
    function = numpy.concatenate if name == "cat()" else numpy.stack
    return _moved(name, parts, lambda places: function(places, axis=axis))


def _moved(str name not None, list parts not None, function):
    """What `function`, which only moves elements, makes of the parts, copied by one instruction.

    Parameters
    ----------
    name : str
        What messages call it.
    parts : list of Tensor, array_like, Value and number
    function : callable
        Takes a list of arrays of int64 of the parts' shapes, which say where each element is found. Returns one
        array of them, with 0 for the number 0.

    Returns
    -------
    Tensor, or Value if what `function` returns has no dimensions
        Constant if all that it was made of is.
    """
    cdef list tensors = [], places = []
    cdef Py_ssize_t size
    cdef int64_t first
    import numpy
    numpy_is_there()
    for k, part in enumerate(parts):
        if type(part) is Tensor:
            shape = part.shape
        else:
            part, shape = as_part(f"{name}: tensors[{k}]", part)
        tensors.append(part)
        first = (<int64_t>k + 1) << 32   # part 0 is the number 0
        size = 1
        for length in shape:
            size *= length
        if len(shape) == 1:
            places.append(numpy.arange(first, first + size, dtype=numpy.int64))
        else:
            places.append(numpy.arange(first, first + size, dtype=numpy.int64).reshape(shape))
    try:
        taken = function(places)
    except (ValueError, IndexError) as error:
        shapes = [place.shape for place in places]
        raise ShapeError(f"{name}: shapes {', '.join(map(str, shapes))}: {error}") from None
    return gathered(name, tensors, numpy.array(taken, numpy.int64, order="C"), [place.size for place in places])


cdef tuple as_part(str name, object part):
    """A Tensor with the elements of a part that is none, and the shape of the part."""
    cdef Operand a
    cdef list keep = []
    part = reusable(part)
    take(name, part, &a, keep)
    if elements_of(&a) == 0:
        raise ShapeError(f"{name}: expected at least one element, got shape {shape_of(&a)}")
    shape = shape_of(&a)
    return Tensor(part if shape else [part], requires_grad=a.kind != NUMBER and a.kind != ARRAY), shape


cdef object gathered(str name, list tensors, object taken, list sizes):
    """The elements at places of Tensors that had these sizes, as _moved() counts them."""
    cdef Operand a
    cdef const int64_t[::1] pick
    cdef const int64_t[::1] limits
    cdef list own
    cdef Tensor t
    cdef Py_ssize_t k
    if taken.ndim > 2 or taken.size == 0:
        raise ShapeError(f"{name}: expected a result of one or two dimensions with at least one element, got shape "
                         f"{taken.shape}")
    if taken.size >= MOST_NODES:
        raise MemoryError(f"{name}: {taken.size} elements do not fit on the tape")
    if all([t.constant for t in tensors]):
        numbers = [np.zeros(1), *[to_numpy(t, True).reshape(-1) for t in tensors]]
        starts = np.cumsum([0] + [len(part) for part in numbers])
        numbers = np.concatenate(numbers)[starts[taken >> 32] + (taken & 0xFFFFFFFF)]
        return Tensor(numbers, requires_grad=False) if taken.ndim else Value(numbers)
    # Tensors of our own, which nobody changes; constants as new leaves, whose gradients nobody reads.
    own = [None if taken.all() else Tensor([0.0])]
    for t in tensors:
        own.append(Tensor(to_numpy(t, True)) if t.constant else
                   tensor_view(t, t.offset, t.rows, t.cols, t.row_step, t.col_step, t.ndim))
    for k in range(len(sizes)):
        if own[k + 1].size != sizes[k]:
            raise RuntimeError("a Tensor changed while it was read")
    pick = taken.reshape(-1)
    limits = np.array([1 if own[0] is not None else 0, *sizes], np.int64)
    for k in range(pick.shape[0]):   # `function` may have returned anything
        if not 0 <= pick[k] >> 32 < limits.shape[0] or pick[k] & 0xFFFFFFFF >= limits[pick[k] >> 32]:
            raise IndexError(f"{name}: place {pick[k]} is in none of the parts")
    if taken.ndim == 0:
        t = own[pick[0] >> 32]
        return element(t, <fg_id>((pick[0] & 0xFFFFFFFF) // t.cols), <fg_id>((pick[0] & 0xFFFFFFFF) % t.cols))
    a.kind = JOIN
    a.turned, a.exact, a.ndim = False, True, taken.ndim
    a.rows = taken.shape[0] if a.ndim == 2 else 1
    a.cols = taken.shape[a.ndim - 1]
    a.o = <PyObject *>own
    a.pick = &pick[0]
    return instruction_(FG_MAP, FG_COPY, 0, &a, 1, a.rows, a.cols, GIVE_TENSOR, a.ndim)
