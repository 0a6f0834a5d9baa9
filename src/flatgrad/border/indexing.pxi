# indexing.pxi: What stands between the brackets of a Tensor: ints, slices, masks and arrays of positions; and other
# shapes.
#
# Positions are converted, and copied, before a slot is read.
#
# Uses elementwise, handles, instructions, numbers, operands, tape, tracing, views.

cdef int position_of(object key, fg_id length, str what, fg_id *position) except -1:
    """The row or column that an int means."""
    index = operator.index(key)
    if not -<Py_ssize_t>length <= index < <Py_ssize_t>length:
        raise IndexError(f"{what} {index} is out of range for {length} of them")
    position[0] = <fg_id>(index % length)
    return 0


cdef object ints_of(object index):
    """A list or array of ints as a C-contiguous array of int64, None for anything else."""
    if not isinstance(index, (list, np_array)):
        return None
    try:
        index = np.asarray(index)
    except ValueError:   # rows of different lengths
        return None
    return np.ascontiguousarray(index, np.int64) if index.dtype.kind in "iu" and 0 < index.ndim <= 2 else None


cdef bint count_from_0(int64_t *place, Py_ssize_t length) noexcept:
    """Make a negative index what it stands for; 0 if there is no such element."""
    if place[0] < 0:
        place[0] += length
    return 0 <= place[0] < length


cdef object usual_positions(Tensor t, object key):
    """positions_of() for elements of a vector, rows of a matrix, and as many elements as there are pairs of
    indices; None for anything else, errors among it."""
    cdef const int64_t[::1] rows, cols
    cdef int64_t[::1] out
    cdef int64_t row, col
    cdef Py_ssize_t k, j, width = t.cols
    pair = t.ndim == 2 and isinstance(key, tuple) and len(key) == 2
    first, second = ints_of(key[0] if pair else key), ints_of(key[1]) if pair else None
    if first is None or (pair and (second is None or second.shape != first.shape)):
        return None
    whole_rows = t.ndim == 2 and not pair
    if whole_rows and first.ndim == 2:
        return None
    rows = first.reshape(-1)
    cols = second.reshape(-1) if pair else rows
    positions = np.empty((first.shape[0], width) if whole_rows else first.shape, np.int64)
    out = positions.reshape(-1)
    for k in range(rows.shape[0]):
        row, col = rows[k], cols[k]
        if t.ndim == 1:
            row = 0
        elif not count_from_0(&row, t.rows):
            return None
        if whole_rows:
            for j in range(width):
                out[k * width + j] = row * width + j
        elif count_from_0(&col, width):
            out[k] = row * width + col
        else:
            return None
    return positions


cdef object positions_of(Tensor t, object key):
    """The places, counted row by row, of the elements that an index selects."""
    positions = usual_positions(t, key)
    if positions is not None:
        return positions
    try:
        return np.arange(<Py_ssize_t>t.rows * t.cols, dtype=np.int64).reshape(t.shape)[key]
    except IndexError as error:
        raise IndexError(f"Tensor of shape {t.shape}: {error}") from None


