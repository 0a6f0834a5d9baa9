# sweeps.pxi: Backward passes from one node, and the operands of a node as objects.
#
# A sweep stops for users' rules and for Ctrl-C; whatever these do, other sweeps among it, does not harm it. Where it
# runs and what it adds is the core's (csrc/sweep.c).
#
# Uses attributes, contexts, handles, python, tape.

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


cdef tuple (*partials_of_callback)(fg_id i)   # of a result of a call that Python computes: callbacks.pxi


cdef tuple partials_of(fg_id i):
    """The derivatives of node i by each of operand_ids(i). While ids stay."""
    cdef fg_id count, k
    if fg_callback_at(&tape, block_of(i)) != NULL:
        return partials_of_callback(i)
    scratch = bytearray((fg_block_operands(&tape, i, NULL, NULL) + 1) * sizeof(double))
    partials = <double *><char *>scratch
    count = fg_block_operands(&tape, i, NULL, partials)
    return tuple([partials[k] for k in range(count)])


# What does that at the calls that Python computes, and by one result of such a call, if node i is one: callbacks.pxi.
cdef int (*run_callback)(fg_id i) except -1
cdef int (*run_callback_of)(fg_id i) except -1


cdef int run_hook(fg_id i) except -1:
    """Run the backward rule that a user gave to node i, at which a sweep has stopped."""
    cdef Value node
    cdef dict extra
    global fg_rules
    if fg_callback_at(&tape, i) != NULL:
        return run_callback(i)
    node = handle_of(i)
    extra = extra_of(node)
    if extra is not None and "_backward" in extra:   # unless it was part of a released cycle and has come back
        fg_rules += 1
        try:
            extra["_backward"]()
        finally:
            fg_rules -= 1
    return 0


cdef object autograd_module = None


cdef object autograd():
    """Our module for what is seldom asked of a backward pass."""
    global autograd_module
    if autograd_module is None:
        from flatgrad import autograd as autograd_module
    return autograd_module


cdef int refuse_put_aside() except -1:
    """An error if gradients that a backward pass adds to now become again what they were."""
    if whole_tape != 0 and whole_tape != PyThread_get_thread_ident():
        raise RuntimeError("backward(): another thread is within a transform of a graph with _backward rules of "
                           "its own, after which gradients become again what they were")
    return 0


cdef inline int sweep_from(fg_id i) except -1:
    """A sweep from node i, whose gradient becomes 1. Whatever rules and other threads do while it pauses, other sweeps
    among it, does not harm it."""
    return run_sweep(fg_sweep_begin(&tape, i))


# The same within detect_anomaly(), from blame.pxi; NOT_WATCHED if that is not around us.
cdef int (*watched_sweep)(fg_sweep *sweep, bint aside) except -1

cdef enum:
    SWEPT = 0
    STOPPED = 1
    NOT_WATCHED = 2


cdef int paused(bint aside) except -1:
    """At a pause of a sweep: STOPPED if it is to end here, because Ctrl-C has been pressed while other gradients are
    put aside. Only then no Python code is run: what a handler, a finalizer or a callback of the collector adds to
    gradients would be taken for the sweep's."""
    global sweep_pauses
    sweep_pauses += 1
    if aside:
        return STOPPED if stop_wanted() else SWEPT
    PyErr_CheckSignals()   # since Python 3.12 it runs the collector as well
    return SWEPT


cdef int run_sweep(fg_sweep *sweep, bint aside=False) except -1:
    """SWEPT or STOPPED: a sweep that has begun; NULL: for want of memory it has not. aside: other gradients are put
    aside, and no rule of a user's is reached."""
    cdef int state, done
    if sweep == NULL:
        raise_status(FG_E_MEMORY)
    state = fg_sweep_run(&tape, sweep, sweep_words)
    if state == FG_SWEEP_DONE:
        return SWEPT
    if sweep_words == 0:
        done = watched_sweep(sweep, aside)
        if done != NOT_WATCHED:
            return done
    try:
        while state != FG_SWEEP_DONE:
            if state == FG_SWEEP_HOOK:
                run_hook(sweep.hook)
            elif paused(aside) == STOPPED:
                fg_sweep_cancel(&tape, sweep)
                return STOPPED
            state = fg_sweep_run(&tape, sweep, chosen_words)
    except BaseException:
        fg_sweep_cancel(&tape, sweep)
        if tape.dead != NULL:
            drain()
        raise
    return SWEPT
