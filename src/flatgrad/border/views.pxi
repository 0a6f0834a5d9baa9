# views.pxi: Tensors as views over runs: making them, and their numbers as NumPy's arrays.
#
# A Tensor is made before there is room for its numbers, and tied to them by tie_run when they are on the tape. What
# users write between brackets is the matter of indexing.pxi.
#
# Uses anomaly, contexts, handles, messages, numbers, operands, tape, tracing.

cdef _Run nothing = _Run.__new__(_Run)   # of a Tensor that __init__ has not made: it has no elements


cdef Tensor new_tensor(fg_id rows, fg_id cols, int ndim, bint turned, bint constant):
    """A Tensor over a run that is still to come; turned: the run has the transpose."""
    cdef Tensor t = Tensor.__new__(Tensor)
    t.run = _Run.__new__(_Run)
    t.offset = 0
    t.ndim = ndim
    t.constant = constant
    t.rows, t.cols, t.row_step, t.col_step = rows, cols, <int32_t>cols, 1
    if turned:
        t.rows, t.cols, t.row_step, t.col_step = cols, rows, 1, <int32_t>cols
    return t


cdef Tensor leaf_tensor(const Operand *a, bint constant):
    """Leaves with the numbers of an array."""
    cdef Tensor t = new_tensor(a.rows, a.cols, a.ndim, False, constant)
    cdef fg_id count = a.rows * a.cols, i
    reserve(count + 1, 0)
    i = fg_tape_push_leaves(&tape, count)
    memcpy(tape.data + i, a.array, count * sizeof(double))
    tie_run(t.run, fg_tape_push_run(&tape, count))
    if FG_UNLIKELY(fg_no_grads != 0):
        note_run(t.run)
    return t


cdef Tensor tensor_view(Tensor t, fg_id offset, fg_id rows, fg_id cols, int32_t row_step, int32_t col_step,
                        int ndim):
    """Another view of the same run."""
    cdef Tensor view = Tensor.__new__(Tensor)
    view.run = t.run
    view.constant = t.constant
    view.offset, view.rows, view.cols, view.ndim = offset, rows, cols, ndim
    view.row_step, view.col_step = row_step, col_step
    return view


cdef Tensor row_view(Tensor t, fg_id row):
    """Row `row` as one dimension."""
    return tensor_view(t, <fg_id>(<int64_t>t.offset + <int64_t>row * t.row_step), 1, t.cols, 0, t.col_step, 1)


cdef object element(Tensor t, fg_id row, fg_id col):
    """The Value at (row, col)."""
    cdef fg_view view = view_of(t)
    return handle_of(slot_in(&view, row, col))


cdef fg_id frozen_in(object item) noexcept:
    """How many frozen leaves there are in a Value or Tensor."""
    cdef fg_view view
    cdef fg_id k, count = 0
    if not frozen_ever:
        return 0
    if type(item) is not Tensor:
        return fg_tape_op(&tape, (<Value>item).id) == FG_FROZEN
    view = view_of(<Tensor>item)
    for k in range(view.rows * view.cols):
        count += fg_tape_op(&tape, pick_slot(&view, k)) == FG_FROZEN
    return count


cdef bint is_frozen(Tensor t) noexcept:
    """Whether all its elements are frozen leaves."""
    return t.rows > 0 and frozen_in(t) == t.rows * t.cols


