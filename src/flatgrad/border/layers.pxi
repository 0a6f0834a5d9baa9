# layers.pxi: Layers of neurons as single instructions, several in one go.
#
# Sample and weights are looked at first, and room is made; then ids and pointers are read, and no Python code runs
# any more. Whatever is not plain is called neuron by neuron.
#
# Uses anomaly, contexts, handles, instructions, neurons, numbers, operands, products, python, tape, value_type, views.

cdef enum:
    MOST_LAYERS = 32   # that one call of forward() makes instructions of in one go


cdef struct Plan:
    PyObject *neurons   # a list of exactly that type
    fg_id nin, nout
    int code


cdef bint plan_layer(object neurons, Plan *plan):
    """Look at a layer: 1 if it may be one instruction. No Python code."""
    cdef Weights n
    if type(neurons) is not list or len(<list>neurons) == 0 or not isinstance((<list>neurons)[0], Weights):
        return False
    n = <Weights>(<list>neurons)[0]
    if not calls(n, neuron_call) or n.kept is None or not rule_is_ours(n.code):
        return False
    plan.neurons = <PyObject *>neurons
    plan.nin = <fg_id>PySequence_Fast_GET_SIZE(n.kept)
    plan.nout = <fg_id>PySequence_Fast_GET_SIZE(neurons)
    plan.code = n.code
    return plan.nin > 0


cdef bint fill_layer(fg_record *r, const Plan *plan) noexcept:
    """Enter weights and biases as views 1 and 2: 1 if each neuron is as plain as the first, and all lie in
    order. No Python code."""
    cdef PyObject **neurons = PySequence_Fast_ITEMS(<object>plan.neurons)
    cdef PyTypeObject *tp
    cdef Weights n
    cdef fg_id j, w, b, first_w = 0, first_b = 0
    cdef int64_t step_w = plan.nin, step_b = 1
    if (PySequence_Fast_GET_SIZE(<object>plan.neurons) != plan.nout   # changed since plan_layer() saw it
            or not isinstance(<object>neurons[0], Weights) or not calls(<object>neurons[0], neuron_call)):
        return False
    tp = Py_TYPE(neurons[0])
    for j in range(plan.nout):
        if Py_TYPE(neurons[j]) != tp:
            return False
        n = <Weights>neurons[j]
        if (n.code != plan.code or not is_current(n) or PySequence_Fast_GET_SIZE(n.kept) != plan.nin
                or not lies_in_order(n) or type(n.bias) is not Value):
            return False
        w = (<fg_handle *>PySequence_Fast_ITEMS(n.kept)[0]).id
        b = (<fg_handle *><PyObject *>n.bias).id
        if j == 0:
            first_w, first_b = w, b
        elif j == 1:
            step_w, step_b = <int64_t>w - first_w, <int64_t>b - first_b
            # Rows must not overlap, and what lies between them stays alive with them.
            if not (plan.nin <= step_w <= 2 * <int64_t>plan.nin + 8 and 0 < step_b <= 2 * <int64_t>plan.nin + 8):
                return False
        elif w != first_w + j * step_w or b != first_b + j * step_b:
            return False
    fg_block_view(r, 1, fg_view(0, first_w, plan.nout, plan.nin, <int32_t>step_w, 1))
    fg_block_view(r, 2, fg_view(0, first_b, 1, plan.nout, <int32_t>plan.nout, <int32_t>step_b))
    return True


cdef fg_view results_of(fg_id node, fg_id rows, fg_id cols) noexcept:
    """All results of a block instruction."""
    return fg_view(0, node - rows * cols if tape.args[node].b else node, rows, cols, <int32_t>cols, 1)


