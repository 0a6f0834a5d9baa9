# visits.pxi: A backward pass node by node, and where nodes come from, for those who draw them.
#
# Uses anomaly, contexts, handles, python, sweeps, tape, touched.

cdef int visit_node(fg_id i) except -1:
    """Add to the gradients of node i's operands by its rule, hook or no hook. While its id stays."""
    cdef size_t done = 0
    cdef int (*stop)() noexcept
    if fg_callback_at(&tape, block_of(i)) != NULL:
        return run_callback_of(i)
    if tape.op[i] & FG_HOOK:
        return run_hook(i)
    stop = tape.stop
    tape.stop = NULL   # Ctrl-C waits for one node
    fg_sweep_apply(&tape, i, &done)
    tape.stop = stop
    return 0


cdef list visited_from(Touched *touched):
    """(node, operands, gradients that the operands have then) for each node that a pass from the output visits, the
    newest first. Gradients are 0 at first."""
    cdef fg_id output = touched.slots[0], i, j, k
    cdef uint64_t mask
    cdef list found = [], ids, order = []
    cdef set marked = {output}
    cdef int op
    for k in range(touched.count):
        mask = touched.masks[k]
        while mask:
            i = touched.words[k] * 64 + <fg_id>fg_bits_top(mask)
            mask ^= <uint64_t>1 << (i & 63)
            order.append(i)
    touched_save(touched)   # which may widen `touched` to the whole tape
    touched_clear(touched)
    tape.grad[output] = 1.0
    for i in order:
        op = fg_tape_op(&tape, i)
        if i not in marked or op == FG_FROZEN or fg_op_is_leaf(op) and not tape.op[i] & FG_HOOK:
            continue
        ids = operand_ids(i)
        marked.update(ids)
        visit_node(i)
        found.append((handle_of(i), tuple([handle_of(j) for j in ids]), tuple([tape.grad[j] for j in ids])))
    return found


def _visits(Value output not None):
    """For viz: what output.backward() does if all gradients are 0 before, node by node. Gradients stay as they were.

    A list of (node, its operands, the gradients that the operands have after the visit), the newest node first. Results
    of one instruction are visited one by one, so gradients may differ from those of backward() in the last digits.
    """
    cdef Touched touched = Touched(0, False, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, NULL)
    cdef unsigned long outer = whole_tape
    global whole_tape
    guard(output.id, "backward()")
    try:
        touched_find(&touched, (output,), 1, (), 0, FG_FLOWN_TO)
        if touched.hooked:
            refuse_put_aside()
            whole_tape = PyThread_get_thread_ident()
        return visited_from(&touched)
    finally:
        whole_tape = outer
        touched_restore(&touched)
        touched_free(&touched)
        if tape.dead != NULL:
            drain()


def _origins(list values not None):
    """For viz: (a number that is larger for newer nodes, the place of the line that made it or None) for each Value."""
    cdef list found = []
    hold_ids()
    try:
        for value in values:
            found.append(((<Value?>value).id, place_of_node((<Value>value).id)))
        return found
    finally:
        release_ids()
