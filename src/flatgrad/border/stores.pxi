# stores.pxi: Which numbers of the tape a training loop works on, and where they are in its programs.
#
# They are found anew when a Value has become another node's handle, or was frozen.
#
# Uses callees, handles, messages, operands, parameters, programs, python, tape.

cdef Py_ssize_t count_up_to(list sorted_tuples, Py_ssize_t at) except -1:
    """How many of them begin with a number up to that one."""
    cdef Py_ssize_t low = 0, high = len(sorted_tuples), middle
    while low < high:
        middle = (low + high) // 2
        if <Py_ssize_t>(<tuple>sorted_tuples[middle])[0] <= at:
            low = middle + 1
        else:
            high = middle
    return low


@cython.auto_pickle(False)
cdef class _Store:
    """The numbers of a loop: what is updated, and what else its programs read."""
    cdef fg_loop loop
    cdef list programs, several, columns, fixed
    cdef list sources       # (object, offset, count, at, learner or None, frozen) of what the tape has
    cdef list constants     # (array, at)
    cdef size_t room
    cdef long long moves    # handle_moves when that was found

    def __cinit__(self, *args, **options):
        self.loop.at, self.moves = -1, -1

    def __dealloc__(self):
        cdef int k
        fg_loop_free(&self.loop)
        for k in range(2):
            PyMem_Free(self.loop.lessons[k].kept)
            PyMem_Free(self.loop.lessons[k].slots)
        PyMem_Free(self.loop.learners)
        PyMem_Free(self.loop.rows)
        PyMem_Free(self.loop.columns)
        PyMem_Free(self.loop.data)

    cdef int place(self) except -1:
        """Find what is in the store, and what of it in each program. It holds until a Value becomes another node's
        handle, or is frozen."""
        cdef Parameters one
        cdef list known = [], kept
        cdef bint stable = False
        cdef Py_ssize_t at = 0, k, offset, length
        cdef fg_id i
        while not stable:   # looking for one may run finalizers, and these move another
            stable = True
            for one in self.several:
                if one.stretches is None or one.moves != handle_moves:
                    one.find()
                    stable = False
        self.moves = -1
        self.sources, self.constants = [], []
        hold_ids()
        try:
            for k, one in enumerate(self.several):
                self.loop.learners[k].at, self.loop.learners[k].count = at, one.count
                for first, offset, length, frozen in one.stretches:
                    i = first_slot(first) + <fg_id>offset
                    self.expect_leaves(i, <fg_id>length, None)
                    known.append((i, length, at, k, frozen))
                    self.sources.append((first, offset, length, at, k, frozen))
                    at += length
            self.loop.count = at
            known.sort()
            for k in range(len(self.programs)):
                kept = self.kept_of(k, known)
                self.fill_gaps(kept)
                self.set_kept(&self.loop.lessons[k], kept)
        finally:
            release_ids()
        if self.room < self.loop.count or self.loop.data == NULL:
            PyMem_Free(self.loop.data)
            self.loop.data = <double *>PyMem_Calloc(2 * self.loop.count + 1, sizeof(double))
            if self.loop.data == NULL:
                self.room = 0
                raise MemoryError()
            self.room = self.loop.count
        self.loop.grad = self.loop.data + self.room
        self.note_rows()
        for first, at in self.constants:
            copy_numbers(self.loop.data + at, first)
        self.moves = handle_moves
        for one in self.several:
            if one.moves != self.moves:
                self.moves = -1
        return 0

    cdef int note_rows(self) except -1:
        """How much of what is updated lies in a row: sums over gradients go by that, here and in clip_grad_norm_."""
        cdef Py_ssize_t n = 0
        PyMem_Free(self.loop.rows)
        self.loop.rows = <size_t *>PyMem_Calloc(len(self.sources) + 1, sizeof(size_t))
        if self.loop.rows == NULL:
            raise MemoryError()
        for _, _, length, _, learner, _ in self.sources:
            if learner is not None:   # these come first
                self.loop.rows[n] = length
                n += 1
        return 0

    cdef int expect_leaves(self, fg_id first, fg_id count, object of) except -1:
        """An error for a Value or Tensor that steps cannot read as numbers; None stands for the optimizer's."""
        cdef fg_id i
        for i in range(first, first + count):
            if not fg_op_is_leaf(tape.op[i]):   # nor has it a rule of its own
                if of is None:
                    raise ArgumentError(f"a parameter of the optimizer, Value(data={tape.data[i]}), is computed from "
                                        "others, or has a _backward of its own")
                raise ArgumentError(f"the function captures or is given {describe(of)}, which is computed outside of "
                                    "the loop from others, or has a _backward of its own; detach() makes a leaf of it")
        return 0

    cdef list kept_of(self, Py_ssize_t k, list known):
        """What of the store a program reads: (at, slot, count, learner or None, frozen)."""
        cdef _Program program = self.programs[k]
        cdef list kept = []
        cdef fg_callee *c = program.body.callee
        cdef fg_id v, slot
        cdef Py_ssize_t j
        cdef Piece *p
        program.look()
        for v in range(program.n_inputs, program.n_segments):
            slot = c.segments[v].first
            for j in range(program.begins[v - program.n_inputs], program.begins[v - program.n_inputs + 1]):
                p = &program.pieces[j]
                o = program.captured[p.which]
                if not program.listed[v]:   # all of it lies behind the first
                    self.join(known, kept, first_of(o) + p.offset, c.segments[v].count, slot, o,
                              first_of(o) + p.offset - first_slot(o))
                    break
                self.join(known, kept, first_of(o) + p.offset, p.count, slot, o,
                          first_of(o) + p.offset - first_slot(o))
                slot += p.count
        for first, x in self.fixed[k]:
            slot = <fg_id>first + 1
            if isinstance(x, (Value, Tensor)):
                if isinstance(x, Tensor) and (<Tensor>x).constant:
                    x = x.numpy()
                elif isinstance(x, Tensor) and not lies_dense(<Tensor>x):
                    raise ArgumentError("an argument is a Tensor whose elements do not lie in order")
                else:
                    self.join(known, kept, first_slot(x), <fg_id>(x.size if isinstance(x, Tensor) else 1), slot, x, 0)
                    continue
            array = memoryview(x).cast("B").cast("d")
            kept.append((self.loop.count, slot, len(array), None, True))
            self.constants.append((array, self.loop.count))
            self.loop.count += len(array)
        kept.sort()
        return kept

    cdef int join(self, list known, list kept, fg_id first, fg_id count, fg_id slot, object o, fg_id offset) except -1:
        """Enter the numbers in a row that a program has from `slot` on; what is not known yet gets its place."""
        cdef Py_ssize_t k
        cdef fg_id n, start, size
        while count > 0:
            k = count_up_to(known, first) - 1
            if k >= 0:
                start, size = known[k][0], known[k][1]
                if first < start + size:
                    n = start + size - first
                    n = count if count < n else n
                    kept.append((known[k][2] + (first - start), slot, n, known[k][3], known[k][4]))
                    first, slot, offset, count = first + n, slot + n, offset + n, count - n
                    continue
            n = count
            if k + 1 < len(known):
                start = known[k + 1][0]
                n = start - first if start - first < n else n
            self.expect_leaves(first, n, o)
            start = 1
            while start < n and fg_tape_op(&tape, first + start) == fg_tape_op(&tape, first):
                start += 1
            frozen = fg_tape_op(&tape, first) == FG_FROZEN
            known.insert(k + 1, (first, start, self.loop.count, None, frozen))
            self.sources.append((o, offset, start, self.loop.count, None, frozen))
            self.loop.count += start
        return 0

    cdef int fill_gaps(self, list kept) except -1:
        """Enter what is updated and the program does not read."""
        cdef Py_ssize_t k = 0, at, end, n = len(kept)
        cdef list more = []
        for _, _, length, begin, learner, frozen in self.sources:
            if learner is None:
                continue
            at, end = begin, begin + length
            k = count_up_to(kept, at - 1)
            while at < end:
                if k < n and kept[k][0] <= at:
                    at = kept[k][0] + kept[k][2]
                    k += 1
                    continue
                stop = kept[k][0] if k < n and kept[k][0] < end else end
                more.append((at, 0, stop - at, learner, frozen))
                at = stop
        kept.extend(more)
        kept.sort()
        return 0

    cdef int set_kept(self, fg_lesson *lesson, list kept) except -1:
        cdef fg_kept *e
        cdef size_t n = 0, end = 0
        PyMem_Free(lesson.kept)
        lesson.n_kept, lesson.planned = 0, False
        lesson.kept = <fg_kept *>PyMem_Calloc(len(kept) + 1, sizeof(fg_kept))
        if lesson.kept == NULL:
            raise MemoryError()
        for at, slot, count, learner, frozen in kept:
            if <size_t>at < end:
                raise ArgumentError("an argument is a Value or a Tensor that is read twice: as another argument, or as "
                                    "one that the function captures")
            e = &lesson.kept[n]
            e.at, e.slot, e.count, e.frozen = at, slot, count, frozen
            e.learner = FG_MAX_ID if learner is None else <fg_id>learner
            end = e.at + e.count
            if n > 0 and e.at == e[-1].at + e[-1].count and e.learner == e[-1].learner and e.frozen == e[-1].frozen \
                    and (e.slot == e[-1].slot + e[-1].count if e[-1].slot > 0 else e.slot == 0):
                e[-1].count += e.count
            else:
                n += 1
        lesson.n_kept = n
        return 0

    def flows(self, Py_ssize_t k, list inputs not None):
        """Whether gradients flow from the results of program k to what is updated, or to one of these inputs, counted
        from 0. After look()."""
        cdef _Program program
        cdef fg_program *p
        cdef fg_lesson *lesson
        cdef fg_kept *e
        cdef size_t n
        cdef fg_id i
        cdef Py_ssize_t j
        if self.programs is None:
            raise RuntimeError("__init__ has not been called")
        program = self.programs[k]
        p, lesson = (<_Body>program.body).program(), &self.loop.lessons[k]
        for j in inputs:
            if not 0 <= j < <Py_ssize_t>program.n_inputs:
                raise IndexError(f"inputs: expected numbers below {program.n_inputs}, got {j}")
            if program.wanted[j]:
                return True
        for n in range(lesson.n_kept):
            e = &lesson.kept[n]
            if e.learner != FG_MAX_ID and e.slot > 0 and not e.frozen:
                for i in range(e.slot, e.slot + e.count):
                    if p.used[i >> 6] >> (i & 63) & 1:
                        return True
        return False

    cdef void take(self) noexcept:
        """From the tape into the store. No Python code."""
        cdef fg_id i
        cdef Py_ssize_t offset, count, at
        for first, offset, count, at, _, _ in self.sources:
            i = first_slot(first) + <fg_id>offset
            memcpy(self.loop.data + at, tape.data + i, count * sizeof(double))
            memcpy(self.loop.grad + at, tape.grad + i, count * sizeof(double))

    cdef void give(self) noexcept:
        """And back, after steps. No Python code."""
        cdef fg_id i
        cdef Py_ssize_t offset, count, at
        tape.writes += 1
        for first, offset, count, at, learner, frozen in self.sources:
            i = first_slot(first) + <fg_id>offset
            if frozen:
                if learner is not None:   # zero_grad() does not ask
                    memset(fg_tape_gradient(&tape, i), 0, count * sizeof(double))
                continue
            memcpy(tape.grad + i, self.loop.grad + at, count * sizeof(double))
            if learner is not None:
                memcpy(tape.data + i, self.loop.data + at, count * sizeof(double))


cdef int copy_numbers(double *to, object numbers) except -1:
    """Precondition: there is at least one: memoryview.cast() takes nothing less."""
    cdef const double[::1] given = numbers
    memcpy(to, &given[0], given.shape[0] * sizeof(double))
    return 0
