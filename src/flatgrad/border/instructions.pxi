# instructions.pxi: One instruction for many results: all of it is appended, or nothing.
#
# instruction_() makes room and fills in what `take` has converted; a failure leaves the tape as it was, and the
# message names the element. Which shapes an operation asks for is known to the rooms that offer it.
#
# Uses handles, messages, operands, python, sweeps, tape, views.

cdef enum:
    GIVE_VALUE, GIVE_LIST, GIVE_TENSOR


cdef object instruction_(int op, fg_id param, int32_t k, Operand *operands, fg_id count, fg_id rows, fg_id cols,
                         int give_what, int ndim, bint turned=False, const int64_t *labels=NULL,
                         fg_id label_count=0):
    """Make a block instruction; its results as a Value, a list of Values or a Tensor."""
    cdef uint64_t nodes = <uint64_t>rows * cols + 1, words = fg_block_words(count, label_count)
    cdef fg_id v, n, npool, node = 0
    cdef fg_handle *handle = NULL
    cdef fg_record *r
    cdef Tensor tensor = None
    cdef list values
    cdef int status = 0
    cdef bint constant = True
    for v in range(count):
        if operands[v].kind != TENSOR and operands[v].kind != VALUE:
            nodes += elements_of(&operands[v])
            if operands[v].kind != NUMBER and operands[v].kind != ARRAY:
                words += elements_of(&operands[v])
        constant = constant and is_constant(&operands[v])
    if nodes > MOST_NODES or words > MOST_NODES:
        raise MemoryError(f"flatgrad: an instruction of {nodes} nodes and {words} operands does not fit on "
                          "the tape")
    if give_what == GIVE_TENSOR:
        tensor = new_tensor(rows, cols, ndim, turned, constant or unrecorded())
    elif give_what == GIVE_LIST:
        values = [None] * <Py_ssize_t>(rows * cols)
    while True:
        if tape.n + nodes > tape.room or tape.npool + words > tape.pool_capacity:
            reserve(<fg_id>nodes, <fg_id>words)
        if give_what == GIVE_VALUE:
            handle = new_handle()
            handle.id = 0

        # From here on no Python code is run.
        n, npool = tape.n, tape.npool
        r = fg_block_begin(&tape, param, count, label_count)
        r.k = <fg_id>k
        for v in range(label_count):
            fg_record_extra(r)[v] = <fg_id>labels[v]
        for v in range(count):
            if status == 0:
                status = fill(r, v, &operands[v])
        if status < 0:
            undo(n, npool, handle)
            raise RuntimeError("a list changed while it was read")
        status = fg_block_push(&tape, op, rows, cols, give_what != GIVE_VALUE, NULL, &node)
        if status >= 0:
            break
        if status != FG_E_INTERRUPTED:
            failed(op, param, r, status, node, cols, n, npool, handle)
        undo(n, npool, handle)
        PyErr_CheckSignals()   # and if that does not raise, once more from the start
        status = 0
    if unrecorded():
        node = fg_tape_forget(&tape, n, npool)
    if give_what == GIVE_VALUE:
        return FG_GIVE(fg_give(&tape, handle, node))
    if give_what == GIVE_TENSOR:
        tie_run(tensor.run, node)
        return tensor
    return with_handles(values, node)


cdef object constant_copy(object x):
    """A copy of a Value or Tensor, computed by an instruction through which no gradient flows back."""
    cdef Operand a
    cdef fg_id node
    take("x", x, &a, [])
    copy = instruction_(FG_MAP, FG_COPY, 0, &a, 1, a.rows, a.cols, GIVE_TENSOR if a.ndim else GIVE_VALUE, a.ndim)
    if a.ndim:
        (<Tensor>copy).constant = True
    node = (<Tensor>copy).run.id if a.ndim else (<Value>copy).id
    fg_record_view(fg_tape_record(&tape, node), 0).flags |= FG_VIEW_CONSTANT
    return copy


cdef list with_handles(list values, fg_id node):
    """The list with the results of a new block instruction in it."""
    cdef fg_id k, count = <fg_id>len(values)
    hold_ids()   # until all have their handles
    try:
        for k in range(count):
            values[k] = handle_of(node - count + k)
    finally:
        release_ids()
    return values


cdef void undo(fg_id n, fg_id npool, fg_handle *handle) noexcept:
    tape.n = n
    tape.npool = npool
    if handle != NULL:
        Py_DECREF(<PyObject *>handle)


