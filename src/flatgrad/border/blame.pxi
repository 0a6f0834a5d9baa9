# blame.pxi: The rule that first made a gradient nan or inf, or the step a parameter, while detect_anomaly() is on.
#
# A pass runs as always. Then the first node, in its order, whose gradient is nan or inf has got that from a node above
# it with a finite gradient: their rules are done once more, one by one, and all gradients stay. Rules of users, which
# can be run once only, are looked at when they have run.
#
# Uses anomaly, handles, operands, parameters, python, sweeps, tape.

cdef bint is_in_run(fg_id i) noexcept:
    """Whether a leaf is one of those that a run keeps."""
    cdef fg_id k = i + 1
    while k < tape.n and fg_op_is_leaf(fg_tape_op(&tape, k)):
        k += 1
    return k < tape.n and fg_tape_op(&tape, k) == FG_RUN and tape.args[k].b >= k - i


cdef bint is_bad(fg_id i) noexcept:
    """Whether node i has a gradient of nan or inf that anybody can see, or that flows on."""
    cdef int op = fg_tape_op(&tape, i)
    if isfinite(tape.grad[i]) or op == FG_FROZEN:
        return False
    return not fg_op_is_leaf(op) or fg_tape_holder(&tape, i) != NULL or is_in_run(i)


cdef fg_id *reached_by(fg_sweep *sweep, fg_id *count, fg_id *n_outputs) except NULL:
    """The nodes that a sweep that has just begun will reach, the highest first, and behind them its outputs; to be
    freed."""
    cdef size_t words = (<size_t>tape.n + 63) // 64, w, n = 0
    cdef fg_id found = 0, k, bit
    cdef int hooked = 0
    cdef uint64_t mask
    cdef fg_id *ids = <fg_id *>PyMem_Malloc(2 * <size_t>tape.n * sizeof(fg_id))
    cdef fg_id *places = <fg_id *>PyMem_Malloc(words * sizeof(fg_id))
    cdef uint64_t *masks = <uint64_t *>PyMem_Malloc(words * sizeof(uint64_t))
    if ids == NULL or places == NULL or masks == NULL:
        PyMem_Free(ids)
        PyMem_Free(places)
        PyMem_Free(masks)
        raise MemoryError()
    for w in range(<size_t>sweep.marks.lowest << 6, words):
        mask = sweep.marks.word[w]
        while mask:
            bit = <fg_id>fg_bits_low(mask)
            ids[tape.n + n] = <fg_id>(w * 64) + bit
            n += 1
            mask &= mask - 1
    for k in range(fg_sweep_reach(&tape, ids + tape.n, n, FG_FLOWN_TO, places, masks, &hooked) if n else 0):
        mask = masks[k]
        while mask:
            bit = <fg_id>fg_bits_top(mask)
            ids[found] = places[k] * 64 + bit
            found += 1
            mask ^= <uint64_t>1 << bit
    memcpy(ids + found, ids + tape.n, n * sizeof(fg_id))
    PyMem_Free(places)
    PyMem_Free(masks)
    count[0], n_outputs[0] = found, <fg_id>n
    return ids


cdef int sweep_looked_at(fg_sweep *sweep, bint aside) except -1:
    """run_sweep(), and the error for the first gradient of nan or inf in it."""
    cdef fg_id *ids = NULL
    cdef fg_id count = 0, n_outputs = 0, at = 0, end, k
    cdef int state = -1
    hold_ids()
    try:
        ids = reached_by(sweep, &count, &n_outputs)
        for k in range(count):
            if is_bad(ids[k]):
                raise_before(ids[k], [ids[count + j] for j in range(n_outputs)])
        while state != FG_SWEEP_DONE:
            state = fg_sweep_run(&tape, sweep, chosen_words)
            if state == FG_SWEEP_DONE or state == FG_SWEEP_HOOK:
                end = sweep.hook if state == FG_SWEEP_HOOK else 0
                while at < count and ids[at] >= end:   # nobody adds to their gradients any more
                    if is_bad(ids[at]):
                        raise_gradient(ids[at], ids, at)
                    at += 1
            if state == FG_SWEEP_HOOK:
                run_rule_looked_at(sweep.hook)
            elif state != FG_SWEEP_DONE and paused(aside) == STOPPED:
                return STOPPED
    finally:
        if state != FG_SWEEP_DONE:
            fg_sweep_cancel(&tape, sweep)
        PyMem_Free(ids)
        release_ids()
    return SWEPT


cdef int watch_sweep(fg_sweep *sweep, bint aside) except -1:
    return sweep_looked_at(sweep, aside) if is_watched() else NOT_WATCHED


