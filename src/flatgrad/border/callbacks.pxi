# callbacks.pxi: Calls that Python computes, both ways: functions with derivatives of their own.
#
# The node of such a call has a box, with the object that has the rule under "_rule". A sweep that has reached its
# results asks that for gradients as numbers, a sweep that writes for nodes.
#
# Uses anomaly, callees, handles, instructions, messages, numbers, operands, python, sweeps, tape, views, written.

@cython.final
@cython.no_gc
@cython.auto_pickle(False)
cdef class _Callback(_Callee):
    """A call that Python computes. Its node has the rule, so this is no more than the shape."""

    cdef dict contents(self):
        return {"instructions": {}, "constants": 0, "calls": []}

    def __reduce__(self):
        cdef fg_id k
        if self.callee == NULL:
            damaged("no call")
        return _restore_callback, (tuple([self.callee.segments[k].count for k in range(self.callee.n_segments)]),
                                   self.callee.n_results)


cdef int make_callback(_Callback made, object counts, fg_id n_results) except -1:
    """Make the callee of one call, with operands of so many numbers each."""
    cdef fg_callback *c = NULL
    cdef fg_id k, n = <fg_id>len(counts)
    scratch = bytearray((n + 1) * sizeof(fg_id))
    for k in range(n):
        (<fg_id *><char *>scratch)[k] = counts[k]
    if fg_callback_make(&tape.mem, <fg_id *><char *>scratch, n, n_results, &c) < 0:
        raise_status(FG_E_MEMORY)
    if own_callee(made, &c.callee) < 0:
        fg_callback_free(c)
        raise_status(FG_E_MEMORY)
    return 0


def _restore_callback(counts, n_results):
    """The callee that _Callback.__reduce__ describes. Raises ValueError for anything else."""
    cdef _Callback made = _Callback.__new__(_Callback)
    if not are_ints(counts, -1) or not are_ints((n_results,), 1) or n_results == 0 or 0 in counts:
        damaged(f"a call with operands of {describe(counts)} numbers")
    make_callback(made, counts, n_results)
    return made


callback_class = _Callback


cdef tuple shape_of_node(object x):
    return x.shape if type(x) is Tensor else ()


cdef object rule_of(fg_id i):
    """The object with the rule of the call at node i; None if that was part of a released cycle and has come back."""
    cdef fg_id *owner = tape.owner[i]
    if not fg_owner_is_box(owner) or fg_owner_box(owner).extra == NULL:
        return None
    return (<dict>fg_owner_box(owner).extra).get("_rule")


cdef list asked(_Run run):
    """What the rule says for the present gradients of the results that a sweep has reached: for each operand an array
    of gradients, or None."""
    cdef fg_callback *c
    cdef fg_id k
    cdef double[::1] gradients
    import numpy
    numpy_is_there()
    seeds = numpy.zeros(run.count)
    gradients = seeds
    rule = rule_of(run.id)
    if rule is None:
        return []
    c = fg_callback_at(&tape, run.id)
    for k in range(run.count):
        if c.reached[k >> 6] >> (k & 63) & 1:
            gradients[k] = tape.grad[run.id - run.count + k]
    return rule.reverse(seeds)


