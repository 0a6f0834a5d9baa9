# callees.pxi: A program as an object: what FG_CALL runs, and the error of a call that fails.
#
# Promises that there is one object for a program at most, and that the program lives as long as that or a call on the
# tape. Which numbers of the user's a program is called with is known to programs.pxi. It is saved as the graph that it
# was cut from.
#
# Uses handles, messages, tape.

@cython.no_gc   # no derivative leads back
@cython.auto_pickle(False)
cdef class _Callee:
    """What an FG_CALL runs, without captured Values. It has no state that anybody can change."""
    cdef fg_callee *callee
    cdef fg_id place         # in tape.programs
    cdef dict derivatives    # what computes the gradients of a call: see called.pxi

    def __dealloc__(self):
        if self.callee != NULL:
            self.callee.owner = NULL
            fg_tape_release_program(&tape, self.place)

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    cdef dict contents(self):
        """For `stats` of a program: what it is made of, besides operands and memory."""
        raise RuntimeError("a program is made by a recording")

    cdef fg_id area(self):
        """The operands, and the holes between."""
        return 0

    cdef double number(self, fg_id place):
        """An operand of the last call, counted in the area from 1 on."""
        return 0.0

    cdef str where(self):
        """Of a call that has failed: in what."""
        return " in a compiled function"


cdef str symbol_of(fg_program *p, fg_id i):
    """The kind of an instruction, as users know it."""
    cdef int op = fg_tape_op(&p.body, i)
    return fg_op_table[<int>fg_tape_record(&p.body, i).param if op == FG_MAP else op].symbol.decode()


@cython.final
@cython.no_gc
@cython.auto_pickle(False)
cdef class _Body(_Callee):
    """A program as it was cut out of the tape."""

    cdef inline fg_program *program(self) noexcept:
        return <fg_program *>self.callee

    cdef fg_id area(self):
        return self.program().area

    cdef double number(self, fg_id place):
        return fg_program_number(self.program(), place)

    cdef dict contents(self):
        cdef fg_program *p = self.program()
        cdef fg_id i, constants = 0
        cdef int op
        cdef dict found = {}
        cdef list calls = []
        for i in range(p.area + 1, p.body.n):
            op = fg_tape_op(&p.body, i)
            if op == FG_LEAF or op == FG_FROZEN:
                constants += 1
            elif op != FG_PART and op != FG_RUN:
                symbol = symbol_of(p, i)
                found[symbol] = found.get(symbol, 0) + 1
                if op == FG_CALL:
                    calls.append(callee_object(fg_tape_callee(&p.body, fg_tape_record(&p.body, i))).contents())
        return {"instructions": found, "constants": constants, "calls": calls}

    def __reduce__(self):
        """The nodes, again on the tape, without the numbers of the last call: the _Run of the operands, and that of
        copies of the results."""
        cdef _Run operands = None, results = _Run.__new__(_Run)
        cdef fg_program *p = self.program()
        cdef int64_t base
        cdef fg_id node = 0, k
        cdef fg_id *ids
        cdef fg_record *r
        cdef int status
        if p == NULL:
            damaged("no program")
        if p.area > 0:
            operands = _Run.__new__(_Run)
        segments = [(p.callee.segments[k].first, p.callee.segments[k].count) for k in range(p.callee.n_segments)]
        reserve(p.body.n + p.callee.n_results + 1, p.body.npool + fg_block_words(1, 0) + p.callee.n_results)
        hold_ids()
        try:
            base = fg_program_expand(p, &tape)
            if base < 0:
                raise_status(<int>base)
            for k in range(1, p.body.n):
                if k <= p.area or not fg_op_is_leaf(fg_tape_op(&p.body, k)):
                    tape.data[<fg_id>base + k] = 0.0
            r = fg_block_begin(&tape, FG_COPY, 1, 0)
            ids = fg_block_ids(r)
            for k in range(p.callee.n_results):
                ids[k] = <fg_id>base + p.results[k]
            fg_block_list(r, 0, 1, p.callee.n_results)
            status = fg_block_push(&tape, FG_MAP, 1, p.callee.n_results, True, NULL, &node)
            if status < 0:
                raise_status(status)
            tie_run(results, node)
            if operands is not None:
                tie_run(operands, <fg_id>base + p.area + 1)
        finally:
            release_ids()
        if p.gives == NULL:
            return _restore_body, (operands, results, tuple(segments))
        return restore_ruled, ((operands, results, tuple(segments)),
                               None if p.rule == NULL else callee_object(&p.rule.callee),
                               tuple([p.gives[k] for k in range(p.callee.n_segments)]))


