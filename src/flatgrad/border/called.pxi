# called.pxi: Derivatives of calls, as nodes: calls of the programs that compute them.
#
# Uses callees, derived, handles, instructions, tape, written.

cdef fg_id push_call(fg_writing *w, _Callee callee, const fg_term *x) except 0:
    """Append the call with these operands, one for each segment, of which some may be FG_VIEW_CONSTANT. Returns the
    slot of its first result."""
    cdef fg_callee *c = callee.callee
    cdef fg_record *r
    cdef fg_id k, n, npool, node = 0
    cdef uint64_t words = fg_block_words(c.n_segments, 0)
    cdef int status
    cdef size_t count
    zeros = bytes(c.n_results * sizeof(double)) if fg_building else None
    for k in range(c.n_segments):
        if x[k].view.flags & FG_VIEW_LIST:
            words += <uint64_t>x[k].view.rows * x[k].view.cols
    if words > MOST_NODES:
        raise MemoryError(f"flatgrad: a call of {words} operands does not fit on the tape")
    while True:
        reserve(c.n_results + 1, <fg_id>words)
        n, npool = tape.n, tape.npool
        r = fg_block_begin(&tape, callee.place, c.n_segments, 0)
        for k in range(c.n_segments):
            if x[k].view.flags & FG_VIEW_LIST:
                count = <size_t>x[k].view.rows * x[k].view.cols
                memcpy(fg_block_ids(r), x[k].ids, count * sizeof(fg_id))
                fg_block_list(r, k, x[k].view.rows, x[k].view.cols)
            else:
                fg_block_view(r, k, x[k].view)
            if x[k].view.flags & FG_VIEW_CONSTANT or not c.steps.wants(c, k):
                fg_record_view(r, k).flags |= FG_VIEW_CONSTANT
        if zeros is None:
            status = fg_block_push_anyway(&tape, FG_CALL, 1, c.n_results, True, &node)
        else:
            status = fg_block_push(&tape, FG_CALL, 1, c.n_results, True, <const double *><const char *>zeros, &node)
        if status >= 0:
            return node - c.n_results
        undo(n, npool, NULL)
        if status != FG_E_INTERRUPTED:
            call_failed(c, status)
        PyErr_CheckSignals()


cdef fg_term row_of(fg_id first, fg_id count) noexcept:
    cdef fg_term x
    x.view, x.ids = fg_view(0, first, 1, count, <int32_t>count, 1), NULL
    return x


cdef fg_term seeds_of(fg_writing *w, fg_term x) noexcept:
    """The gradients of some results, with 0 where there is none."""
    cdef fg_term g = fg_term_of_gradients(w, &x) if fg_write_has_any(w, &x) else fg_write_number(w, 0.0)
    return fg_term_full(w, g, x.view.rows, x.view.cols)


cdef fg_id numbers_of(const fg_lanes *lanes, const fg_group *group) noexcept:
    """How many results a call has of a group."""
    return group.count * (1 if group.summed else fg_lanes_samples(lanes))


cdef bytes reached_of(fg_writing *w, _Callee callee, fg_id first):
    """For each result of a call, or each group of a batch or of a scan, whether it has a gradient."""
    cdef fg_id k, j, n = callee.callee.n_results, at = 0, size
    cdef const fg_group *groups
    cdef list sizes = []
    if type(callee) is _Scan:
        sizes = [(<_Scan>callee).scan().n_carry]
        for k in range((<_Scan>callee).scan().parts):
            sizes.append((<_Scan>callee).scan().sizes[k] * (<_Scan>callee).scan().length)
    elif type(callee) is _Lanes:
        groups = fg_lanes_groups((<_Lanes>callee).lanes(), &n)
        sizes = [numbers_of((<_Lanes>callee).lanes(), &groups[k]) for k in range(n)]
    elif (<_Body>callee).program().gives != NULL:
        return b"\1" * n   # the rule takes all
    found = bytearray(len(sizes) if sizes else n)
    if not sizes:
        for k in range(n):
            found[k] = fg_write_has(w, first + k)
    for k, size in enumerate(sizes):
        for j in range(at, at + size):
            if fg_write_has(w, first + j):
                found[k] = True
                break
        at += size
    return bytes(found)


