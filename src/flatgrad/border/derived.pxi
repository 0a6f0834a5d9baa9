# derived.pxi: Programs that compute the derivatives of programs.
#
# The derivative of a program takes what the program takes, and gradients of its results; it computes the program anew,
# and returns the gradients of the operands. It is cut out of the nodes that written() appends for those of the program,
# once, and kept with the program. Of a scan there are two: a scan that returns all carries, and a scan of the step's
# derivative, from the last step to the first. Of a batch in lanes it is a batch of the derivative, which returns sums
# over samples where these have an operand in common. What a call draws at random is among its operands, and so is the
# same.
#
# Uses callees, handles, operands, recordings, tape, views, written.

cdef enum:
    MOST_DERIVATIVES = 8   # of one program, for different operands and results


@cython.final
@cython.auto_pickle(False)
cdef class _Derivative:
    """What computes the gradients of a call."""
    cdef _Callee body       # None: no gradient flows
    cdef _Callee carries    # of a scan with a carry: what returns the carries of all steps; else None
    cdef list found         # of each operand with a gradient: its segment, and the first result


cdef extern from *:
    """
    #if defined(_MSC_VER)
    static __declspec(thread) Py_ssize_t fg_building; /* derivatives that are made in this thread, one within another */
    #else
    static _Thread_local Py_ssize_t fg_building;
    #endif
    """
    Py_ssize_t fg_building


# ---- a program as nodes, and nodes as a program ----

cdef Tensor leaves_for(fg_id count):
    """So many new leaves in a row, each 0."""
    cdef Tensor t = new_tensor(1, count, 1, False, False)
    cdef fg_id first
    reserve(count + 1, 0)
    first = fg_tape_push_leaves(&tape, count)
    memset(tape.data + first, 0, count * sizeof(double))
    tie_run(t.run, fg_tape_push_run(&tape, count))
    return t


cdef Tensor mapped_nodes(int op, list operands, fg_id count):
    """A row of ops.def for each of `count` elements. operands: lists of nodes."""
    cdef Tensor t = new_tensor(1, count, 1, False, False)
    cdef fg_id v, k, node = 0, n = <fg_id>len(operands)
    cdef fg_record *r
    cdef int status
    memory = bytearray(<size_t>n * count * sizeof(fg_id))
    cdef fg_id *slots = <fg_id *><char *>memory
    for v in range(n):
        for k in range(count):
            slots[v * count + k] = operands[v][k]
    reserve(count + 1, fg_block_words(n, 0) + n * count)
    r = fg_block_begin(&tape, op, n, 0)
    for v in range(n):
        memcpy(fg_block_ids(r), slots + v * count, count * sizeof(fg_id))
        fg_block_list(r, v, 1, count)
    status = fg_block_push_anyway(&tape, FG_MAP, 1, count, True, &node)
    if status < 0:
        raise_status(status)
    tie_run(t.run, node)
    return t


cdef Tensor copies_of(list ids):
    """Copies of these nodes."""
    return mapped_nodes(FG_COPY, [ids], <fg_id>len(ids))


cdef Tensor expanded(_Body body):
    """The nodes of a program on the tape. Returns its operands, at least one, as a Tensor, whose slot k is node k + 1
    of the program: all others keep their distances."""
    cdef fg_program *p = body.program()
    cdef Tensor t = new_tensor(1, p.area, 1, False, False)
    cdef int64_t base
    reserve(p.body.n, p.body.npool)
    base = fg_program_expand(p, &tape)
    if base < 0:
        raise_status(<int>base)
    tie_run(t.run, <fg_id>base + p.area + 1)
    return t


cdef Tensor part_of(Tensor t, fg_id first, fg_id count):
    """Some of a row, from the first one, counted from 0."""
    return tensor_view(t, t.offset + first, 1, count, <int32_t>count, 1, 1)