@cython.final
@cython.no_gc
@cython.auto_pickle(False)
cdef class _Scan(_Callee):
    """A program that is computed for one step after the other."""

    cdef inline fg_scan *scan(self) noexcept:
        return <fg_scan *>self.callee

    cdef fg_id area(self):
        return self.scan().area

    cdef double number(self, fg_id place):
        return self.scan().data[place]

    cdef str where(self):
        return f" in step {self.scan().at} of a scan"

    cdef dict contents(self):
        return {**callee_object(&self.scan().step.callee).contents(), "steps": self.scan().length,
                "steps in a stretch": self.scan().every}

    def __reduce__(self):
        cdef fg_scan *s = self.scan()
        cdef fg_id k
        if s == NULL:
            damaged("no program")
        return _restore_scan, (callee_object(&s.step.callee), s.length, s.carries, s.xs,
                               tuple([s.sizes[k] for k in range(s.parts)]), bool(s.backwards), s.checkpoint)


cdef int scan_body(_Scan made, _Body step, fg_id length, fg_id carries, fg_id xs, tuple sizes, bint backwards,
                   fg_id checkpoint) except -1:
    """Make the scan of a program; see fg_scan_make()."""
    cdef fg_scan *scan = NULL
    cdef fg_id k, n = <fg_id>len(sizes)
    cdef int status
    scratch = bytearray((n + 1) * sizeof(fg_id))
    for k in range(n):
        (<fg_id *><char *>scratch)[k] = sizes[k]
    status = fg_scan_make(step.program(), &tape.mem, length, carries, xs, <fg_id *><char *>scratch, n, backwards,
                          checkpoint, &scan)
    if status == FG_SCAN_FORM:
        damaged("the step of a scan has other operands and results than carry, x and outputs")
    if status < 0:
        raise_status(status)
    if own_callee(made, &scan.callee) < 0:
        fg_scan_free(scan)
        raise_status(FG_E_MEMORY)
    return 0


@cython.final
@cython.no_gc
@cython.auto_pickle(False)
cdef class _Lanes(_Callee):
    """A program that is run once for each sample of a batch."""

    cdef inline fg_lanes *lanes(self) noexcept:
        return <fg_lanes *>self.callee

    cdef fg_id area(self):
        cdef fg_id k, count = 0
        for k in range(self.callee.n_segments):
            count += self.callee.segments[k].count
        return count

    cdef double number(self, fg_id place):
        return fg_lanes_number(self.lanes(), place)

    cdef dict contents(self):
        cdef fg_program *p = fg_lanes_program(self.lanes())
        cdef fg_id i, varying = 0
        cdef int op
        for i in range(p.area + 1, p.body.n):
            op = fg_tape_op(&p.body, i)
            if op != FG_LEAF and op != FG_FROZEN and op != FG_PART and op != FG_RUN:
                varying += fg_lanes_is_varying(self.lanes(), i)
        return {**callee_object(<fg_callee *>p).contents(), "varying": varying,
                "samples": fg_lanes_samples(self.lanes()), "lanes": fg_lanes_width(self.lanes())}

    def __reduce__(self):
        """Its program, which segments vary, how many samples there are, the groups of results; True if it is of
        floats."""
        cdef fg_id k, count = 0
        cdef const fg_group *groups
        if self.callee == NULL:
            damaged("no program")
        groups = fg_lanes_groups(self.lanes(), &count)
        state = (callee_object(<fg_callee *>fg_lanes_program(self.lanes())),
                 tuple([bool(fg_lanes_varies(self.lanes())[k]) for k in range(self.callee.n_segments)]),
                 fg_lanes_samples(self.lanes()), tuple([group_of(&groups[k]) for k in range(count)]))
        return _restore_lanes, state + (True,) if fg_lanes_is_single(self.lanes()) else state


cdef object group_of(const fg_group *group):
    """How many results it has; below 0 if they are sums over all samples."""
    return -<int64_t>group.count if group.summed else group.count


cdef int64_t own_callee(_Callee body, fg_callee *callee) noexcept:
    """From now on that is the object of the callee, which has none; or FG_E_MEMORY."""
    cdef int64_t place = fg_tape_hold_program(&tape, callee)
    if place >= 0:
        body.callee, body.place = callee, <fg_id>place
        callee.owner = <void *>body
    return place


cdef object restore_ruled   # of a program with a rule: rules.pxi
cdef type callback_class   # of calls that Python computes: callbacks.pxi


cdef _Callee callee_object(fg_callee *callee):
    """The one object of a callee that is on the tape, made if there is none. Runs no Python code."""
    cdef _Callee body
    if callee.owner != NULL:
        return <_Callee>callee.owner
    body = (_Scan.__new__(_Scan) if callee.steps == &fg_scan_steps else _Lanes.__new__(_Lanes) if fg_lanes_is(callee)
            else callback_class.__new__(callback_class) if fg_callback_is(callee) else _Body.__new__(_Body))
    if own_callee(body, callee) < 0:
        raise_status(FG_E_MEMORY)
    return body


