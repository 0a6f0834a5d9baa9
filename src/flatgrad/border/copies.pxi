# copies.pxi: Copies of a program, each for one thread at a time, and the operands' numbers in them.
#
# They share nothing that is written to, so a thread may compute its copy while others compute theirs, and needs no GIL.
#
# Uses addresses, callees, contexts, criteria, handles, messages, numbers, operands, programs, python, rebuilding,
# recordings, tape, views.

cdef unsigned long main_thread = 0   # the thread that hears signals; 0: not known


cdef int evaluation_stop() noexcept nogil:
    """stop_wanted(), for who does not hold the GIL; no thread but the main one has to take it for that."""
    if main_thread != 0 and PyThread_get_thread_ident() != main_thread:
        return 0
    with gil:
        return stop_wanted()


def _forked():
    """In a child process the thread that has forked hears signals, whichever it was."""
    global main_thread
    main_thread = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


# A program that one thread at a time is in, and, for batches, what computes it in lanes, which owns it then.
cdef struct Copy:
    fg_program *program
    fg_lanes *lanes


# Numbers in a row, both among gradients that are returned or a vector that is given, and among a program's operands.
cdef struct Found:
    Py_ssize_t at
    fg_id place
    fg_id count


cdef void free_copy(Copy *c) noexcept:
    if c.lanes != NULL:
        fg_lanes_free(c.lanes)
    else:
        fg_program_free(c.program)


cdef bint read_slots(double *to, fg_id first, fg_id count) noexcept:
    """Copy the numbers of slots in a row; returns whether all are leaves."""
    cdef uint8_t other = 0
    cdef fg_id i
    memcpy(to, tape.data + first, count * sizeof(double))
    for i in range(first, first + count):
        other |= tape.op[i]
    if other != FG_LEAF:
        for i in range(first, first + count):
            if not fg_op_is_leaf(tape.op[i]):
                return False
    return True


cdef Found *joined_places(list pairs, Py_ssize_t *count) except NULL:
    """Pairs of a place among gradients and one among operands, joined where both follow each other."""
    cdef Found *found = <Found *>PyMem_Calloc(len(pairs) + 1, sizeof(Found))
    cdef Py_ssize_t at, n = 0
    cdef fg_id place
    if found == NULL:
        raise MemoryError()
    for at, place in pairs:
        if n > 0 and found[n - 1].at + <Py_ssize_t>found[n - 1].count == at and (
                found[n - 1].place + found[n - 1].count == place):
            found[n - 1].count += 1
        else:
            found[n] = Found(at, place, 1)
            n += 1
    count[0] = n
    return found