cdef int seed_terms(fg_writing *w, _Callee callee, bytes reached, fg_id first, fg_term *x) except -1:
    """The gradients of what is reached of the results, in groups; how many groups. Of a scan without the last carry."""
    cdef fg_id k, n = 0, at = first, count
    cdef fg_id *ids
    cdef fg_scan *s
    cdef fg_term chosen
    cdef const fg_group *groups
    cdef int found = 0
    if type(callee) is _Scan:
        s = (<_Scan>callee).scan()
        at += s.n_carry
        for k in range(s.parts):
            count = s.sizes[k] * s.length
            if reached[k + 1]:
                x[found] = seeds_of(w, row_of(at, count))
                found += 1
            at += count
    elif type(callee) is _Lanes:
        groups = fg_lanes_groups((<_Lanes>callee).lanes(), &n)
        for k in range(n):
            count = numbers_of((<_Lanes>callee).lanes(), &groups[k])
            if reached[k]:
                x[found] = seeds_of(w, row_of(at, count))
                found += 1
            at += count
    else:
        memory = bytearray(callee.callee.n_results * sizeof(fg_id))
        ids = <fg_id *><char *>memory
        for k in range(callee.callee.n_results):
            if reached[k]:
                ids[n] = first + k
                n += 1
        chosen.view, chosen.ids = fg_view(FG_VIEW_LIST, 0, 1, n, 0, 0), ids
        x[0] = seeds_of(w, chosen)
        found = 1
    return found


cdef int write_call(fg_writing *w, fg_id node) except -1:
    """Give gradients to the operands of a call."""
    cdef fg_id k, n, at = 0, first, n_segments
    cdef fg_record *r = fg_tape_record(&tape, node)
    cdef fg_callee *c = fg_tape_callee(&tape, r)
    cdef _Callee callee = callee_object(c)
    cdef _Derivative found
    cdef fg_scan *s
    cdef fg_term *x
    cdef fg_term *y
    cdef fg_term *z
    cdef fg_term g
    cdef bint any = False
    n_segments, first = c.n_segments, node - c.n_results
    memory = bytearray((5 * n_segments + c.n_results + 8) * sizeof(fg_term))
    x = <fg_term *><char *>memory
    y = x + n_segments
    wanted = bytearray(n_segments)
    for k in range(n_segments):
        r = fg_tape_record(&tape, node)
        x[k] = fg_term_of_view(w, r, fg_record_view(r, k))
        wanted[k] = (fg_record_view(r, k).flags & FG_VIEW_CONSTANT == 0 and c.steps.wants(c, k)
                     and fg_write_wants_any(w, &x[k]))
        any = any or wanted[k]
    if w.status < 0 or not any:
        return 0
    reached = reached_of(w, callee, first)
    found = derivative_of(callee, bytes(wanted), reached)
    if found.body is None:
        return 0
    memcpy(y, x, n_segments * sizeof(fg_term))
    for k in range(n_segments):
        y[k].view.flags |= fg_record_view(fg_tape_record(&tape, node), k).flags & FG_VIEW_CONSTANT
    z = y + n_segments
    if type(callee) is _Scan:
        s = (<_Scan>callee).scan()
        n = 0
        if s.n_carry > 0:
            z[n] = seeds_of(w, row_of(first, s.n_carry))
            n += 1
        for k, _ in found.found:
            if k >= s.carries + s.xs:
                z[n] = fg_term_full(w, fg_write_number(w, 0.0), 1, c.segments[k].count)
                n += 1
        if s.n_carry > 0 and w.status == 0:
            at = push_call(w, found.carries, y)
            z[n] = row_of(at + s.n_carry, s.length * s.n_carry)
            n += 1
        for k in range(s.carries, s.carries + s.xs):
            z[n] = y[k]
            n += 1
        n += seed_terms(w, callee, reached, first, z + n)
        for k in range(s.carries + s.xs, n_segments):
            z[n] = y[k]
            n += 1
    else:
        memcpy(z, y, n_segments * sizeof(fg_term))
        n = n_segments + seed_terms(w, callee, reached, first, z + n_segments)
    if w.status < 0:
        return 0
    if n != found.body.callee.n_segments:
        raise RuntimeError("the derivative of a program has other operands")
    at = push_call(w, found.body, z)
    for k, first in found.found:
        g.view = fg_view(0, at + first, x[k].view.rows, x[k].view.cols, <int32_t>x[k].view.cols, 1)
        g.ids = NULL
        fg_write_give(w, &x[k], g)
    return 0


answer_call = write_call