cdef _Body cut_out(Value floor, _Body of, list inputs, list ids, list sizes):
    """The program that leads from inputs, (first slot, count) each, to the nodes `ids`, all above the floor. Its
    segments are of these sizes; one below 0 stands for so many holes. It is simplified as `of` is."""
    cdef _Body body = _Body.__new__(_Body)
    cdef fg_program *p
    cdef fg_id *captured = NULL
    cdef fg_stretch *segments
    cdef fg_id n = 0, at = 1
    cut_program(body, floor.id, inputs, ids, &captured)
    p = body.program()
    fg_program_forget(p, captured)
    if p.callee.n_segments != <fg_id>len(inputs):
        raise RuntimeError("the derivative of a program captures a number")
    scratch = bytearray((len(sizes) + 1) * sizeof(fg_stretch))
    segments = <fg_stretch *><char *>scratch
    for size in sizes:
        if size > 0:
            segments[n].first, segments[n].count = at, size
            n += 1
            at += size
        else:
            at += -size
    if fg_program_divide(p, segments, n) < 0:
        raise_status(FG_E_MEMORY)
    simplify_program(body, of.program().steps | FG_SIMPLIFY_SHARED)
    return body


cdef list sizes_of(fg_program *p, fg_id first, fg_id end, fg_id from_place):
    """Those of some segments for cut_out(), with the holes from a place of the area on."""
    cdef list sizes = []
    cdef fg_id k
    for k in range(first, end):
        if p.callee.segments[k].first > from_place:
            sizes.append(-<int64_t>(p.callee.segments[k].first - from_place))
        sizes.append(p.callee.segments[k].count)
        from_place = p.callee.segments[k].first + p.callee.segments[k].count
    return sizes


# ---- derivatives ----

cdef _Derivative of_body(_Body body, bytes wanted, list groups):
    """groups: lists of results, which gradients come of; each is an operand of the derivative."""
    cdef fg_program *p = body.program()
    cdef _Derivative made = _Derivative.__new__(_Derivative)
    cdef Value floor = Value(0.0)
    cdef Tensor operands, seeds
    cdef fg_id k, base
    cdef list results = [], gradients = [], inputs = [], places = [], ids = [], stretches
    made.found = []
    operands = expanded(body)
    base = first_slot(operands) - 1
    stretches = [(base + 1, p.area)]
    for group in groups:
        seeds = leaves_for(<fg_id>len(group))
        results.append(copies_of([base + p.results[k] for k in group]))
        gradients.append(seeds)
        stretches.append((first_slot(seeds), seeds.cols))
    for k in range(p.callee.n_segments):
        if wanted[k]:
            places.append(k)
            inputs.append(part_of(operands, p.callee.segments[k].first - 1, p.callee.segments[k].count))
    for k, gradient in zip(places, written(results, gradients, inputs)):
        if gradient is not None:
            made.found.append((k, len(ids)))
            ids.extend(slots_in_order(gradient))
    if made.found:
        sizes = sizes_of(p, 0, p.callee.n_segments, 1)
        last = p.callee.segments[p.callee.n_segments - 1]
        if last.first + last.count <= p.area:
            sizes.append(-<int64_t>(p.area + 1 - last.first - last.count))
        made.body = cut_out(floor, body, stretches, ids, sizes + [len(group) for group in groups])
    return made