@cython.auto_pickle(False)
cdef class _Copies:
    """Copies of a program, what their operands are, and which of the gradients are wanted."""
    cdef _Program program
    cdef list parameters
    cdef bytes wanted        # [n_segments] whether its gradients are
    cdef bytes varying       # [n_segments] or None: one sample
    cdef tuple rows          # inputs that are wanted and vary
    cdef fg_id n_samples
    cdef readonly Py_ssize_t count, width
    cdef bint single         # a batch is computed in floats
    cdef bint lenient        # numbers outside of an operation's domain are no error
    cdef Copy *idle          # [n_idle] copies that nobody is in, with room for all
    cdef Py_ssize_t n_idle, n_copies
    cdef Found *found        # [n_found]
    cdef Py_ssize_t n_found
    cdef Found *given        # [n_given] or NULL: where the numbers of a vector go that calls give for what is captured
    cdef Py_ssize_t n_given, n_vector
    cdef bint gives_all      # nothing that is captured is read from the tape
    cdef long long moves     # handle_moves when that was found; for inputs it always holds

    def __cinit__(self, *args, **options):
        self.moves = -1

    def __dealloc__(self):
        cdef Py_ssize_t k
        for k in range(self.n_idle):
            free_copy(&self.idle[k])
        PyMem_Free(self.idle)
        PyMem_Free(self.found)
        PyMem_Free(self.given)

    cdef Copy take_copy(self) except *:
        """One that nobody is in, made if there is none. Runs Python code."""
        global main_thread
        cdef Copy made = Copy(NULL, NULL)
        cdef Copy *more
        cdef int status
        cdef fg_group whole = fg_group(0, 1, False)
        cdef unsigned long main
        if self.n_idle > 0:
            self.n_idle -= 1
            return self.idle[self.n_idle]
        threading = sys.modules.get("threading")
        main = 0 if threading is None else threading.main_thread().ident
        if main_thread != main:   # threads that are inside read it, and it changes before there are any
            main_thread = main
        more = <Copy *>PyMem_Realloc(self.idle, (self.n_copies + 1) * sizeof(Copy))
        if more == NULL:
            raise MemoryError()
        self.idle = more
        status = fg_program_copy_alone((<_Body>self.program.body).program(), evaluation_stop, &tape.mem.fail_after,
                                       &made.program)
        if status == FG_PROGRAM_SHARED:
            raise NotImplementedError("the program calls something that cannot be copied")
        if status < 0:
            raise_status(status)
        fg_evaluate_for(made.program, <const uint8_t *><const char *>self.wanted)
        if self.varying is not None:
            status = fg_lanes_make_of(made.program, <const uint8_t *><const char *>self.varying, self.n_samples,
                                      &whole, 1, 0, self.single, &tape.mem.fail_after, &made.lanes)
            if status < 0:
                raise_status(status)
            made.program = fg_lanes_program(made.lanes)
        self.n_copies += 1
        return made

    cdef void give_copy(self, const Copy *c) noexcept:
        self.idle[self.n_idle] = c[0]
        self.n_idle += 1

    # ---- which gradients ----

    cdef int find_inputs(self, _Program program, list inputs) except -1:
        cdef Py_ssize_t j, k
        self.found = <Found *>PyMem_Calloc(len(inputs) + 1, sizeof(Found))
        if self.found == NULL:
            raise MemoryError()
        for j, k in enumerate(inputs):
            self.found[j] = Found(self.count, program.body.callee.segments[k].first,
                                  program.body.callee.segments[k].count)
            self.count += self.found[j].count
        self.n_found = len(inputs)
        return 0

    cdef int find_parameters(self) except -1:
        """Which of the captured numbers are parameters. It holds until a Value becomes another node's handle, or is
        frozen. Runs Python code."""
        cdef _Program program = self.program
        cdef fg_stretch *segments = program.body.callee.segments
        cdef Py_ssize_t at = 0, j, n = 0
        cdef fg_id k, e, first, place
        cdef long long moves
        cdef Piece *p
        cdef Found *found
        cdef dict places = {}   # by slot
        cdef list pairs = []
        for k, item in enumerate(self.parameters):
            if type(item) is Tensor and (<Tensor>item).constant or frozen_in(item) > 0:
                raise ArgumentError(f"parameters[{k}]: expected numbers that require a gradient, got "
                                    f"{shortened(item)} with requires_grad=False")
        hold_ids()
        try:
            moves = handle_moves
            for k in range(program.n_inputs, program.n_segments):
                place = segments[k].first
                for j in range(program.begins[k - program.n_inputs], program.begins[k - program.n_inputs + 1]):
                    p = &program.pieces[j]
                    first = first_of(program.captured[p.which]) + p.offset
                    for e in range(p.count):
                        places[first + e] = place + e
                    place += p.count
            for item in self.parameters:
                for slot in slots_in_order(item):
                    found_place = places.get(slot)
                    if found_place is not None:
                        pairs.append((at, found_place))
                    at += 1
        finally:
            release_ids()
        found = joined_places(pairs, &n)
        PyMem_Free(self.found)
        self.found, self.n_found, self.moves = found, n, moves
        return 0

    cdef int find_given(self, _Program program, list places, Py_ssize_t begin) except -1:
        """Where the numbers of a vector go, by their places among the captured numbers, or -1; gradients are those by
        the numbers from `begin` on."""
        cdef fg_id k, e
        cdef Py_ssize_t n_captured = 0
        cdef list slots = []
        for k in range(program.n_inputs, program.n_segments):
            for e in range(program.body.callee.segments[k].count):
                slots.append(program.body.callee.segments[k].first + e)
        if not all([type(x) is int and -1 <= x < len(slots) for x in places]) or not 0 <= begin <= len(places):
            raise ValueError(f"places: expected some of {len(slots)} captured numbers")
        pairs = [(at, slots[x]) for at, x in enumerate(places) if x >= 0]
        self.given = joined_places(pairs, &self.n_given)
        self.found = joined_places([(at - begin, place) for at, place in pairs if at >= begin], &self.n_found)
        self.n_vector, self.count = len(places), len(places) - begin
        self.gives_all = len(set([place for _, place in pairs])) == len(slots)
        return 0

    cdef const double *take_vector(self, object vector, list keep) except? NULL:
        """The numbers that a call gives. May run Python code; `keep` keeps them alive."""
        cdef Operand taken
        taken.turned = taken.flat = False   # which take_doubles leaves
        if type(vector) is not np_array or not take_doubles(vector, &taken, keep):
            if vector is None or isinstance(vector, (str, bytes, dict)):
                raise ArgumentTypeError(f"theta: expected an array of {self.n_vector} numbers, got {describe(vector)}")
            if isinstance(vector, (Value, Tensor)):
                raise ArgumentTypeError(f"theta: expected an array of {self.n_vector} numbers, got "
                                        f"{describe(vector)}, which may take a gradient; write theta.data")
            take("theta", vector, &taken, keep)
        if taken.kind not in (ARRAY, NUMBER):
            raise ArgumentTypeError(f"theta: expected an array of {self.n_vector} numbers, got {describe(vector)}")
        if taken.kind == NUMBER or taken.ndim != 1 or <Py_ssize_t>taken.cols != self.n_vector:
            raise ShapeError(f"theta: expected an array of shape ({self.n_vector},), a number for each parameter, got "
                             f"the shape {shape_of(&taken)}")
        return taken.array

    cdef void give(self, const double *vector, double *data) noexcept nogil:
        cdef Py_ssize_t k
        for k in range(self.n_given):
            memcpy(data + self.given[k].place, vector + self.given[k].at, self.given[k].count * sizeof(double))

    cdef void add_gradients(self, const double *grad, double *to) noexcept nogil:
        cdef Py_ssize_t k
        cdef fg_id e
        for k in range(self.n_found):
            for e in range(self.found[k].count):
                to[self.found[k].at + e] += grad[self.found[k].place + e]

    # ---- operands ----

    cdef int take_operands(self, list given, Operand *taken, list keep) except -1:
        """Look at the operands, but for those that vary. Runs Python code."""
        cdef fg_id k
        cdef fg_view *shape
        if len(given) != <Py_ssize_t>self.program.n_inputs:
            raise ArgumentError(f"operands: expected {self.program.n_inputs}, one for each input, got {len(given)}")
        for k in range(self.program.n_inputs):
            if self.varying is not None and self.varying[k]:
                continue
            shape = &self.program.inputs[k]
            if not take_number(given[k], &taken[k]) and not take_plain(given[k], &taken[k]):
                take(f"operands[{k}]", given[k], &taken[k], keep)
            if (taken[k].ndim != <int>shape.flags or rows_of(&taken[k]) != shape.rows
                    or cols_of(&taken[k]) != shape.cols or taken[k].kind not in (NUMBER, ARRAY, VALUE, TENSOR)):
                raise ShapeError(f"operands[{k}]: expected the shape {self.program.shapes[k]} that the program was "
                                 f"recorded with, got {shape_of(&taken[k])}")
        return 0

    cdef bint read(self, const Operand *taken, double *data) noexcept:
        """The operands' numbers, but for those that vary. Runs no Python code. Returns whether no gradient by a
        parameter can flow through them: the captured ones are leaves, and of the others none takes a gradient."""
        cdef bint leaves = self.read_inputs(taken, data)
        return (self.gives_all or self.read_captured(data)) and leaves

    cdef bint read_inputs(self, const Operand *taken, double *data) noexcept:
        cdef _Program program = self.program
        cdef fg_stretch *s
        cdef fg_view view
        cdef fg_id k, i, j
        cdef bint leaves = True
        for k in range(program.n_inputs):
            s = &program.body.callee.segments[k]
            if self.varying is not None and self.varying[k]:
                continue
            if taken[k].kind == NUMBER:
                data[s.first] = taken[k].number
            elif taken[k].kind == ARRAY:
                memcpy(data + s.first, taken[k].array, s.count * sizeof(double))
            elif taken[k].kind == VALUE:
                data[s.first] = tape.data[(<Value>taken[k].o).id]
                leaves = leaves and tape.op[(<Value>taken[k].o).id] == FG_FROZEN
            else:
                view = view_of(<Tensor>taken[k].o)
                leaves = leaves and (<Tensor>taken[k].o).constant
                for i in range(view.rows):
                    for j in range(view.cols):
                        data[s.first + i * view.cols + j] = tape.data[slot_in(&view, i, j)]
        return leaves

    cdef bint read_captured(self, double *data) noexcept:
        cdef _Program program = self.program
        cdef fg_stretch *s
        cdef fg_id k, j, first
        cdef Py_ssize_t n
        cdef Piece *p
        cdef bint leaves = True
        if program.moves != handle_moves:
            program.look()
        for k in range(program.n_inputs, program.n_segments):
            s = &program.body.callee.segments[k]
            n = program.begins[k - program.n_inputs]
            p = &program.pieces[n]
            first = first_of(program.captured[p.which]) + p.offset
            if not program.listed[k]:
                leaves = read_slots(data + s.first, first, s.count) and leaves
                continue
            j = s.first
            for n in range(n, program.begins[k - program.n_inputs + 1]):
                p = &program.pieces[n]
                leaves = read_slots(data + j, first_of(program.captured[p.which]) + p.offset, p.count) and leaves
                j += p.count
        return leaves

    cdef int check_signs(self, const double *data) except -1:
        """What the program's calls check. data: of the operands, which begin with 1."""
        cdef fg_id place
        for number in self.program.signs:
            place = number
            if not self.is_row(place) and not is_sign(data[place], NEAR_SIGN):
                raise DataError(f"target: expected -1 or 1, got {data[place]}")
        return 0

    cdef bint is_row(self, fg_id place) noexcept:
        """Whether that operand is another for each sample."""
        cdef fg_id k
        cdef fg_stretch *s
        for k in range(self.program.n_inputs):
            s = &self.program.body.callee.segments[k]
            if s.first <= place < s.first + s.count:
                return self.varying is not None and self.varying[k]
        return False

    cdef int refuse(self, bint batch) except -1:
        """An error for a call that this is not made for."""
        if self.program is None:
            raise RuntimeError("__init__ has not been called")
        if (self.varying is not None) != batch:
            raise RuntimeError("this evaluator is for a batch" if not batch else "this evaluator is for one sample")
        if FG_UNLIKELY(recordings != 0):
            refuse_recording("an evaluation")
        return 0

    cdef void enter(self, fg_program *p, const double *shared) noexcept:
        """The shared numbers into a copy."""
        cdef fg_id k
        cdef fg_stretch *s
        for k in range(self.program.n_segments):
            s = &p.callee.segments[k]
            if not self.varying[k]:
                memcpy(p.body.data + s.first, shared + s.first, s.count * sizeof(double))