cdef _Lanes lanes_of(_Body body, tuple varies, fg_id n_samples, tuple counts, fg_id most_lanes, bint single):
    """The program for so many samples. varies: of each segment; counts: how many results each group has, below 0 where
    they are summed over all samples; single: in floats."""
    cdef _Lanes made = _Lanes.__new__(_Lanes)
    cdef fg_lanes *lanes = NULL
    cdef fg_id k, first = 0, n_groups = <fg_id>len(counts)
    cdef fg_group *groups
    cdef int status
    scratch = bytearray((n_groups + 1) * sizeof(fg_group))
    groups = <fg_group *><char *>scratch
    for k in range(n_groups):
        groups[k].first, groups[k].count, groups[k].summed = first, abs(counts[k]), counts[k] < 0
        first += groups[k].count
    segments = bytes(varies) + b"\0"
    status = fg_lanes_make(&tape, body.program(), <const uint8_t *><const char *>segments, n_samples, groups, n_groups,
                           most_lanes, single, &lanes)
    if status < 0:
        raise_status(status)
    if own_callee(made, <fg_callee *>lanes) < 0:
        fg_lanes_free(lanes)
        raise_status(FG_E_MEMORY)
    return made


cdef int call_failed(fg_callee *c, int status) except -1:
    """The exception for a call that could not be computed."""
    return call_failed_in(c, status, callee_object(c).where() if status in FAULTS else "")


FAULTS = (FG_E_ZERO_DIVISION, FG_E_OVERFLOW, FG_E_DOMAIN, FG_E_INDEX)   # which a callee knows more of


cdef int call_failed_in(fg_callee *c, int status, str where) except -1:
    """The same; where: what users may know it as, said of a fault."""
    cdef double[3] x = [0.0, 0.0, 0.0]
    cdef int32_t k = 0
    cdef int op
    if status not in FAULTS:
        raise_status(status)
    op = c.steps.fault(c, x, &k, &status)
    if op == FG_TAKE:
        raise_position(x[0], <fg_id>k, where)
    numbers = [x[j] for j in range(fg_op_table[op].arity)]
    if op == FG_POWI:
        numbers.append(k)
    raise_operation(status, op, tuple(numbers), where, fg_lanes_is(c) and fg_lanes_is_single(<fg_lanes *>c))


cdef int cut_program(_Body body, fg_id floor, list inputs, list outputs, fg_id **captured) except -1:
    """Make the program that leads from the outputs, ids, to the inputs, (first, count) each. *captured: where the
    segments that are captured begin, for fg_program_forget(). While ids are held; runs no Python code but for memory.
    """
    cdef fg_program *program = NULL
    cdef fg_stretch *stretches
    cdef fg_id *ids
    cdef fg_id at = 0, k, n_inputs = <fg_id>len(inputs), n_outputs = <fg_id>len(outputs)
    cdef int status
    scratch = bytearray((n_inputs + 1) * sizeof(fg_stretch) + (n_outputs + 1) * sizeof(fg_id))
    stretches = <fg_stretch *><char *>scratch
    ids = <fg_id *>(stretches + n_inputs)
    for k in range(n_inputs):
        stretches[k].first, stretches[k].count = inputs[k]
    for k in range(n_outputs):
        ids[k] = outputs[k]
    status = fg_program_cut(&tape, floor, stretches, n_inputs, ids, n_outputs, &program, captured, &at)
    if status == FG_PROGRAM_RULE:
        raise ArgumentTypeError("compile: a Value with a rule of its own, by `_backward` or local gradients, is "
                                "computed from an argument or from a captured Value, and would keep the numbers of its "
                                "first call. Use flatgrad's operations, or compute it outside of the function")
    if status < 0:
        raise_status(status)
    if own_callee(body, &program.callee) < 0:
        fg_program_forget(program, captured[0])
        fg_program_free(program)
        raise_status(FG_E_MEMORY)
    return 0


_SIMPLIFICATIONS = {"shared": FG_SIMPLIFY_SHARED, "dots": FG_SIMPLIFY_DOTS, "layers": FG_SIMPLIFY_LAYERS,
                   "together": FG_SIMPLIFY_TOGETHER}


cdef dict simplify_program(_Body body, int steps):
    """Put fewer and larger instructions into a program that has not been called. How many there were, at first and
    after each step."""
    cdef fg_simplified report
    cdef Py_ssize_t k
    cdef int status = fg_program_simplify(&tape, body.program(), steps, &report)
    if status < 0:
        raise_status(status)
    found = {"before": report.before}
    for k, name in enumerate(_SIMPLIFICATIONS):
        if steps & _SIMPLIFICATIONS[name]:
            found[name] = report.after[k]
    return found