cdef _Derivative of_lanes(_Lanes lanes, bytes wanted, bytes reached):
    """reached: of each group of results."""
    cdef _Derivative made
    cdef fg_id k, n = 0, at = 0, n_samples = fg_lanes_samples(lanes.lanes())
    cdef const fg_group *groups = fg_lanes_groups(lanes.lanes(), &n)
    cdef const uint8_t *varies = fg_lanes_varies(lanes.lanes())
    cdef _Body body = <_Body>callee_object(<fg_callee *>fg_lanes_program(lanes.lanes()))
    cdef list chosen = [k for k in range(n) if reached[k]], found = [], counts = []
    made = of_body(body, wanted, [list(range(groups[k].first, groups[k].first + groups[k].count)) for k in chosen])
    if made.body is None:
        return made
    for k, _ in made.found:
        count = body.callee.segments[k].count
        found.append((k, at))
        counts.append(count if varies[k] else -<int64_t>count)
        at += count * (n_samples if varies[k] else 1)
    made.found = found
    varying = [varies[k] != 0 for k in range(lanes.callee.n_segments)] + [not groups[k].summed for k in chosen]
    made.body = lanes_of(<_Body>made.body, tuple(varying), n_samples, tuple(counts), 0,
                         fg_lanes_is_single(lanes.lanes()))
    return made


cdef _Body carrying(_Body step, fg_id n_carry):
    """The step of the scan that returns each carry: that which it begins with."""
    cdef fg_program *p = step.program()
    cdef Value floor = Value(0.0)
    cdef Tensor operands
    cdef fg_id k, base
    operands = expanded(step)
    base = first_slot(operands) - 1
    ids = [base + p.results[k] for k in range(n_carry)] + [base + 1 + k for k in range(n_carry)]
    return cut_out(floor, step, [(base + 1, p.area)], ids, sizes_of(p, 0, p.callee.n_segments, 1))


cdef _Derivative of_scan(_Scan scan, bytes wanted, bytes reached):
    """reached: whether any number of the last carry is, and of each output. The operands of the scan that goes back:
    the gradient of the carry, sums of gradients of what is the same at each step; all carries, x and gradients of
    outputs; what is the same at each step."""
    cdef fg_scan *s = scan.scan()
    cdef fg_program *p = s.step
    cdef _Body step = <_Body>callee_object(&p.callee)
    cdef _Derivative made = _Derivative.__new__(_Derivative)
    cdef Value floor = Value(0.0)
    cdef _Scan body
    cdef Tensor operands, seeds, total
    cdef fg_id k, base, at = s.n_carry, n_carry = s.n_carry, same = s.carries + s.xs, n_segments = p.callee.n_segments
    cdef fg_id first = n_carry + s.n_x, carries = 0
    cdef list results = [], gradients = [], inputs = [], places = [], ids = [], parts = []
    cdef list stretches = [], back = [], of_xs = []
    made.found = []
    operands = expanded(step)
    base = first_slot(operands) - 1
    if n_carry > 0:
        gradients.append(leaves_for(n_carry))
        results.append(copies_of([base + p.results[k] for k in range(n_carry)]))
        inputs.append(part_of(operands, 0, n_carry))
    for k in range(s.parts):
        if reached[k + 1]:
            seeds = leaves_for(s.sizes[k])
            gradients.append(seeds)
            parts.append(seeds)
            results.append(copies_of([base + p.results[at + j] for j in range(s.sizes[k])]))
        at += s.sizes[k]
    for k in range(s.carries, n_segments):
        if wanted[k]:
            places.append(k)
            inputs.append(part_of(operands, p.callee.segments[k].first - 1, p.callee.segments[k].count))
    found = written(results, gradients, inputs)
    if n_carry > 0:
        ids = slots_in_order(leaves_for(n_carry) if found[0] is None else found[0])
        stretches.append((first_slot(gradients[0]), n_carry))
        back.append(n_carry)
        at = 0
        for k in range(s.carries):
            if wanted[k] and found[0] is not None:
                made.found.append((k, at))
            at += p.callee.segments[k].count
    for k, gradient in zip(places, found[n_carry > 0:]):
        if gradient is None:
            continue
        if k < same:
            of_xs.append((k, slots_in_order(gradient)))
            continue
        total = leaves_for(p.callee.segments[k].count)
        made.found.append((k, len(ids)))
        ids += slots_in_order(mapped_nodes(FG_ADD, [slots_in_order(total), slots_in_order(gradient)], total.cols))
        stretches.append((first_slot(total), total.cols))
        back.append(total.cols)
    at, carries = <fg_id>len(ids), <fg_id>len(back)
    for k, slots in of_xs:
        made.found.append((k, at))
        ids += slots
        at += <fg_id>len(slots) * s.length
    if not made.found:
        return made
    if n_carry > 0:
        stretches.append((base + 1, n_carry))
        back.append(n_carry)
    if s.n_x > 0:
        stretches.append((base + 1 + n_carry, s.n_x))
        back += sizes_of(p, s.carries, same, n_carry + 1)
    for seeds in parts:
        stretches.append((first_slot(seeds), seeds.cols))
        back.append(seeds.cols)
    if p.area > first:
        stretches.append((base + 1 + first, p.area - first))
        back += sizes_of(p, same, n_segments, first + 1)
    step = cut_out(floor, step, stretches, ids, back)
    made.body = body = _Scan.__new__(_Scan)
    scan_body(body, step, s.length, carries, (n_carry > 0) + s.xs + <fg_id>len(parts),
              tuple([len(slots) for _, slots in of_xs]), not s.backwards, s.checkpoint)
    if n_carry > 0:
        made.carries = body = _Scan.__new__(_Scan)
        scan_body(body, carrying(<_Body>callee_object(&p.callee), n_carry), s.length, s.carries, s.xs, (n_carry,),
                  s.backwards, s.checkpoint)
    return made


