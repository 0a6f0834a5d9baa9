# written.pxi: Derivatives as nodes, which can be differentiated again.
#
# The sweep that writes them is csrc/written.c. While it runs ids stay; it stops at calls of programs and at nodes with
# rules of users, which are answered here.
#
# Uses anomaly, attributes, derivatives, handles, messages, numbers, operands, tape, touched, views.

cdef int seed_outputs(fg_writing *w, tuple outs, const fg_id *slots, tuple grads) except -1:
    """Give the outputs their gradients: nodes, or 1 where there is None."""
    cdef Py_ssize_t at = 0, count, k
    cdef fg_view view = fg_view(0, 0, 0, 0, 0, 0)
    for n, item in enumerate(outs):
        count = (<Tensor>item).rows * (<Tensor>item).cols if type(item) is Tensor else 1
        if grads[n] is not None and type(grads[n]) is Tensor:
            view = view_of(<Tensor>grads[n])
        for k in range(count):
            if grads[n] is None:
                fg_write_seed(w, slots[at + k], 0)
            elif type(grads[n]) is Tensor:
                fg_write_seed(w, slots[at + k], pick_slot(&view, <fg_id>k))
            else:
                fg_write_seed(w, slots[at + k], (<Value>grads[n]).id)
        at += count
    return 0


cdef int (*answer_call)(fg_writing *w, fg_id block) except -1   # gives gradients to the operands of a call: called.pxi


cdef int (*answer_callback)(fg_writing *w, fg_id block) except -1   # of a call that Python computes: callbacks.pxi


cdef str shown_node(fg_id i):
    """A node as an error names it."""
    cdef Value node = handle_of(i)
    label = make_extra(node).get("label", "")
    return (f"Value(data={tape.data[node.id]}, _op={node._op!r}"
            + (f", label={label!r})" if type(label) is str and label else ")"))


cdef int answer_rule(fg_writing *w, fg_id i) except -1:
    """A node with a rule of a user's: it adds numbers, whose derivatives nobody knows."""
    cdef dict extra = extra_of(handle_of(i))
    if extra is None or "_backward" not in extra:   # it was part of a released cycle, and has come back
        return 0
    raise ArgumentTypeError(f"the derivative of the gradient of {shown_node(i)} is not known: the node has a _backward "
                            "rule of its own, which adds numbers. Compute it by operations of flatgrad, or by a "
                            "function with flatgrad.custom_derivative")


cdef int answer_stop(fg_writing *w, int stopped) except -1:
    """Go on at a node whose rule is not the core's."""
    if stopped == FG_WRITE_CALL and fg_callback_at(&tape, w.node) != NULL:
        return answer_callback(w, w.node)
    if stopped == FG_WRITE_CALL:
        return answer_call(w, w.node)
    if stopped == FG_WRITE_HOOK:
        return answer_rule(w, w.node)
    assert stopped == FG_WRITE_LOCAL
    raise ArgumentTypeError(f"the derivative of the gradient of {shown_node(w.node)} is not known: the node was made "
                            "with local gradients, which are numbers. Compute it by operations of flatgrad, or by a "
                            "function with flatgrad.custom_derivative")


cdef object written_for(fg_writing *w, object item, const fg_id *slots):
    """The gradient of an input as a Value or Tensor of its shape; None if there is none."""
    cdef fg_term g
    cdef fg_id i
    cdef Tensor made
    if type(item) is not Tensor:
        i = fg_write_gradient(w, slots[0])
        if i == 0:
            return None
        if i < w.end or fg_tape_holder(&tape, i) != NULL:   # another Value: a factor of a product, another gradient
            reserve(1, 0)
            i = fg_tape_push(&tape, FG_COPY, i, 0, tape.data[i])
        return handle_of(i)
    g = fg_write_copied(w, view_of(<Tensor>item))
    if w.status < 0:
        raise_status(w.status)
    if g.view.base == 0:
        return None
    made = new_tensor(g.view.rows, g.view.cols, (<Tensor>item).ndim, False, False)
    tie_run(made.run, g.view.base + tape.args[g.view.base].a)
    return made


def written(outputs, grad_outputs, inputs):
    """The gradients of the sum of the outputs by the inputs, as nodes.

    Parameters
    ----------
    outputs, inputs : iterable of Value and Tensor
        An input need not be a leaf.
    grad_outputs : iterable of Value, Tensor and None
        For each output a factor of its shape, differentiable itself; None is 1.

    Returns
    -------
    list of Value, Tensor and None
        For each input its gradient, of its type and shape: the result of operations on the nodes that it was computed
        from. None where no output depends on the input.

    Raises
    ------
    TypeError, ValueError
        If there is something else in an argument, or an input does not require a gradient.
    KeyboardInterrupt
        If interrupted in a long instruction.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad._core import written
    >>> x = Value(2.0)
    >>> (slope,) = written([x**3], [None], [x])
    >>> (curvature,) = written([slope], [None], [x])
    >>> slope.data, curvature.data
    (12.0, 12.0)
    """
    cdef tuple outs = tuple(to_list("outputs", "Values and Tensors", outputs))
    cdef tuple grads = tuple(to_list("grad_outputs", "Values, Tensors and None", grad_outputs))
    cdef tuple ins = tuple(to_list("inputs", "Values and Tensors", inputs))
    cdef Py_ssize_t n_outputs = count_numbers("outputs", outs), n_inputs = count_numbers("inputs", ins), at
    cdef fg_writing w
    cdef int stopped
    cdef list found = []
    check_wanted(ins)
    if len(grads) != len(outs):
        raise ValueError(f"grad_outputs: expected {len(outs)}, one for each output, got {len(grads)}")
    for k, item in enumerate(grads):
        if item is not None and (type(item) is Tensor) != (type(outs[k]) is Tensor):
            raise TypeError(f"grad_outputs[{k}]: expected a {type(outs[k]).__name__}, got {describe(item)}")
        if type(item) is Tensor and (<Tensor>item).shape != (<Tensor>outs[k]).shape:
            raise ShapeError(f"grad_outputs[{k}]: expected the shape {outs[k].shape} of the output, got {item.shape}")
    if n_outputs == 0:
        return [None] * len(ins)
    memory = bytearray((n_outputs + n_inputs + 1) * (sizeof(fg_id) + 1))
    cdef fg_id *slots = <fg_id *><char *>memory
    cdef uint8_t *constant = <uint8_t *>(slots + n_outputs + n_inputs + 1)
    hold_ids()
    try:
        write_slots(outs, slots, constant)
        write_slots(ins, slots + n_outputs, constant + n_outputs)
        if fg_write_begin(&w, &tape, slots, n_outputs, slots + n_outputs, n_inputs) < 0:
            raise_status(FG_E_MEMORY)
        try:
            seed_outputs(&w, outs, slots, grads)
            while True:
                stopped = fg_write_run(&w)
                if stopped == FG_WRITE_DONE:
                    break
                if stopped == FG_E_INTERRUPTED:
                    PyErr_CheckSignals()
                    raise KeyboardInterrupt
                if stopped < 0:
                    raise_status(stopped)
                answer_stop(&w, stopped)
            at = n_outputs
            if FG_UNLIKELY(fg_no_grads != 0):
                look_at_nodes(w.end, tape.n, "backward")
            for item in ins:
                found.append(written_for(&w, item, slots + at))
                at += (<Tensor>item).rows * (<Tensor>item).cols if type(item) is Tensor else 1
        finally:
            fg_write_end(&w)
        return found
    finally:
        release_ids()