cdef bint are_ints(object x, Py_ssize_t length):
    """Whether x is a tuple of ints of 0 to 2**30, so many, or any number for -1."""
    return type(x) is tuple and (length < 0 or len(x) == length) and all([
        type(k) is int and 0 <= k < MOST_NODES for k in x])


cdef Py_ssize_t size_of_shape(object shape) except -1:
    if not are_ints(shape, -1) or len(shape) > 2 or 0 in shape:
        damaged(f"a program has an operand or a result of shape {describe(shape)}")
    return 1 if len(shape) == 0 else shape[0] if len(shape) == 1 else shape[0] * shape[1]


def _restore_body(_Run operands, _Run results not None, segments):
    """The program that _Body.__reduce__ describes. Raises ValueError for anything else."""
    cdef _Body body = _Body.__new__(_Body)
    cdef fg_record *r
    cdef fg_view *view
    cdef fg_id *captured = NULL
    cdef fg_id k, count, area = 0 if operands is None else operands.count
    cdef fg_stretch *stretches
    cdef Py_ssize_t last = 0
    cdef list inputs = [], ids = []
    if type(segments) is not tuple or not all([type(s) is tuple and len(s) == 2 and type(s[0]) is int
                                               and type(s[1]) is int for s in segments]):
        damaged(f"expected the segments of a program, got {describe(segments)}")
    for first, length in segments:
        if not (last < first <= area and 0 < length <= area - first + 1):
            damaged(f"a program of {area} operands has the segment {(first, length)}")
        last = first + length - 1
    count = <fg_id>len(segments)
    scratch = bytearray((count + 1) * sizeof(fg_stretch))
    stretches = <fg_stretch *><char *>scratch
    for k in range(count):
        stretches[k].first, stretches[k].count = segments[k]
    hold_ids()
    try:
        if operands is not None:
            if fg_tape_op(&tape, operands.id) != FG_RUN:
                damaged("the operands of a program are no leaves")
            inputs.append((operands.id - operands.count, operands.count))
        r = fg_tape_record(&tape, results.id) if fg_tape_op(&tape, results.id) == FG_MAP else NULL
        if r == NULL or r.param != FG_COPY or r.views != 1 or r.cols != results.count:
            damaged("the results of a program are no copies")
        view = fg_record_view(r, 0)
        for k in range(results.count):
            ids.append(fg_record_slot(r, view, 0, k if view.cols > 1 else 0))
        cut_program(body, 1, inputs, ids, &captured)
        fg_program_forget(body.program(), captured)
        if fg_program_divide(body.program(), stretches, count) < 0:
            raise_status(FG_E_MEMORY)
    finally:
        release_ids()
    return body


def _restore_scan(_Body step not None, length, carries, xs, sizes, backwards, checkpoint):
    """The scan that _Scan.__reduce__ describes. Raises ValueError for anything else."""
    cdef _Scan made = _Scan.__new__(_Scan)
    if (step.callee == NULL or not are_ints((length, carries, xs, checkpoint), -1) or length < 1
            or type(backwards) is not bool or not are_ints(sizes, -1) or 0 in sizes):
        damaged("expected the steps of a scan")
    scan_body(made, step, length, carries, xs, sizes, backwards, checkpoint)
    return made


def _restore_lanes(_Body body not None, varies, n_samples, counts, single=False):
    """The program for a batch that _Lanes.__reduce__ describes. Raises ValueError for anything else."""
    cdef int64_t total = 0
    if (body.callee == NULL or type(varies) is not tuple or len(varies) != <Py_ssize_t>body.callee.n_segments
            or not all([type(x) is bool for x in varies])):
        damaged(f"which operands of a program vary: {describe(varies)}")
    if type(n_samples) is not int or not 0 < n_samples < MOST_NODES:
        damaged(f"a program for {describe(n_samples)} samples")
    if type(counts) is not tuple or not all([type(k) is int and 0 < abs(k) < MOST_NODES for k in counts]):
        damaged(f"the groups of results of a program: {describe(counts)}")
    if type(single) is not bool:
        damaged(f"whether a program is of floats: {describe(single)}")
    for k in counts:
        total += abs(k)
    if total != body.callee.n_results:
        damaged(f"a program has {body.callee.n_results} results, not groups of {describe(counts)}")
    return lanes_of(body, varies, n_samples, counts, 0, single)


def _live_programs():
    """How many programs there are on the tape, for tests."""
    cdef fg_id k, count = 0
    for k in range(tape.n_programs):
        count += tape.programs[k].callee != NULL
    return count