cdef int push_activation(int code, fg_id rows, fg_id cols, bint parts, fg_id *node) noexcept:
    """Append the activation of *node's results, and make it *node. A status. No Python code."""
    cdef fg_id views = <fg_id>fg_op_table[code].arity
    cdef fg_record *r = fg_block_begin(&tape, <fg_id>code, views, 0)
    fg_block_view(r, 0, results_of(node[0], rows, cols))
    if views > 1:
        fg_block_view(r, 1, fg_view(FG_VIEW_CONSTANT, fg_tape_push_leaf(&tape, fg_op_table[code].second), 1, 1, 1, 1))
    return fg_block_push(&tape, FG_MAP, rows, cols, parts, NULL, node)


cdef object run_plans(Plan *plans, Py_ssize_t count, object x, bint batch):
    """The layers, one instruction each, if that is possible without a closer look; else NotImplemented."""
    cdef Operand a
    cdef list keep
    cdef uint64_t nodes = 0, words = 0
    cdef Py_ssize_t l
    cdef fg_id rows, n, npool, node = 0
    cdef fg_record *r
    cdef fg_handle *handle = NULL
    cdef Tensor tensor = None
    cdef list values = None
    cdef bint single
    cdef int status = 0
    if not take_plain(x, &a):
        keep = []
        take("x", x, &a, keep)
    if not a.exact or a.ndim == 0 or a.cols != plans[0].nin or a.rows == 0:
        return NotImplemented
    rows = a.rows
    for l in range(count):
        if l > 0 and plans[l].nin != plans[l - 1].nout:
            return NotImplemented
        nodes += <uint64_t>rows * plans[l].nout + 1
        words += fg_block_words(3, 0)
        if not fg_op_table[plans[l].code].fused:
            nodes += <uint64_t>rows * plans[l].nout + 2
            words += fg_block_words(2, 0)
    if a.kind != TENSOR:
        nodes += elements_of(&a)
        words += elements_of(&a)
    if nodes > MOST_NODES or words > MOST_NODES:
        raise MemoryError(f"x: a layer over {rows} samples does not fit on the tape")
    single = not batch and plans[count - 1].nout == 1
    if batch:
        tensor = new_tensor(rows, plans[count - 1].nout, a.ndim, False, unrecorded())
    elif not single:
        values = [None] * <Py_ssize_t>plans[count - 1].nout
    if tape.n + nodes > tape.room or tape.npool + words > tape.pool_capacity:
        reserve(<fg_id>nodes, <fg_id>words)
    if single:
        handle = new_handle()
        handle.id = 0

    # From here on no Python code is run.
    n, npool = tape.n, tape.npool
    for l in range(count):
        r = fg_block_begin(&tape, <fg_id>(plans[l].code if fg_op_table[plans[l].code].fused else FG_LEAF), 3, 0)
        if not fill_layer(r, &plans[l]):
            undo(n, npool, handle)
            return NotImplemented
        if l > 0:
            fg_block_view(r, 0, results_of(node, rows, plans[l].nin))
        elif fill(r, 0, &a) < 0:
            undo(n, npool, handle)
            raise RuntimeError("x: the list changed while it was read")
        status = fg_block_push(&tape, FG_LAYER, rows, plans[l].nout, not (single and l == count - 1), NULL,
                               &node)
        if status == 0 and not fg_op_table[plans[l].code].fused:
            status = push_activation(plans[l].code, rows, plans[l].nout, not (single and l == count - 1), &node)
        if status < 0:
            undo(n, npool, handle)
            raise_status(status)
    if FG_UNLIKELY(fg_no_grads != 0):
        node = looked_at(n, npool, node, handle)
    if single:
        return FG_GIVE(fg_give(&tape, handle, node))
    if batch:
        tie_run(tensor.run, node)
        return tensor
    return with_handles(values, node)


cdef object samples_of(object x, bint *several):
    """A module's input, read once: several samples as they are, or as an array; one as a list or tuple."""
    several[0] = False
    if (type(x) is list and PySequence_Fast_GET_SIZE(x) > 0
            and Py_TYPE(PySequence_Fast_ITEMS(x)[0]) == <PyTypeObject *>Value):
        return x   # most often
    several[0] = isinstance(x, Tensor)
    if several[0]:
        return x
    if isinstance(x, (list, tuple)):
        x = plain_sequence(x)
        several[0] = len(x) > 0 and is_row(x[0])
        return x
    refuse_lost("x", x)
    if has_array(x):   # a data frame, too
        x = np_asarray(x)
        several[0] = x.ndim == 2
        return x if several[0] else one_sample(x.tolist())
    return [x] if isinstance(x, Value) else one_sample(x)   # a layer of one neuron gives a Value