cdef object to_numpy(Tensor t, bint data, object kind=None):
    """The data, or gradients, of a Tensor as a new array: of the class `kind`, read-only, or a plain one."""
    cdef fg_view view
    cdef Py_buffer buffer
    cdef double *out
    cdef fg_id i, j
    guard(first_slot(t), "the numbers of a Tensor: read")
    if np is None:
        import numpy  # noqa: F401
        numpy_is_there()
    result = (np_array if kind is None else kind)(t.shape)
    PyObject_GetBuffer(result, &buffer, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
    view = view_of(t)   # now: making objects may have moved them
    if buffer.len != <Py_ssize_t>(<size_t>view.rows * view.cols * sizeof(double)):
        PyBuffer_Release(&buffer)
        raise RuntimeError("a Tensor changed while it was read")
    out = <double *>buffer.buf
    if lies_dense(t) and (data or not frozen_ever):
        memcpy(out, (tape.data if data else tape.grad) + view.base, buffer.len)
    else:
        for i in range(view.rows):
            for j in range(view.cols):
                out[0] = tape.data[slot_in(&view, i, j)] if data else fg_tape_gradient(&tape, slot_in(&view, i, j))[0]
                out += 1
    PyBuffer_Release(&buffer)
    if kind is not None:
        result.setflags(False)
    return result


cdef int take_numbers(str name, object x, Operand *a, list keep) except -1:
    """take(), where numbers are asked for: a derivative of lost.py counts as its numbers."""
    a.lost = False
    if take_plain(x, a) or np is not None and type(x) is np_array and take_doubles(x, a, keep):
        return 0
    take_converted(name, x, a, keep)
    if a.lost and a.kind in (LIST, ROWS):   # besides Values
        raise_lost(name, repr(x))
    return 0


cdef int from_numbers(Tensor t, str name, object x, bint data) except -1:
    """Write numbers into the data, or gradients, of a Tensor."""
    cdef Operand a
    cdef list keep = []
    cdef fg_view view
    cdef fg_id k, slot
    cdef double *array
    guard(first_slot(t), f"{name} of a Tensor: assigned to")
    take_numbers(name, x, &a, keep)
    if a.kind != NUMBER and a.kind != ARRAY:
        if isinstance(x, Tensor):
            if tracings and not (<Tensor>x).constant:
                refuse_traced(first_slot(x), f"{name}: the numbers")
            return from_numbers(t, name, to_numpy(<Tensor>x, True), data)
        raise TypeError(f"{name}: expected numbers, got {describe(x)}")
    if a.kind == ARRAY and shape_of(&a) != t.shape:
        raise ShapeError(f"{name}: expected shape {t.shape} or a number, got shape {shape_of(&a)}")
    view = view_of(t)
    array = tape.data if data else tape.grad
    tape.writes += data
    for k in range(view.rows * view.cols):
        slot = pick_slot(&view, k)
        array[slot] = a.number if a.kind == NUMBER else a.array[k]
        if not data and fg_rules == 0:   # of a frozen leaf, elsewhere
            fg_tape_gradient(&tape, slot)[0] = array[slot]
    return 0


cdef Tensor with_dims(Tensor t, int along, int ndim):
    """The results of a reduction, one dimension, with the axis that was reduced as one of length 1."""
    if ndim == 1:
        return t
    if along == 1:
        return tensor_view(t, t.offset, t.cols, 1, t.col_step, 1, 2)
    return tensor_view(t, t.offset, 1, t.cols, <int32_t>t.cols, t.col_step, 2)


def _restore_tensor(_Run run not None, offset, rows, cols, row_step, col_step, ndim, constant):
    """The Tensor that Tensor.__reduce__ describes. Raises ValueError for anything else."""
    if (not all([type(x) is int and -MOST_NODES < x < MOST_NODES
                 for x in (offset, rows, cols, row_step, col_step)])
            or rows < 1 or cols < 1 or ndim not in (1, 2) or (ndim == 1 and rows != 1)
            or type(constant) is not bool):
        damaged("no Tensor has this shape")
    corners = [offset + i * row_step + j * col_step for i in (0, rows - 1) for j in (0, cols - 1)]
    # The elements lie apart, as those of slices do: so there are no more than numbers.
    (step, length), (far, _) = sorted([(abs_of(row_step) if rows > 1 else 0, rows),
                                       (abs_of(col_step) if cols > 1 else 0, cols)])
    if ((length > 1 and step == 0) or (rows > 1 and cols > 1 and far <= step * (length - 1))
            or (far == 0 and rows * cols > 1)):
        damaged(f"no Tensor of shape ({rows}, {cols}) has these steps")
    if rows * cols > run.count or sorted(corners)[0] < 0 or sorted(corners)[-1] >= run.count:
        damaged(f"a Tensor of shape ({rows}, {cols}) reaches beyond its {run.count} numbers")
    cdef Tensor t = Tensor.__new__(Tensor)
    t.run, t.offset, t.rows, t.cols, t.row_step, t.col_step = run, offset, rows, cols, row_step, col_step
    t.ndim, t.constant = ndim, constant
    return t


cdef object abs_of(object number):
    return number if number >= 0 else -number
