# listings.pxi: Programs as lists of instructions, for those who write them in another language.
#
# A listing is plain data of Python: nothing in it leads back to the program, which may go.
#
# Uses callees, derived, elementwise, handles, messages, numbers, operands, programs, recordings, tape, written.

cdef tuple listed_view(fg_record *r, fg_view *v):
    """(rows, columns, first slot, slots from row to row, from column to column, None, whether no gradient flows); or
    the slots row by row in place of None."""
    cdef fg_id k
    cdef fg_id *ids
    cdef bint constant = (v.flags & FG_VIEW_CONSTANT) != 0
    if v.flags & FG_VIEW_LIST:
        ids = <fg_id *>r + v.base
        return v.rows, v.cols, 0, 0, 0, tuple([ids[k] for k in range(v.rows * v.cols)]), constant
    return v.rows, v.cols, v.base, v.row_step, v.col_step, None, constant


cdef tuple listed_block(fg_tape *t, fg_id i, int op):
    cdef fg_record *r = fg_tape_record(t, i)
    cdef fg_id k, parts = t.args[i].b
    cdef object callee = callee_object(fg_tape_callee(t, r)) if op == FG_CALL else None
    cdef str param = fg_op_table[<int>r.param].id.decode() if op == FG_MAP or op == FG_LAYER else ""
    views = tuple([listed_view(r, fg_record_view(r, k)) for k in range(r.views)])
    labels = tuple([fg_record_extra(r)[k] for k in range(r.extra)]) if op == FG_CROSS_ENTROPY else ()
    return (fg_op_table[op].id.decode(), i - parts, r.rows, r.cols, param, <int32_t>r.k if op != FG_CALL else 0, views,
            labels, callee)


cdef tuple listed_node(fg_tape *t, fg_id i, int op):
    """A single operation: its operands are slots."""
    cdef fg_id k, a = t.args[i].a, b = t.args[i].b
    cdef int32_t immediate = 0
    cdef int arity = fg_op_table[op].arity
    if fg_op_is_pooled(op):
        operands = tuple([t.pool[a + k] for k in range(b)])
    elif arity == 1:
        operands, immediate = (a,), <int32_t>b
    else:
        operands = (a, b)
    return fg_op_table[op].id.decode(), i, 1, 1, "", immediate, operands, (), None


cdef dict listed_body(_Body body):
    cdef fg_program *p = body.program()
    cdef fg_tape *t = &p.body
    cdef fg_id i, k
    cdef int op
    cdef dict constants = {}
    cdef list instructions = []
    for i in range(p.area + 1, t.n):
        op = fg_tape_op(t, i)
        if op == FG_LEAF or op == FG_FROZEN:
            constants[i] = t.data[i]
        elif fg_op_is_block(op):
            instructions.append(listed_block(t, i, op))
        elif op != FG_PART and op != FG_RUN:
            instructions.append(listed_node(t, i, op))
    found = {"kind": "body", "area": p.area, "nodes": t.n, "constants": constants, "instructions": instructions,
             "results": tuple([p.results[k] for k in range(p.callee.n_results)])}
    if p.gives != NULL:
        found["rule"] = None if p.rule == NULL else callee_object(&p.rule.callee)
        found["gives"] = tuple([p.gives[k] for k in range(p.callee.n_segments)])
    return found


