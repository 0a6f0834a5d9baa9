# rules.pxi: Programs whose derivatives are given by rules, which are programs themselves.
#
# They are cut out of one recording, of what a function and its rule do. Gradients go by the rule from then on, as
# numbers and as nodes; see derived.pxi.
#
# Uses callees, derived, messages, operands, programs, tape.

cdef int set_rule(_Body body, _Body rule, tuple gives) except -1:
    """See fg_program_set_rule(). rule: or None."""
    scratch = bytearray((len(gives) + 1) * sizeof(fg_id))
    for k in range(len(gives)):
        (<fg_id *><char *>scratch)[k] = gives[k]
    if fg_program_set_rule(body.program(), NULL if rule is None else rule.program(), <fg_id *><char *>scratch) < 0:
        raise_status(FG_E_MEMORY)
    return 0


cdef bint is_rule_of(_Body body, _Body rule, object gives):
    """Whether the rule has the operands and the results for that program."""
    cdef fg_callee *c = body.callee
    cdef fg_callee *r
    cdef fg_id k
    if not are_ints(gives, <Py_ssize_t>c.n_segments):
        return False
    if rule is None:
        return True
    r = rule.callee
    if r == NULL or r.n_segments != c.n_segments + 1 or r.segments[c.n_segments].count != c.n_results:
        return False
    for k in range(c.n_segments):
        if r.segments[k].count != c.segments[k].count or gives[k] > 0 and (
                gives[k] - 1 + <int64_t>c.segments[k].count > <int64_t>r.n_results):
            return False
    return True


def _restore_ruled(forward, _Body rule, gives):
    """The program that _Body.__reduce__ describes. forward: what _restore_body() takes. Raises ValueError for anything
    else."""
    cdef _Body body
    if type(forward) is not tuple or len(forward) != 3:
        damaged("a program with a rule has no body")
    body = _restore_body(*forward)
    if not is_rule_of(body, rule, gives):
        damaged(f"a program has another rule, which gives {describe(gives)}")
    set_rule(body, rule, gives)
    return body


restore_ruled = _restore_ruled


def _ruled(_Program program not None, operands, results, places):
    """For our modules: a program whose derivative is given by a rule.

    Parameters
    ----------
    program : _Program
        Computes both: from operands, gradients of the results, one for each, and what else it is called with, first the
        results, and then gradients of operands. It is not needed any more.
    operands, results : int
        How many there are.
    places : tuple of int, or None
        Which operands these gradients are of. None: there is no rule, and no gradients of results are taken; then
        nobody is to ask for gradients.

    Returns
    -------
    _Program
        Takes no gradients, and returns the results alone.
    """
    cdef _Program made = _Program.__new__(_Program)
    cdef _Body body, forward, rule = None
    cdef fg_program *p
    cdef Value floor
    cdef Tensor t
    cdef fg_id k, base, first, after, n, seeds, numbers = 0, at = 1
    cdef list stretches, sizes
    if (type(program.body) is not _Body or not are_ints((operands, results), -1) or operands == 0 or results == 0
            or places is not None and not are_ints(places, -1)):
        raise ArgumentError(f"expected a recorded program and its form, got {(operands, results, places)}")
    n, seeds = operands, 0 if places is None else results
    if n + seeds > <fg_id>len(program.shapes) or len(program.results) != results + len(places or ()):
        raise ArgumentError(f"expected {n + seeds} inputs and {results + len(places or ())} results, got "
                            f"{len(program.shapes)} and {len(program.results)}")
    floor = Value(0.0)
    body = <_Body>program.body
    p = body.program()
    t = expanded(body)
    hold_ids()
    try:
        base = first_slot(t) - 1
        first = p.callee.segments[n - 1].first + p.callee.segments[n - 1].count
        after = first
        for k in range(n, n + seeds):
            after += p.callee.segments[k].count
        stretches = [(base + 1, first - 1)]
        sizes = [p.callee.segments[k].count for k in range(n)] + sizes_of(p, n + seeds, p.callee.n_segments, after)
        if p.area >= after:
            stretches.append((base + after, p.area + 1 - after))
        for shape, _ in program.results[:results]:
            numbers += <fg_id>size_of_shape(shape)
        forward = cut_out(floor, body, stretches, [base + p.results[k] for k in range(numbers)], sizes)
        if seeds:
            rule = cut_out(floor, body, stretches + [(base + first, after - first)],
                           [base + p.results[k] for k in range(numbers, p.callee.n_results)], sizes + [after - first])
    finally:
        release_ids()
    gives = [0] * forward.callee.n_segments
    for place in places or ():
        if not place < n or gives[place]:
            raise ArgumentError(f"places: expected different ones of {n} operands, got {places}")
        gives[place] = at
        at += forward.callee.segments[place].count
    set_rule(forward, rule, tuple(gives))
    made.copy_pieces(program)
    fill_program(made, forward, program.captured, program.shapes[:n] + program.shapes[n + seeds:],
                 tuple([(shape, False) for shape, _ in program.results[:results]]),
                 tuple([place for place in program.signs if place < first]))
    return made
