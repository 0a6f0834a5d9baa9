# sweeps.pxi: Backward passes from one node, and the operands of a node as objects.
#
# A sweep stops for users' rules and for Ctrl-C; whatever these do, other sweeps among it, does not harm it. Where it
# runs and what it adds is the core's (csrc/sweep.c).
#
# Uses attributes, contexts, handles, tape.

cdef unsigned long whole_tape = 0   # the thread, if any, that has put the gradients of the whole tape aside


cdef list operand_ids(fg_id i):
    """The operands of node i, those that _prev and _children do not show as well. While ids stay."""
    cdef fg_id count = fg_block_operands(&tape, i, NULL, NULL), k
    scratch = bytearray((count + 1) * sizeof(fg_id))
    ids = <fg_id *><char *>scratch
    fg_block_operands(&tape, i, ids, NULL)
    return [ids[k] for k in range(count)]


cdef list parents_of(Value self):
    """The Values that _prev and _children show, in order and as often as they were used."""
    cdef int shown = fg_op_table[fg_tape_op(&tape, self.id)].parents
    cdef Py_ssize_t k
    cdef list found = []
    if FG_UNLIKELY(recordings != 0):
        fg_refuse_stand_in(self.id, "what is before it (_prev, _children)")
    hold_ids()
    try:
        ids = operand_ids(self.id)
        for k, i in enumerate(ids if shown < 0 else ids[:shown]):
            listen(k)
            found.append(handle_of(i))
        return found
    finally:
        release_ids()


cdef tuple partials_of(fg_id i):
    """The derivatives of node i by each of operand_ids(i). While ids stay."""
    cdef fg_id count, k
    scratch = bytearray((fg_block_operands(&tape, i, NULL, NULL) + 1) * sizeof(double))
    partials = <double *><char *>scratch
    count = fg_block_operands(&tape, i, NULL, partials)
    return tuple([partials[k] for k in range(count)])


cdef int run_hook(fg_id i) except -1:
    """Run the backward rule that a user gave to node i, at which a sweep has stopped."""
    cdef Value node = handle_of(i)
    cdef dict extra = extra_of(node)
    global fg_rules
    if extra is not None and "_backward" in extra:   # unless it was part of a released cycle and has come back
        fg_rules += 1
        try:
            extra["_backward"]()
        finally:
            fg_rules -= 1
    return 0


cdef int sweep_from(fg_id i) except -1:
    """A sweep from node i. Whatever rules and other threads do while it pauses, other sweeps among it, does not
    harm it."""
    global sweep_pauses
    cdef fg_sweep *sweep = fg_sweep_begin(&tape, i)
    cdef int state
    if sweep == NULL:
        raise_status(FG_E_MEMORY)
    state = fg_sweep_run(&tape, sweep, sweep_words)
    if state == FG_SWEEP_DONE:
        return 0
    try:
        while state != FG_SWEEP_DONE:
            if state == FG_SWEEP_HOOK:
                run_hook(sweep.hook)
            else:
                sweep_pauses += 1
                PyErr_CheckSignals()
            state = fg_sweep_run(&tape, sweep, sweep_words)
    except BaseException:
        fg_sweep_cancel(&tape, sweep)
        if tape.dead != NULL:
            drain()
        raise
    return 0