def _listed(_Callee callee not None):
    """What a program, a scan or a batch in lanes consists of.

    Returns
    -------
    dict
        ``kind``: "body", "scan" or "lanes", or "callback" for what Python computes; ``segments``: (first slot, how
        many) of its operands, slots counted from 1; ``n_results``.

        Of a body: ``area``: the slots of its operands are 1 to that; ``nodes``: all slots are below that;
        ``constants``: the number of each slot that has one; ``instructions``, in order, as (the row's ID, first slot of
        the results, rows, columns, ID of the row that a layer or a map applies, the immediate, operands, labels, what a
        call calls): operands of a single operation are slots, and of others views, see `listed_view`; ``results``:
        slots. With a rule for its gradients, ``rule`` and ``gives``.

        Of a scan: ``step``, ``length``, how many segments ``carries`` and ``xs`` there are, of ``n_carry`` and ``n_x``
        numbers a step, ``sizes`` of the outputs, and whether it goes ``backwards``.

        Of lanes: the ``program`` of one sample, which segments it ``varies``, the number of ``samples``, and ``groups``
        of results as (first, how many, whether they are summed over the samples).
    """
    cdef fg_scan *s
    cdef fg_lanes *l
    cdef fg_callee *c = callee.callee
    cdef fg_id k, count = 0
    cdef const fg_group *groups
    if c == NULL:
        raise RuntimeError("a program is made by a recording")
    if type(callee) is _Body:
        found = listed_body(<_Body>callee)
    elif type(callee) is _Scan:
        s = (<_Scan>callee).scan()
        found = {"kind": "scan", "step": callee_object(&s.step.callee), "length": s.length, "carries": s.carries,
                 "xs": s.xs, "n_carry": s.n_carry, "n_x": s.n_x, "backwards": bool(s.backwards),
                 "sizes": tuple([s.sizes[k] for k in range(s.parts)])}
    elif type(callee) is _Lanes:
        l = (<_Lanes>callee).lanes()
        groups = fg_lanes_groups(l, &count)
        found = {"kind": "lanes", "program": callee_object(<fg_callee *>fg_lanes_program(l)),
                 "varies": tuple([bool(fg_lanes_varies(l)[k]) for k in range(c.n_segments)]),
                 "samples": fg_lanes_samples(l),
                 "groups": tuple([(groups[k].first, groups[k].count, bool(groups[k].summed)) for k in range(count)])}
    else:
        found = {"kind": "callback"}
    found["segments"] = tuple([(c.segments[k].first, c.segments[k].count) for k in range(c.n_segments)])
    found["n_results"] = c.n_results
    return found


def _callee(_Program program not None):
    """What a program computes, without what it captures. Its first segments are the inputs, and the others are what is
    captured, number by number as `_captured_numbers` has it."""
    if program.body is None:
        raise RuntimeError("a program is made by a recording")
    return program.body


def _captured_numbers(_Program program not None):
    """The numbers that a program has captured, as they are now, and which of them take gradients.

    Returns
    -------
    (list of float, list of bool)
    """
    slots = captured_slots(program)
    return ([tape.data[<fg_id>i] for i in slots],
            [used and fg_tape_op(&tape, <fg_id>i) == FG_LEAF for i, used in zip(slots, captured_used(program))])


def _captured_places(_Program program not None, leaves):
    """Where the numbers of leaves are among those that a program has captured.

    Parameters
    ----------
    leaves : iterable of Value and Tensor

    Returns
    -------
    list of int
        For each number of each leaf its place, counted from 0, or -1.
    """
    cdef list items = to_list("leaves", "Values and Tensors", leaves)
    count_numbers("leaves", items)
    hold_ids()
    try:
        places = {slot: k for k, slot in enumerate(captured_slots(program))}
        return [places.get(slot, -1) for x in items for slot in slots_in_order(x)]
    finally:
        release_ids()


def _first_repeated(leaves):
    """The place of the first of some Values and Tensors that has a number which one before it has, or itself twice;
    -1 for none."""
    cdef list items = to_list("leaves", "Values and Tensors", leaves)
    cdef set seen = set()
    count_numbers("leaves", items)
    hold_ids()
    try:
        for k, x in enumerate(items):
            for slot in slots_in_order(x):
                if slot in seen:
                    return k
                seen.add(slot)
    finally:
        release_ids()
    return -1


def _moves():
    """How often a Value has become another node's handle, or was frozen, or no longer: as long as that is equal,
    `_captured_places` and `_captured_numbers` say the same but for the numbers."""
    return handle_moves


def _captured_frozen(_Program program not None):
    """Of each number that a program has captured, whether no gradient flows to it as to a leaf."""
    return [fg_tape_op(&tape, <fg_id>i) != FG_LEAF for i in captured_slots(program)]