cdef int failed(int op, fg_id param, fg_record *r, int status, fg_id element, fg_id cols, fg_id n, fg_id npool,
                fg_handle *handle) except -1:
    """The exception for an instruction that could not be computed; constants made for it go."""
    cdef double[3] x = [0.0, 0.0, 0.0]
    cdef double z = 0.0
    cdef fg_view *view
    cdef fg_id v, views = r.views, row = element // cols, col = element % cols
    cdef int32_t k = <int32_t>r.k
    cdef bint single = r.rows == 1
    if op == FG_MAP and status == FG_E_DOMAIN:
        for v in range(views):
            view = fg_record_view(r, v)
            x[v] = tape.data[fg_record_slot(r, view, row if view.rows > 1 else 0, col if view.cols > 1 else 0)]
        status = (fg_op_unary(<int>param, x[0], k, &z) if views == 1
                  else fg_op_binary(<int>param, x[0], x[1], &z) if views == 2
                  else fg_op_ternary(<int>param, x[0], x[1], x[2], &z))
        undo(n, npool, handle)
        numbers = [x[v] for v in range(views)]
        if param == FG_POWI:
            numbers.append(k)
        place = f"[{col}]" if single else f"[{row}, {col}]"
        raise_operation(status, <int>param, tuple(numbers), f" at element {place}")
    undo(n, npool, handle)
    raise_status(status)


cdef int check_shapes(str name, const Operand *operands, fg_id count, fg_id *rows, fg_id *cols,
                      int *ndim) except -1:
    """The shape that operands are broadcast to, by NumPy's rules; ValueError with all shapes."""
    cdef fg_id v
    rows[0] = cols[0] = 1
    ndim[0] = 0
    for v in range(count):
        if (rows[0] != rows_of(&operands[v]) and rows[0] != 1 and rows_of(&operands[v]) != 1
                or cols[0] != cols_of(&operands[v]) and cols[0] != 1 and cols_of(&operands[v]) != 1):
            shapes = [str(shape_of(&operands[k])) for k in range(count)]
            raise ShapeError(f"{name}: shapes {' and '.join(shapes)} do not fit each other")
        if rows_of(&operands[v]) != 1:
            rows[0] = rows_of(&operands[v])
        if cols_of(&operands[v]) != 1:
            cols[0] = cols_of(&operands[v])
        if operands[v].ndim > ndim[0]:
            ndim[0] = operands[v].ndim
    if rows[0] == 0 or cols[0] == 0:
        raise ShapeError(f"{name}: expected at least one element, got shapes "
                         f"{[shape_of(&operands[k]) for k in range(count)]}")
    return 0


def instruction(Value value not None):
    """What a fused Value is made of: (name, operands, parameters), or None for any other Value.

    name and operands: 'layer' (x, w, b), 'map' its operands, 'cross_entropy' (rows,), and reductions and
    softmax (xs,), each a tuple of Values.
    """
    cdef fg_id block = block_of(value.id), v, row, col, at
    cdef int op = fg_tape_op(&tape, block)
    cdef fg_record *r
    if not fg_op_is_block(op):
        return None
    name = fg_op_table[op].name.decode()
    hold_ids()
    try:
        r = fg_tape_record(&tape, block)
        at = value.id - (block - tape.args[block].b)
        row, col = at // r.cols, at % r.cols
        k, param = <int32_t>r.k, <int>r.param
        ids = operand_ids(value.id)
        if op == FG_LAYER:
            bias = handle_of(ids.pop(0)) if r.views > 2 else None
            handles = [handle_of(i) for i in ids]
            activation = None if param == FG_LEAF else fg_op_table[param].name.decode()
            return name, (tuple(handles[1::2]), tuple(handles[0::2]), bias), {"activation": activation}
        handles = [handle_of(i) for i in ids]
        if op == FG_MAP:
            return name, tuple(handles), {"operation": fg_op_table[param].name.decode(), "k": k}
        if op == FG_CROSS_ENTROPY:
            labels = []
            r = fg_tape_record(&tape, block)
            for v in range(r.extra):
                labels.append(fg_record_extra(fg_tape_record(&tape, block))[v])
            width = len(handles) // len(labels)
            rows = tuple([tuple(handles[i * width:(i + 1) * width]) for i in range(len(labels))])
            return name, (rows,), {"labels": tuple(labels)}
        if op == FG_SOFTMAX or op == FG_LOG_SOFTMAX:
            return name, (tuple(handles),), {"index": col}
        return name, (tuple(handles),), {}
    finally:
        release_ids()
