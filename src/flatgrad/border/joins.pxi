# joins.pxi: Elements of operands, in another order: cat, stack, what array_functions.py moves, and what is taken at
# positions that are numbers of the graph.
#
# Uses contexts, handles, instructions, messages, numbers, operands, python, tracing, views.

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
    take(name, part, &a, keep)
    if elements_of(&a) == 0:
        raise ShapeError(f"{name}: expected at least one element, got shape {shape_of(&a)}")
    shape = shape_of(&a)
    if a.kind == NUMBER:
        return Tensor([a.number], requires_grad=False), shape
    return tensor_of(&a, a.kind == ARRAY), shape


cdef object gathered(str name, list tensors, object taken, list sizes):
    """The elements at places of Tensors that had these sizes, as _moved() counts them."""
    cdef Operand a
    cdef const int64_t[::1] places
    cdef const int64_t[::1] limits
    cdef list own
    cdef Tensor t
    cdef Py_ssize_t k
    if taken.ndim > 2 or taken.size == 0:
        raise ShapeError(f"{name}: expected a result of one or two dimensions with at least one element, got shape "
                         f"{taken.shape}")
    if taken.size >= MOST_NODES:
        raise MemoryError(f"{name}: {taken.size} elements do not fit on the tape")
    recorded = recordings != 0 and any([is_recorded(first_slot(t)) for t in tensors])
    if all([t.constant for t in tensors]) and not recorded:
        numbers = [np.zeros(1), *[to_numpy(t, True).reshape(-1) for t in tensors]]
        starts = np.cumsum([0] + [len(part) for part in numbers])
        numbers = np.concatenate(numbers)[starts[taken >> 32] + (taken & 0xFFFFFFFF)]
        return Tensor(numbers, requires_grad=False) if taken.ndim else Value(numbers)
    # Tensors of our own, which nobody changes; constants as new leaves, whose gradients nobody reads.
    own = [None if taken.all() else Tensor([0.0])]
    for t in tensors:
        own.append(Tensor(to_numpy(t, True)) if t.constant and not recorded else
                   tensor_view(t, t.offset, t.rows, t.cols, t.row_step, t.col_step, t.ndim))
    for k in range(len(sizes)):
        if own[k + 1].size != sizes[k]:
            raise RuntimeError("a Tensor changed while it was read")
    places = taken.reshape(-1)
    limits = np.array([1 if own[0] is not None else 0, *sizes], np.int64)
    for k in range(places.shape[0]):   # `function` may have returned anything
        if not 0 <= places[k] >> 32 < limits.shape[0] or <uint32_t>places[k] >= limits[places[k] >> 32]:
            raise IndexError(f"{name}: place {places[k]} is in none of the parts")
    if taken.ndim == 0:
        t = own[places[0] >> 32]
        return element(t, <uint32_t>places[0] // t.cols, <uint32_t>places[0] % t.cols)
    pick(&a, JOIN, own, places, taken)
    return instruction_(FG_MAP, FG_COPY, 0, &a, 1, a.rows, a.cols, GIVE_TENSOR, a.ndim)


def _taken(table, index, bint each, bint as_list):
    """Rows of a table, or elements of a vector; or with `each` an element of every row. By one FG_TAKE.

    Parameters
    ----------
    table : Tensor, array or list; of shape (n,) or (m, n)
    index : Value, number, Tensor, array or list; of shape () or (k,)
        Whole numbers; from -1 down they count from the end. With `each` and a matrix, one for each row.
    each : bool
    as_list : bool
        Whether a row comes as a list of Values, and not as a Tensor.

    Returns
    -------
    Value, list of Value, or Tensor
        None where a scalar graph is asked for, and nothing is done.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.
    IndexError
        If a position is not a whole number or not in the table.
    """
    cdef Operand[2] operands
    cdef Operand *x = &operands[0]
    cdef Operand *p = &operands[1]
    cdef list keep = []
    cdef bint vector
    cdef fg_id count
    cdef int64_t *zeros
    if in_scalar_graph():
        return None
    take("table", table, x, keep)
    take("index", index, p, keep)
    if not x.exact:
        return None
    if x.ndim == 0 or elements_of(x) == 0:
        raise ShapeError(f"table: expected one or two dimensions and at least one element, got shape {shape_of(x)}")
    if p.ndim > 1 or elements_of(p) == 0:
        raise ShapeError(f"index: expected a number or one dimension of at least one, got shape {shape_of(p)}")
    count, vector = cols_of(p), x.ndim == 1
    zeros = <int64_t *>PyMem_Calloc(count, sizeof(int64_t))
    if zeros == NULL:
        raise MemoryError()
    try:
        if each and not vector:
            if count != rows_of(x):
                raise ShapeError(f"index: expected shape ({rows_of(x)},), a position for each row of the table, got "
                                 f"{shape_of(p)}")
            return instruction_(FG_TAKE, FG_LEAF, FG_TAKE_EACH, operands, 2, 1, count, GIVE_TENSOR, 1, False, zeros,
                                count)
        if vector:
            x.turned = not x.turned   # a column: each element is a row
        if p.ndim == 0:
            return instruction_(FG_TAKE, FG_LEAF, FG_TAKE_ROWS, operands, 2, 1, cols_of(x),
                                GIVE_VALUE if vector else GIVE_LIST if as_list else GIVE_TENSOR, 1, False, zeros, count)
        return instruction_(FG_TAKE, FG_LEAF, FG_TAKE_ROWS, operands, 2, count, cols_of(x), GIVE_TENSOR,
                            1 if vector else 2, vector, zeros, count)
    finally:
        PyMem_Free(zeros)