cdef object picked(Tensor t, object key):
    """What an index that is no view selects, copied by one instruction; of a constant Tensor, a constant."""
    cdef Operand a
    cdef const int64_t[::1] flat
    cdef double[::1] numbers
    cdef fg_view source
    cdef Py_ssize_t k
    import numpy  # noqa: F401
    numpy_is_there()
    positions = positions_of(t, key)
    if positions.ndim == 0:
        return element(t, <fg_id>(positions // t.cols), <fg_id>(positions % t.cols))
    if positions.ndim > 2 or positions.size == 0:
        raise IndexError(f"Tensor of shape {t.shape}: expected an index with one or two dimensions and at "
                         f"least one element, got one that selects shape {positions.shape}")
    if positions.size >= MOST_NODES:
        raise MemoryError(f"Tensor of shape {t.shape}: {positions.size} elements do not fit on the tape")
    flat = np.ascontiguousarray(positions).reshape(-1)
    pick(&a, PICK, t, flat, positions)
    if t.constant and not is_recorded(first_slot(t)):
        numbers = np.empty(flat.shape[0])
        source = view_of(t)   # now: making objects may have moved it
        for k in range(flat.shape[0]):
            numbers[k] = tape.data[pick_slot(&source, flat[k])]
        a.kind = ARRAY
        a.array = &numbers[0]
        return leaf_tensor(&a, True)
    return instruction_(FG_MAP, FG_COPY, 0, &a, 1, a.rows, a.cols, GIVE_TENSOR, a.ndim)


cdef bint is_index(object key):
    return not isinstance(key, (bool, type)) and hasattr(key, "__index__") and not (
        hasattr(key, "ndim") and key.ndim > 0)


cdef tuple selected(object key, fg_id length, str what):
    """(first, how many, step) of what an int or a slice selects."""
    cdef fg_id position = 0
    if is_index(key):
        position_of(key, length, what, &position)
        return position, 1, 0
    first, stop, step = key.indices(length)
    count = len(range(first, stop, step))
    return first, count, step if count > 1 else 1   # a step that is not taken may be any int


cdef object indexed(Tensor t, object key):
    """t[key]: a Value, a view, or for arrays of positions what picked() makes."""
    cdef fg_id row = 0, col = 0
    keys = tuple(key) if isinstance(key, tuple) else (key,)
    if len(keys) > t.ndim:
        raise IndexError(f"Tensor of shape {t.shape}: expected at most {t.ndim} "
                         f"ind{'ices' if t.ndim > 1 else 'ex'}, got {len(keys)}")
    if not all([isinstance(k, slice) or is_index(k) for k in keys]):
        return picked(t, key)
    if t.ndim == 1:
        keys = (0, *keys)
    rows, cols = keys if len(keys) == 2 else (keys[0], slice(None))
    if is_index(rows) and is_index(cols):
        position_of(rows, t.rows, "row", &row)
        position_of(cols, t.cols, "column" if t.ndim == 2 else "element", &col)
        return element(t, row, col)
    first_row, row_count, row_step = selected(rows, t.rows, "row")
    first_col, col_count, col_step = selected(cols, t.cols, "column")
    if row_count == 0 or col_count == 0:
        raise IndexError(f"Tensor of shape {t.shape}: the index selects no element")
    offset = t.offset + first_row * t.row_step + first_col * t.col_step
    row_step, col_step = row_step * t.row_step, col_step * t.col_step
    if is_index(cols):   # a column, as one dimension
        return tensor_view(t, offset, 1, row_count, 0, row_step, 1)
    if is_index(rows):
        return tensor_view(t, offset, 1, col_count, 0, col_step, 1)
    return tensor_view(t, offset, row_count, col_count, row_step, col_step, 2)


cdef Tensor reshaped(Tensor t, tuple shape):
    """t.reshape(*shape): a view if its elements lie in order, else of a copy."""
    cdef Tensor source = t
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        shape = tuple(shape[0])
    try:
        shape = tuple([operator.index(length) for length in shape])
    except TypeError:
        raise TypeError(f"reshape(): expected ints, got {shape}") from None
    size = <Py_ssize_t>t.rows * t.cols
    known = 1
    for length in shape:
        known *= length if length != -1 else 1
    if list(shape).count(-1) == 1 and known > 0 and size % known == 0:
        shape = tuple([size // known if length == -1 else length for length in shape])
        known = size
    if len(shape) not in (1, 2) or known != size or sorted(shape)[0] < 1:
        raise ShapeError(f"reshape(): expected one or two lengths for the {size} elements of shape "
                         f"{t.shape}, got {shape}")
    if not lies_dense(t):
        source = map_tensors(FG_COPY, 0, (t,), ())
    rows = shape[0] if len(shape) == 2 else 1
    return tensor_view(source, source.offset, rows, shape[-1], shape[-1], 1, <int>len(shape))
