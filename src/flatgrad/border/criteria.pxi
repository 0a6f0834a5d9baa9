# criteria.pxi: Losses of predictions and targets, each one instruction; losses.py checks what they are given.
#
# Uses contexts, instructions, numbers, operands, reductions, scalars, tape, tracing, views.

cdef inline bint is_sign(double x, double tolerance) noexcept:
    """Whether it is -1 or 1; nan is not."""
    return fabs(fabs(x) - 1.0) <= tolerance


cdef double NEAR_SIGN = 1e-3   # so near are Values and Tensors with a gradient, for finite differences


cdef bint noted_signs(object x) except -1:
    """Whether an operand is an argument of the program that is recorded: it is then noted, for each call to check."""
    cdef _Recorder recorder = <_Recorder>current_recorder()
    cdef fg_id slot
    if not isinstance(x, (Value, Tensor)):
        return False
    slot = first_slot(x)
    for leaf in recorder.inputs:
        if first_slot(leaf) <= slot < first_slot(leaf) + (<Tensor>leaf).size if type(leaf) is Tensor else (
                slot == first_slot(leaf)):
            recorder.signs.append(x)
            return True
    if slot >= recorder.floor.id:
        refuse_recorded(slot, "target: numbers that have to be -1 or 1, and are computed from an argument: checked")
    return False


def all_signs(x):
    """Whether all numbers of an operand are -1 or 1: Values, and Tensors that are no constants, nearly."""
    cdef Operand a
    cdef list keep = []
    cdef fg_view view
    cdef size_t k
    cdef double tolerance
    if FG_UNLIKELY(recordings != 0) and current_recorder() != NULL:
        if isinstance(x, (list, tuple)):
            return all([all_signs(item) for item in plain_sequence(x)])
        if noted_signs(x):
            return True
    take("target", x, &a, keep)
    tolerance = 0.0 if is_constant(&a) else NEAR_SIGN
    if a.kind == ARRAY or a.kind == TENSOR:
        view = view_of(<Tensor>a.o) if a.kind == TENSOR else fg_view(0, 0, a.rows, a.cols, 0, 0)
        for k in range(<size_t>a.rows * a.cols):
            if not is_sign(a.array[k] if a.kind == ARRAY else tape.data[pick_slot(&view, k)], tolerance):
                return False
        return True
    return all([is_sign(tape.data[(<Value>item).id], NEAR_SIGN) if isinstance(item, Value) else is_sign(item, 0.0)
                for row in rows_in(&a) for item in row])


def pairwise(str name not None, prediction, target, str reduction not None, parameter=None):
    """A row of PAIRWISE on two operands with equally many elements, in order.

    reduction: 'mean' and 'sum' give a Value; 'none' gives a Tensor of the shape of the prediction, at least one
    dimension. parameter: the third operand of a row that has one, a number or one for each column.
    """
    cdef Operand[3] operands
    cdef list keep = []
    cdef int op = PAIRWISE[name]
    cdef fg_id v, count = 2 if parameter is None else 3, rows, cols
    if count != <fg_id>fg_op_table[op].arity:
        raise ValueError(f"parameter: {name} has {fg_op_table[op].arity} operands, got {count}")
    take("prediction", prediction, &operands[0], keep)
    take("target", target, &operands[1], keep)
    for v in range(2):   # a column and a row of the same length fit: both as a row
        operands[v].turned = operands[v].cols == 1
    rows, cols = rows_of(&operands[0]), cols_of(&operands[0])
    if rows != rows_of(&operands[1]) or cols != cols_of(&operands[1]) or elements_of(&operands[0]) == 0:
        raise ShapeError(f"prediction and target: shapes {shape_of(&operands[0])} and {shape_of(&operands[1])} do "
                         "not fit each other")
    if count == 3:
        take("parameter", parameter, &operands[2], keep)
        if operands[2].rows != 1 or (operands[2].cols != 1 and operands[2].cols != cols):
            raise ShapeError(f"parameter: shape {shape_of(&operands[2])} does not fit {shape_of(&operands[0])}")
    losses = instruction_(FG_MAP, <fg_id>op, 0, operands, count, rows, cols,   # of single nodes, no copies
                          GIVE_LIST if in_scalar_graph() and reduction != "none" else GIVE_TENSOR, 2)
    if reduction == "mean":
        return reduce_(FG_MEAN, losses, None)
    if reduction == "sum":
        return reduce_(FG_SUM, losses, None)
    if operands[0].ndim < 2:
        return row_view(<Tensor>losses, 0)
    return tensor_view(<Tensor>losses, 0, cols, 1, 1, 1, 2) if operands[0].turned else losses


def cross_entropy(logits, labels):
    """The mean over rows of -log_softmax(row)[label]; labels: int64 array of shape (n_rows,)."""
    cdef Operand a
    cdef list keep = []
    cdef const int64_t[::1] given
    cdef int64_t *numbers
    cdef Py_ssize_t k
    take("logits", logits, &a, keep)
    given = labels
    if a.ndim == 0 or elements_of(&a) == 0 or given.shape[0] != a.rows:
        raise ValueError(f"logits and target: shapes {shape_of(&a)} and ({given.shape[0]},) do not fit "
                         "each other")
    copied = bytearray(given.shape[0] * sizeof(int64_t))   # a finalizer may write to an array that users have
    numbers = <int64_t *><char *>copied
    for k in range(given.shape[0]):
        numbers[k] = given[k]
        if not 0 <= numbers[k] < a.cols:
            raise ValueError(f"target[{k}]: expected 0 to {a.cols - 1}, got {numbers[k]}")
    return instruction_(FG_CROSS_ENTROPY, FG_LEAF, 0, &a, 1, 1, 1, GIVE_VALUE, 0, False, numbers, a.rows)