# ---- rules ----

cdef bint calls_deep(fg_callee *c):
    """Whether the derivative of a program takes that of one without its rule."""
    cdef fg_program *p
    cdef fg_id k
    if fg_callback_is(c):
        return False
    p = (<fg_scan *>c).step if c.steps == &fg_scan_steps else (
        fg_lanes_program(<fg_lanes *>c) if fg_lanes_is(c) else <fg_program *>c)
    if p.gives != NULL:
        return p.is_deep
    for k in range(p.body.n_programs):
        if p.body.programs[k].callee != NULL and calls_deep(p.body.programs[k].callee):
            return True
    return False


cdef _Derivative of_rule(_Body body, bytes wanted):
    cdef fg_program *p = body.program()
    cdef _Derivative made = _Derivative.__new__(_Derivative)
    cdef fg_id k
    made.found = [(k, p.gives[k] - 1) for k in range(p.callee.n_segments) if wanted[k] and p.gives[k] > 0]
    if p.is_deep or calls_deep(&p.rule.callee):
        raise ArgumentTypeError(
            "custom_derivative: within a recorded function, one whose rule calls its own function has at most 4 "
            "derivatives. Write the rule with other operations of flatgrad")
    if made.found:
        made.body = callee_object(&p.rule.callee)
    return made


cdef _Derivative derivative_of(_Callee callee, bytes wanted, bytes reached):
    """The one of a program for these operands and results, made if there is none. Meanwhile numbers of nodes mean
    nothing, and calls are not computed."""
    global fg_building
    cdef _Derivative found
    cdef fg_id k
    if callee.derivatives is None:
        callee.derivatives = {}
    key = wanted, reached
    found = callee.derivatives.get(key)
    if found is None:
        fg_building += 1
        try:
            if type(callee) is _Scan:
                found = of_scan(<_Scan>callee, wanted, reached)
            elif type(callee) is _Lanes:
                found = of_lanes(<_Lanes>callee, wanted, reached)
            elif (<_Body>callee).program().gives != NULL:
                found = of_rule(<_Body>callee, wanted)
            else:
                found = of_body(<_Body>callee, wanted, [[k for k in range(callee.callee.n_results) if reached[k]]])
        finally:
            fg_building -= 1
        if len(callee.derivatives) >= MOST_DERIVATIVES:
            callee.derivatives.pop(next(iter(callee.derivatives)), None)
        callee.derivatives[key] = found
    return found