cdef list captured_slots(_Program program):
    cdef fg_id k, e
    cdef Py_ssize_t j
    cdef Piece *p
    cdef list found = []
    if program.body is None:
        raise RuntimeError("a program is made by a recording")
    for k in range(program.n_inputs, program.n_segments):
        for j in range(program.begins[k - program.n_inputs], program.begins[k - program.n_inputs + 1]):
            p = &program.pieces[j]
            for e in range(p.count):
                found.append(first_of(program.captured[p.which]) + p.offset + e)
    return found


cdef list captured_used(_Program program):
    """Of each number that is captured, whether gradients flow to it."""
    cdef fg_id k, i
    cdef fg_program *p = (<_Body>program.body).program()
    cdef list found = []
    for k in range(program.n_inputs, program.n_segments):
        for i in range(p.callee.segments[k].first, p.callee.segments[k].first + p.callee.segments[k].count):
            found.append(bool(p.used[i >> 6] >> (i & 63) & 1))
    return found


def _with_gradients(_Body body not None, wanted, bint seeds=False):
    """The program that returns what a program does and then the gradients of operands.

    Parameters
    ----------
    body : _Body
        Of one result; or with `seeds`.
    wanted : list of bool
        Of each segment, whether its gradient is.
    seeds : bool, optional
        True: it has a segment more, with the gradients of all results. False: the gradient of the result is 1.

    Returns
    -------
    (_Body, list of (int, int))
        For each segment with a gradient: that, and the first of its results. It is simplified as `body` is.
    """
    global fg_building
    cdef fg_program *p = body.program()
    cdef Value floor = Value(0.0)
    cdef Tensor operands, given
    cdef fg_id k, base
    cdef list ids, gradients, inputs = [], places = [], found = [], sizes, stretches
    if p == NULL:
        raise RuntimeError("a program is made by a recording")
    if len(wanted) != <Py_ssize_t>p.callee.n_segments or p.area == 0:
        raise ArgumentError(f"wanted: expected {p.callee.n_segments} bools, at least one, got {describe(wanted)}")
    if not seeds and p.callee.n_results != 1:
        raise ArgumentError(f"seeds: expected True for a program of {p.callee.n_results} results")
    hold_ids()   # making room may run a collection
    fg_building += 1   # and numbers of nodes mean nothing
    try:
        operands = expanded(body)
        base = first_slot(operands) - 1
        results = copies_of([base + p.results[k] for k in range(p.callee.n_results)])
        stretches, sizes = [(base + 1, p.area)], sizes_of(p, 0, p.callee.n_segments, 1)
        last = p.callee.segments[p.callee.n_segments - 1]
        if last.first + last.count <= p.area:
            sizes.append(-<int64_t>(p.area + 1 - last.first - last.count))
        given = None
        if seeds:
            given = leaves_for(p.callee.n_results)
            stretches.append((first_slot(given), given.cols))
            sizes.append(given.cols)
        for k in range(p.callee.n_segments):
            if wanted[k]:
                places.append(k)
                inputs.append(part_of(operands, p.callee.segments[k].first - 1, p.callee.segments[k].count))
        ids = slots_in_order(results)
        gradients = list(written([results], [given], inputs))   # which keep their slots until these are copied
        for k, gradient in zip(places, gradients):
            if gradient is not None:
                found.append((k, len(ids)))
                ids.extend(slots_in_order(gradient))
        return cut_out(floor, body, stretches, ids, sizes), found
    finally:
        fg_building -= 1
        release_ids()


def _formulas():
    """The forward rules of ops.def and the functions and constants that they call, as C.

    Returns
    -------
    (dict of str to (int, str), list of (str, str, str, str, str))
        For the ID of each row how many operands it has, and its result, from x, y, w and the immediate k. Each function
        and constant, in order, as (name, parameters, comment, body, condition); see `fg_formula`.
    """
    cdef const fg_formula *f = fg_formulas
    cdef list functions = []
    while f.name != NULL:
        functions.append((f.name.decode(), f.parameters.decode(), f.comment.decode(), f.body.decode(),
                          f.condition.decode()))
        f += 1
    return {fg_op_table[op].id.decode(): (fg_op_table[op].arity, fg_op_table[op].forward.decode())
            for op in rows_in_order()}, functions