cdef int run_call_back(fg_id i) except -1:
    """Add to the gradients of the operands of a call, at which a sweep has stopped."""
    cdef _Run run = run_object(i)
    cdef fg_record *r
    cdef fg_view *view
    cdef const double[::1] numbers
    cdef fg_id v, e
    cdef list found = asked(run), rows = []
    for numbers_or_none in found:
        if numbers_or_none is not None:
            numbers = numbers_or_none   # any error comes before anything is added
    r = fg_tape_record(&tape, run.id)
    for v in range(<fg_id>len(found)):
        if found[v] is None:
            continue
        numbers = found[v]
        r = fg_tape_record(&tape, run.id)
        view = fg_record_view(r, v)
        if v >= r.views or numbers.shape[0] != <Py_ssize_t>(view.rows * view.cols):
            raise RuntimeError("a rule has returned gradients of another shape")
        for e in range(view.rows * view.cols):
            tape.grad[fg_record_slot(r, view, e // view.cols, e % view.cols)] += numbers[e]
    return 0


cdef int run_call_back_of(fg_id i) except -1:
    """The same by result i alone, if it is one of such a call; returns whether it is."""
    cdef fg_id block = block_of(i)
    cdef fg_callback *c = fg_callback_at(&tape, block)
    if c == NULL:
        return False
    fg_callback_reach_one(c, i - (block - tape.args[block].b))
    run_call_back(block)
    return True


cdef tuple partials(fg_id i):
    """The derivatives of result i of such a call by all operands. While ids are held."""
    cdef fg_id block = block_of(i), first = block - tape.args[block].b, v, count = 0
    cdef fg_record *r
    cdef list found = []
    import numpy
    seeds = numpy.zeros(tape.args[block].b)
    seeds[i - first] = 1.0
    rule = rule_of(block)
    rows = [] if rule is None else rule.reverse(seeds)
    for v in range(fg_tape_record(&tape, block).views):
        r = fg_tape_record(&tape, block)   # the rule may have moved the pool
        count = fg_record_view(r, v).rows * fg_record_view(r, v).cols
        found += [0.0] * count if v >= <fg_id>len(rows) or rows[v] is None else rows[v].tolist()
    return tuple(found)


run_callback, run_callback_of, partials_of_callback = run_call_back, run_call_back_of, partials


cdef int write_callback(fg_writing *w, fg_id block) except -1:
    """Give nodes to the operands of such a call as their gradients. While ids are held."""
    cdef fg_id first = block - tape.args[block].b, v
    cdef fg_term x, g
    cdef fg_view view
    cdef list gradients = []
    rule = rule_of(block)
    if rule is None:
        return 0
    for shape in rule.shapes:
        gradients.append(node_written(w, first, shape))
        first += <fg_id>size_of_shape(shape)
    for v, found in enumerate(rule.written(gradients)):
        if found is None:
            continue
        x = fg_term_of_view(w, fg_tape_record(&tape, block), fg_record_view(fg_tape_record(&tape, block), v))
        view = view_of(found) if type(found) is Tensor else fg_view(0, (<Value?>found).id, 1, 1, 1, 1)
        view.flags = 0
        g.view, g.ids = view, NULL
        if g.view.rows != x.view.rows or g.view.cols != x.view.cols:
            raise RuntimeError("a rule has returned gradients of another shape")
        fg_write_give(w, &x, g)
        if w.status < 0:
            raise_status(w.status)
    return 0


cdef object node_written(fg_writing *w, fg_id first, tuple shape):
    """The gradient of results from slot `first` on as a Value or Tensor of that shape: 0 where there is none."""
    cdef fg_id rows = shape[0] if len(shape) == 2 else 1, cols = shape[len(shape) - 1] if shape else 1
    cdef Tensor made
    cdef fg_term g
    cdef fg_id i
    if not shape:
        i = fg_write_gradient(w, first)
        return Value(0.0) if i == 0 else handle_of(i)
    g = fg_write_copied(w, fg_view(0, first, rows, cols, <int32_t>cols, 1))
    if w.status < 0:
        raise_status(w.status)
    if g.view.base == 0:
        import numpy
        return Tensor(numpy.zeros(shape), requires_grad=False)
    made = new_tensor(rows, cols, <int>len(shape), False, False)
    tie_run(made.run, g.view.base + tape.args[g.view.base].a)
    return made


answer_callback = write_callback


def _call_back(operands, results, rule, str name not None):
    """For our modules: results that were computed from operands, by a function whose rule is known to an object.

    Parameters
    ----------
    operands : list of Value and Tensor
    results : list of Value and Tensor
        What has their numbers and shapes.
    rule : object
        Has ``shapes``, a tuple of those of the results; ``reverse(gradients)``, which takes an array of the results'
        gradients and returns for each operand an array of its gradients, or None; and ``written(gradients)``, which
        does so with nodes.
    name : str
        What `_op` of the results says.

    Returns
    -------
    list of Value and Tensor
        The results.
    """
    cdef list given = to_list("operands", "Values and Tensors", operands), found = [], keep = [], counts = []
    cdef list computed = to_list("results", "Values and Tensors", results)
    cdef fg_id n_operands = <fg_id>len(given), n_results, k, n, npool, node = 0, at = 0
    cdef _Callback callee = _Callback.__new__(_Callback)
    cdef Operand *taken
    cdef fg_record *r
    cdef fg_view view
    cdef fg_box *box
    cdef double *numbers
    cdef Tensor t
    cdef dict extra = {"_rule": rule, "_op": name}
    cdef uint64_t words = fg_block_words(n_operands, 0)
    cdef int status
    count_numbers("operands", given)
    n_results = <fg_id>count_numbers("results", computed)
    shapes = tuple([shape_of_node(x) for x in computed])
    if shapes != rule.shapes or n_results == 0 or n_operands == 0:
        raise ArgumentError(f"results: expected the shapes {rule.shapes}, of at least one operand; got {shapes}")
    memory = bytearray((n_operands + 1) * sizeof(Operand))
    taken = <Operand *><char *>memory
    for k in range(n_operands):
        take(f"operands[{k}]", given[k], &taken[k], keep)
        counts.append(elements_of(&taken[k]))
    make_callback(callee, counts, n_results)
    data = bytearray(n_results * sizeof(double))
    numbers = <double *><char *>data
    reserve(n_results + 1, <fg_id>words)

    for x in computed:
        if type(x) is not Tensor:
            numbers[at] = tape.data[(<Value>x).id]
            at += 1
            continue
        view = view_of(x)
        for k in range(view.rows * view.cols):
            numbers[at] = tape.data[pick_slot(&view, k)]
            at += 1
    # From here on no Python code is run, but for memory.
    n, npool = tape.n, tape.npool
    r = fg_block_begin(&tape, callee.place, n_operands, 0)
    r.k = 1
    for k in range(n_operands):
        fill(r, k, &taken[k])
        fg_record_view(r, k).flags &= ~<fg_id>FG_VIEW_CONSTANT
    status = fg_block_push(&tape, FG_CALL, 1, n_results, True, numbers, &node)
    if status < 0:
        undo(n, npool, NULL)
        raise_status(status)
    fg_tape_set_hook(&tape, node, True)
    hold_ids()   # until all results have their objects
    try:
        box = fg_tape_box(&tape, node)
        if box == NULL:
            raise_status(FG_E_MEMORY)
        Py_INCREF(<PyObject *>extra)
        box.extra = <void *>extra
        at = node - n_results
        if FG_UNLIKELY(fg_no_grads != 0):
            look_at_nodes(at, node, "forward")
            note(at, node + 1, line_here() if is_watched() else 0)
        for shape in shapes:
            if not shape:
                found.append(handle_of(at))
                at += 1
                continue
            t = Tensor.__new__(Tensor)
            t.run = run_object(node)
            t.offset, t.ndim = at - (node - n_results), <int>len(shape)
            t.rows = shape[0] if t.ndim == 2 else 1
            t.cols = shape[t.ndim - 1]
            t.row_step, t.col_step = <int32_t>t.cols, 1
            at += t.rows * t.cols
            found.append(t)
        return found
    finally:
        release_ids()