cdef bint are_plain(list neurons) except -1:
    """Whether all are Neurons with Values for weights, of one length above 0, and of one activation."""
    cdef Weights n
    for neuron in neurons:
        if not isinstance(neuron, Weights) or not calls(neuron, neuron_call):
            return False
        n = <Weights>neuron
        if (not rule_is_ours(n.code) or not (is_current(n) or see(n) == 1) or type(n.bias) is not Value
                or n.code != (<Weights>neurons[0]).code or len(n.kept) != len((<Weights>neurons[0]).kept)):
            return False
    return len((<Weights>neurons[0]).kept) > 0


def layer_forward(neurons not None, x):
    """The neurons' outputs for a sample, a list of Values or the only one, or for a batch, a Tensor.

    As one instruction if they are Neurons with Values as weights; else each neuron is called.
    """
    cdef Plan plan
    cdef bint batch
    x = samples_of(x, &batch)
    if not in_scalar_graph() and plan_layer(neurons, &plan):
        result = run_plans(&plan, 1, x, batch)
        if result is not NotImplemented:
            return result
    # A closer look.
    neurons = list(neurons)
    if not neurons:
        return []
    if not in_scalar_graph() and are_plain(neurons):
        check_width(x, len((<Weights>neurons[0]).kept))
        if plan_layer(neurons, &plan):
            result = run_plans(&plan, 1, x, batch)
            if result is not NotImplemented:
                return result
        if not only_values(x):   # a subclass may have operators of its own
            return [neuron(x) for neuron in neurons] if len(neurons) > 1 else neurons[0](x)
        result = layer_("x", x, [(<Weights>neuron).kept for neuron in neurons],
                        [(<Weights>neuron).bias for neuron in neurons], (<Weights>neurons[0]).code,
                        ("x", "w", "b"), GIVE_TENSOR if batch else GIVE_LIST)
        return result[0] if not batch and len(neurons) == 1 else result
    if not batch:
        out = [neuron(x) for neuron in neurons]
        return out[0] if len(out) == 1 else out
    if isinstance(x, Tensor) and x.ndim == 1:
        return Tensor([neuron(list(x)) for neuron in neurons])
    rows = [[item for item in row] if is_row(row) else row for row in (x.tolist() if is_ndarray(x) else x)]
    return Tensor([[neuron(row) for neuron in neurons] for row in rows])


cdef int check_width(object x, Py_ssize_t nin) except -1:
    """ValueError unless the samples are nin wide."""
    width = x.shape[-1] if hasattr(x, "shape") else len(x[0]) if len(x) > 0 and is_row(x[0]) else len(x)
    if width != nin:
        raise ShapeError(f"x: expected {nin} inputs, one for each weight, got {width}")
    return 0


def network_forward(list layers not None, x):
    """The output of Layers one after the other, or NotImplemented if they have to be called."""
    cdef Plan[MOST_LAYERS] plans
    cdef Py_ssize_t count = len(layers), l
    cdef list keep = []
    cdef bint batch
    if in_scalar_graph() or not 0 < count <= MOST_LAYERS:
        return NotImplemented
    for l in range(count):
        layer = layers[l]
        if not calls(layer, layer_call) or not layer.fused or layer.then is not None:
            return NotImplemented
        neurons = layer.neurons
        keep.append(neurons)
        if not plan_layer(neurons, &plans[l]):
            return NotImplemented
    if not (isinstance(x, (list, tuple, Tensor)) or has_array(x)):
        return NotImplemented   # it may be readable once only, and that is for the first layer to do
    x = samples_of(x, &batch)
    return run_plans(plans, count, x, batch)
