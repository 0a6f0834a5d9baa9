# instructions.pxi: One instruction for many results: all of it is appended, or nothing.
#
# instruction_() makes room and fills in what `take` has converted; a failure leaves the tape as it was, and the
# message names the element. Which shapes an operation asks for is known to the rooms that offer it.
#
# Uses anomaly, contexts, handles, messages, operands, python, scalars, sweeps, tape, views.

cdef enum:
    GIVE_VALUE, GIVE_LIST, GIVE_TENSOR


cdef object instruction_(int op, fg_id param, int32_t k, Operand *operands, fg_id count, fg_id rows, fg_id cols,
                         int give_what, int ndim, bint turned=False, const int64_t *labels=NULL,
                         fg_id label_count=0):
    """Make a block instruction; its results as a Value, a list of Values or a Tensor. Within scalar_graph(), its graph
    of single nodes, and for a Tensor their copies."""
    cdef uint64_t nodes = <uint64_t>rows * cols + 1, words = fg_block_words(count, label_count)
    cdef fg_id v, n, npool, node = 0
    cdef fg_handle *handle = NULL
    cdef fg_record *r
    cdef Tensor tensor = None
    cdef list values
    cdef int status = 0
    cdef bint constant = True
    if in_scalar_graph() and param != FG_COPY:
        made = scalar_rows(op, param, k, operands, count, rows, cols, labels, label_count)
        if turned:
            made = [list(column) for column in zip(*made)]
        if give_what == GIVE_TENSOR and ndim == 2:
            return Tensor(made)
        values = [item for row in made for item in row]
        return values[0] if give_what == GIVE_VALUE else values if give_what == GIVE_LIST else Tensor(values)
    for v in range(count):
        if operands[v].kind != TENSOR and operands[v].kind != VALUE:
            nodes += elements_of(&operands[v])
            if operands[v].kind != NUMBER and operands[v].kind != ARRAY:
                words += elements_of(&operands[v])
        constant = constant and (is_constant(&operands[v]) or (op == FG_TAKE and v == 1))
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
        if op == FG_TAKE:   # no gradient flows to positions
            fg_record_view(r, 1).flags |= FG_VIEW_CONSTANT
        status = fg_block_push(&tape, op, rows, cols, give_what != GIVE_VALUE, NULL, &node)
        if status >= 0:
            break
        if status != FG_E_INTERRUPTED:
            failed(op, param, r, status, node, cols, n, npool, handle)
        undo(n, npool, handle)
        PyErr_CheckSignals()   # and if that does not raise, once more from the start
        status = 0
    if FG_UNLIKELY(fg_no_grads != 0):
        node = looked_at(n, npool, node, handle)
    if give_what == GIVE_VALUE:
        return FG_GIVE(fg_give(&tape, handle, node))
    if give_what == GIVE_TENSOR:
        tie_run(tensor.run, node)
        return tensor
    return with_handles(values, node)


cdef Tensor tensor_of(const Operand *a, bint constant):
    """A Tensor of its own with an operand's elements, of at least one dimension."""
    cdef Operand copied = a[0]
    cdef Tensor made
    if a.kind == ARRAY:
        return leaf_tensor(a, constant)
    copied.ndim = a.ndim if a.ndim > 0 else 1
    made = instruction_(FG_MAP, FG_COPY, 0, &copied, 1, a.rows, a.cols, GIVE_TENSOR, copied.ndim)
    made.constant = constant or is_constant(a)
    return made


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
    if op == FG_TAKE and status == FG_E_INDEX:
        x[0] = tape.data[fg_record_slot(r, fg_record_view(r, 1), 0, element)]
        views = fg_record_view(r, 0).cols if r.k == FG_TAKE_EACH else fg_record_view(r, 0).rows
        undo(n, npool, handle)
        raise_position(x[0], views)
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
    """What a fused Value is made of, as scalar.instruction() takes it, or None for any other Value.

    (name, operands, parameters, index): each operand a tuple of rows of Values, as far as they reach it; the parameters
    by name; which of the results of a softmax it is, and 0 for any other instruction.
    """
    cdef fg_id block = block_of(value.id), col, k
    cdef int op = fg_tape_op(&tape, block)
    cdef fg_record *r
    cdef bint biased
    if not fg_op_is_block(op) or op == FG_TAKE:   # which is a single operation already
        return None
    name = fg_op_table[op].name.decode()
    hold_ids()
    try:
        r = fg_tape_record(&tape, block)
        col = (value.id - (block - tape.args[block].b)) % r.cols
        biased = r.views > 2
        parameters = {}
        if op == FG_MAP or op == FG_LAYER:
            parameters["operation"] = None if r.param == FG_LEAF else fg_op_table[r.param].name.decode()
        if op == FG_MAP:
            parameters["k"] = <int32_t>r.k
        if op == FG_CROSS_ENTROPY:
            parameters["labels"] = tuple([fg_record_extra(r)[k] for k in range(r.extra)])
        handles = [handle_of(i) for i in operand_ids(value.id)]
        if op == FG_LAYER:
            b = ([handles.pop(0)],) if biased else ()
            operands = (handles[1::2], handles[0::2], *b)
        elif op == FG_MAP:
            operands = [[x] for x in handles]
        elif op == FG_CROSS_ENTROPY:
            width = len(handles) // len(parameters["labels"])
            return name, (tuple([tuple(handles[k:k + width]) for k in range(0, len(handles), width)]),), parameters, 0
        else:
            operands = (handles,)
        return (name, tuple([(tuple(x),) for x in operands]), parameters,
                col if op == FG_SOFTMAX or op == FG_LOG_SOFTMAX else 0)
    finally:
        release_ids()