watched_sweep = watch_sweep


cdef int raise_before(fg_id i, list outputs) except -1:
    raise anomaly().before(handle_of(i), tape.grad[i], i in outputs, facts_of(i))


cdef int run_rule_looked_at(fg_id i) except -1:
    """run_hook(), and an error if it makes a gradient nan or inf of one of the node's operands."""
    cdef fg_callback *c = fg_callback_at(&tape, i)
    cdef fg_id part = i - tape.args[i].b if c != NULL else i, k, j
    cdef list operands = [j for j in operand_ids(part) if not is_bad(j)]
    run_hook(i)
    for j in operands:
        if is_bad(j):
            rule = extra_at(i).get("_rule") if c != NULL else extra_at(i).get("_backward")
            raise anomaly().from_rule(handle_of(j), tape.grad[j], tape.grad[part], rule, facts_of(part),
                                      place_of_node(j), operand_ids(part).index(j))
    return 0


cdef dict extra_at(fg_id i):
    cdef fg_id *owner = tape.owner[i]
    if not fg_owner_is_box(owner) or fg_owner_box(owner).extra == NULL:
        return {}
    return <dict>fg_owner_box(owner).extra


cdef double given_by(fg_id user, fg_id i, fg_id *k) except? -1.0:
    """What the rule of one node has added to the gradient of its operand i, done once more; k: the number of that
    operand. 0 if it is none. All gradients stay."""
    cdef fg_id count = fg_block_operands(&tape, user, NULL, NULL), n
    cdef size_t done = 0
    cdef double *saved
    cdef double found = 0.0
    cdef bint among = False
    cdef int (*stop)() noexcept
    cdef fg_id *ids = <fg_id *>PyMem_Malloc((count + 1) * sizeof(fg_id))
    if ids == NULL:
        raise MemoryError()
    saved = <double *>PyMem_Malloc((count + 1) * sizeof(double))
    if saved == NULL:
        PyMem_Free(ids)
        raise MemoryError()
    fg_block_operands(&tape, user, ids, NULL)
    for n in range(count):
        if ids[n] == i and not among:
            k[0], among = n, True
    if among:
        for n in range(count):
            saved[n] = tape.grad[ids[n]]
        for n in range(count):
            tape.grad[ids[n]] = 0.0
        stop = tape.stop
        tape.stop = NULL   # Ctrl-C has to wait
        fg_sweep_apply(&tape, user, &done)
        tape.stop = stop
        found = tape.grad[i]
        for n in range(count):
            tape.grad[ids[n]] = saved[n]
    PyMem_Free(ids)
    PyMem_Free(saved)
    return found


cdef int raise_gradient(fg_id i, fg_id *ids, fg_id at) except -1:
    """The error for the first gradient of nan or inf: the rule of which user has made it?"""
    cdef fg_id n, user, k = 0
    cdef double given
    cdef int op
    for n in range(at):
        user = ids[n]
        op = fg_tape_op(&tape, user)
        if fg_op_is_leaf(op) or tape.op[user] & FG_HOOK or fg_callback_at(&tape, block_of(user)) != NULL:
            continue
        given = given_by(user, i, &k)
        if not isfinite(given):
            raise anomaly().from_operation(handle_of(i), given, tape.grad[user], facts_of(user), place_of_node(i), k)
    raise anomaly().summed(handle_of(i), tape.grad[i], facts_of(i))


# ---- optimizers ----

cdef int raise_stepped(fg_id i, Py_ssize_t group, Py_ssize_t number, double lr) except -1:
    """The error for a parameter that a step has made nan or inf."""
    cdef double grad = fg_tape_gradient(&tape, i)[0], data = tape.data[i]
    hold_ids()
    try:
        node = handle_of(i)
    finally:
        release_ids()
    line = line_here()
    raise anomaly().stepped(node, data, grad, lr, group, number, noted[line])


cdef int look_at_parameters(list several, list groups) except -1:
    """Within detect_anomaly(): an error for a parameter that a step has made nan or inf."""
    cdef Parameters one
    cdef Py_ssize_t offset, length, k, group, number
    cdef fg_id i
    if not is_watched():
        return 0
    for group in range(len(several)):
        one = several[group]
        for first, offset, length, _ in one.stretches:
            for k in range(length):
                i = first_slot(first) + <fg_id>(offset + k)
                if isfinite(tape.data[i]):
                    continue
                hold_ids()
                try:
                    number = [i in slots_of(value) for value in one.values].index(True)
                    raise_stepped(i, group, number, (<dict>groups[group])["lr"])
                finally:
                    release_ids()
    return 0


look_at_step = look_at_parameters
