# training.pxi: The steps of a training loop by programs, many in one call.
#
# While steps are taken, the GIL is released and parameters are in the bodies of programs. Before any Python code can
# run they are back on the tape, as the last whole step has left them.
#
# Uses callees, handles, messages, operands, parameters, programs, python, tape.

cdef object seconds = time.perf_counter


cdef int loop_stop_wanted() noexcept nogil:
    """stop_wanted(), for who does not hold the GIL."""
    with gil:
        return stop_wanted()


@cython.final
@cython.auto_pickle(False)
cdef class _Loop:
    """Steps of training: a batch, a program, its gradients, an update.

    Parameters
    ----------
    programs : list of _Program
        One, or two of the same function: for all batches but the last, and for the last of an epoch, if that is
        smaller. Result 0 is the loss, a Value. Nobody else calls them.
    rows : list of int
        How many samples are in a batch of each.
    n_samples : int
    parameters : list of Parameters
        What is updated.
    columns : list of ndarray of float64, shape (n_samples, width)
        What samples have. They are read at each step.
    starts : list of list of int
        For each program, and each column in it, the first of its operands that a batch of the column fills, counted
        from 0.
    fixed : list of list of (int, Value, Tensor or ndarray)
        For each program the operands that are the same at each step: the first, and the numbers.
    labels : ndarray of int64, shape (n_samples,), optional
        The labels for the only cross entropy in the programs.
    picky : bool
        Whether to stop before the step of a loss that is not finite.

    Notes
    -----
    Gradients of what is not updated add up over the steps, as they do on the tape.
    """
    cdef fg_loop loop
    cdef list programs, several, columns, fixed
    cdef list sources       # (object, offset, count, at, learner or None, frozen) of what the tape has
    cdef list constants     # (array, at)
    cdef object labels
    cdef bytearray label    # a copy of the labels
    cdef size_t n_classes, room
    cdef long long moves
    cdef size_t budget      # how many steps to take before Python is asked for signals
    cdef bint alone, running

    def __cinit__(self):
        self.loop.at = -1
        self.moves, self.budget = -1, 1

    def __dealloc__(self):
        cdef int k
        fg_loop_free(&self.loop)
        for k in range(2):
            PyMem_Free(self.loop.lessons[k].kept)
            PyMem_Free(self.loop.lessons[k].slots)
        PyMem_Free(self.loop.learners)
        PyMem_Free(self.loop.columns)
        PyMem_Free(self.loop.data)

    def __init__(self, list programs not None, list rows not None, Py_ssize_t n_samples, list parameters not None,
                 list columns not None, list starts not None, list fixed not None, labels=None, bint picky=False):
        cdef fg_lesson *lesson
        cdef _Program program
        cdef const double[:, ::1] numbers
        cdef const int64_t[::1] given
        cdef Py_ssize_t k, c, first, size
        if self.programs is not None:
            raise RuntimeError("a loop is made once")
        if not (1 <= len(programs) <= 2 and len(rows) == len(starts) == len(fixed) == len(programs)
                and n_samples >= 1 and not (len(programs) == 2 and programs[0] is programs[1])):
            raise ValueError("programs: expected one or two, and rows, starts and fixed operands of each")
        if not (1 <= rows[0] <= n_samples) or (n_samples % rows[0] != 0) != (len(rows) == 2) or (
                len(rows) == 2 and rows[1] != n_samples % rows[0]):
            raise ValueError(f"rows: expected those of the batches of {n_samples} samples, got {rows}")
        self.several, self.columns, self.fixed = list(parameters), list(columns), list(fixed)
        for one in self.several:
            if type(one) is not Parameters:
                raise ArgumentTypeError(f"parameters: expected Parameters, got {describe(one)}")
        self.loop.learners = <fg_learner *>PyMem_Calloc(len(self.several) + 1, sizeof(fg_learner))
        self.loop.columns = <fg_column *>PyMem_Calloc(len(self.columns) + 1, sizeof(fg_column))
        if self.loop.learners == NULL or self.loop.columns == NULL:
            raise MemoryError()
        for c in range(len(self.columns)):
            numbers = self.columns[c]
            if numbers.shape[0] != n_samples or numbers.shape[1] < 1:
                raise ValueError(f"columns[{c}]: expected {n_samples} rows, got {numbers.shape[0]}")
            self.loop.columns[c].from_ = &numbers[0, 0]
            self.loop.columns[c].width = numbers.shape[1]
        self.columns = [memoryview(column) for column in self.columns]   # nobody gives their memory back
        self.loop.n_columns = <fg_id>len(self.columns)
        self.loop.n_samples, self.loop.picky = n_samples, picky
        self.alone = True
        for k in range(len(programs)):
            if type(programs[k]) is not _Program or (<_Program>programs[k]).body is None or type(
                    (<_Program>programs[k]).body) is not _Body:
                raise ArgumentTypeError(f"programs[{k}]: expected a _Program, got {describe(programs[k])}")
            program, lesson = programs[k], &self.loop.lessons[k]
            lesson.program, lesson.rows = (<_Body>program.body).program(), rows[k]
            self.alone = self.alone and lesson.program.body.n_programs == 0
            size = 0   # of the inputs: they come first, without holes
            for c in range(program.n_inputs):
                size += lesson.program.callee.segments[c].count
            if program.results[0][0] != () or lesson.program.results[0] <= lesson.program.area:
                raise ArgumentError("the loss does not depend on anything by an operation")
            lesson.slots = <fg_id *>PyMem_Calloc(len(self.columns) + 1, sizeof(fg_id))
            if lesson.slots == NULL:
                raise MemoryError()
            for c in range(len(self.columns)):
                first = starts[k][c]
                if not 0 <= first <= size - <Py_ssize_t>(lesson.rows * self.loop.columns[c].width):
                    raise ValueError(f"starts[{k}][{c}]: {first} is no operand that such a column begins with")
                lesson.slots[c] = <fg_id>first + 1
            for first, x in fixed[k]:
                count = 1 if isinstance(x, Value) else x.size
                if not 0 <= first <= size - <Py_ssize_t>count:
                    raise ValueError(f"fixed[{k}]: {first} is no operand that {describe(x)} can be")
        if labels is not None:
            given = labels
            if given.shape[0] != n_samples:
                raise ValueError(f"labels: expected {n_samples}, got {given.shape[0]}")
            self.label = bytearray(n_samples * sizeof(int64_t))
            for k in range(len(programs)):
                lesson = &self.loop.lessons[k]
                lesson.labels = fg_loop_labels(lesson.program, lesson.rows, &self.n_classes)
                if lesson.labels == NULL:
                    raise ArgumentError("labels: expected a program with one cross entropy of as many rows")
        self.labels = labels
        self.loop.n_lessons = <int>len(programs)
        self.loop.n_learners = <fg_id>len(self.several)
        self.programs = list(programs)
        fg_loop_prepare(&self.loop)

    # ---- where numbers are ----

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
                    self.expect_leaves(i, <fg_id>length)
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
        for first, at in self.constants:
            copy_numbers(self.loop.data + at, first)
        self.moves = handle_moves
        for one in self.several:
            if one.moves != self.moves:
                self.moves = -1
        return 0

    cdef int expect_leaves(self, fg_id first, fg_id count) except -1:
        cdef fg_id i
        for i in range(first, first + count):
            if not fg_op_is_leaf(tape.op[i]):   # nor has it a rule of its own
                raise ArgumentError("it reads a Value that is computed, or has a rule of its own, outside of the loop")
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
            k = bisect.bisect_left(known, (first + 1,)) - 1
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
            self.expect_leaves(first, n)
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
            k = bisect.bisect_right(kept, (at,))
            while at < end:
                if k < n and kept[k][0] <= at:
                    at = kept[k][0] + kept[k][2]
                    k += 1
                    continue
                stop = min(end, kept[k][0]) if k < n else end
                more.append((at, 0, stop - at, learner, frozen))
                at = stop
        kept.extend(more)
        kept.sort()
        return 0

    cdef int set_kept(self, fg_lesson *lesson, list kept) except -1:
        cdef fg_kept *e
        cdef size_t n = 0, end = 0
        PyMem_Free(lesson.kept)
        lesson.n_kept = 0
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
        for first, offset, count, at, learner, frozen in self.sources:
            i = first_slot(first) + <fg_id>offset
            if frozen:
                if learner is not None:   # zero_grad() does not ask
                    memset(fg_tape_gradient(&tape, i), 0, count * sizeof(double))
                continue
            memcpy(tape.grad + i, self.loop.grad + at, count * sizeof(double))
            if learner is not None:
                memcpy(tape.data + i, self.loop.data + at, count * sizeof(double))

    # ---- steps ----

    cdef int learn(self, list rates) except -1:
        """What the optimizer says, for the next steps."""
        cdef Parameters one
        cdef fg_learner *e
        cdef Py_ssize_t k
        cdef double lr
        for k, one in enumerate(self.several):
            e = &self.loop.learners[k]
            lr = rates[k]
            e.rule, e.how, e.lr, e.lr_decay, e.steps = one.rule, one.how, lr, one.lr_decay, one.steps
            e.state[0] = &one.a[0] if one.a is not None and one.count else NULL
            e.state[1] = &one.b[0] if one.b is not None and one.count else NULL
            e.state[2] = &one.c[0] if one.c is not None and one.count else NULL
        return 0

    cdef int note(self) except -1:
        """What it keeps of them. Runs Python code."""
        cdef Parameters one
        cdef Py_ssize_t k
        for k, one in enumerate(self.several):
            one.how.first, one.steps = self.loop.learners[k].how.first, <long long>self.loop.learners[k].steps
            if one.rule == FG_ADAM or one.rule == FG_ADAGRAD:
                one.name, one.number = "step", one.steps
        for one in self.several:
            one.note_step()
        return 0

    def run(self, Py_ssize_t steps, list rates not None, order, double[::1] losses not None, kept=None,
            double pause=INFINITY):
        """Take steps.

        Parameters
        ----------
        steps : int
        rates : list of float
            The learning rate of each of `parameters`. Their other settings are those of their rule.
        order : ndarray of int64, shape (epochs * n_samples,), or None
            Which sample comes where, in the epochs that the steps are of; the first step goes on where the last call
            ended. None: as they are.
        losses : ndarray of float64
            The losses of the steps come there.
        kept : ndarray of float64, shape (n_samples, width), optional
            The other results of the steps come there, those of each epoch in place of the last one's.
        pause : float, optional
            After so many seconds it returns, whether it is done or not.

        Returns
        -------
        done : int
            How many steps there were.
        number : float or None
            The loss that is not finite, if one has stopped it.
        """
        cdef const int64_t[::1] places
        cdef double[:, ::1] results
        cdef size_t n = self.loop.n_samples, size, goal, before
        cdef Py_ssize_t k
        cdef int status = 0, at = 0
        cdef double began, elapsed, until
        if self.programs is None:
            raise RuntimeError("__init__ has not been called")
        if self.running:
            raise RuntimeError("this loop is running")
        if FG_UNLIKELY(recordings != 0):
            refuse_recording("training")
        if steps < 0 or losses.shape[0] < steps or len(rates) != len(self.several):
            raise ValueError("expected steps, a learning rate for each of the parameters, and room for losses")
        if steps == 0:
            return 0, None
        size = self.loop.lessons[0].rows
        self.loop.order = NULL
        if order is not None:
            places = order
            if <size_t>places.shape[0] < ((self.loop.begin // size + steps - 1) // ((n + size - 1) // size) + 1) * n:
                raise ValueError("order: expected one for each epoch")
            for k in range(places.shape[0]):
                if not 0 <= places[k] < <int64_t>n:
                    raise ValueError(f"order[{k}]: expected a sample from 0 to {n - 1}, got {places[k]}")
            self.loop.order = &places[0]
        self.loop.kept = NULL
        if kept is not None:
            results = kept
            for k in range(self.loop.n_lessons):
                if <size_t>results.shape[0] != n or self.loop.lessons[k].program.callee.n_results != (
                        1 + self.loop.lessons[k].rows * results.shape[1]) or results.shape[1] < 1:
                    raise ValueError("kept: expected room for the other results")
            self.loop.kept, self.loop.kept_width = &results[0, 0], results.shape[1]
        if self.labels is not None:
            self.take_labels()
        self.loop.losses, self.loop.done, self.loop.epoch = &losses[0], 0, 0
        self.running = True
        until = seconds() + pause
        try:
            while self.loop.done < <size_t>steps and status != FG_LOOP_DIVERGED:
                while self.moves != handle_moves:
                    self.place()
                self.learn(rates)
                self.take()
                began = seconds()
                before = self.loop.done
                goal = before + self.budget
                status = self.go_on(goal if goal < <size_t>steps else <size_t>steps, &at)
                if self.loop.done > before:
                    self.give()
                    self.note()
                elapsed = seconds() - began
                if elapsed < 0.01 and goal <= <size_t>steps:   # it was all of the budget
                    self.budget *= 2
                elif elapsed > 0.03 and self.budget > 1:
                    self.budget //= 2
                if status < 0 and status != FG_E_INTERRUPTED:
                    call_failed(&self.loop.lessons[at].program.callee, status)
                PyErr_CheckSignals()
                if began + elapsed >= until:
                    break
        finally:
            self.running = False
            self.loop.order, self.loop.losses, self.loop.kept = NULL, NULL, NULL
        if status != FG_LOOP_DIVERGED:
            return <Py_ssize_t>self.loop.done, None
        return <Py_ssize_t>self.loop.done, self.loss_at(at)

    @property
    def done(self):
        """How many steps the last run() has taken."""
        return self.loop.done

    cdef object loss_at(self, int at):
        cdef fg_program *p = self.loop.lessons[at].program
        return p.body.data[p.results[0]]

    cdef int take_labels(self) except -1:
        """The labels, for they may have changed, checked."""
        cdef const int64_t[::1] given = self.labels
        cdef int64_t *numbers = <int64_t *><char *>self.label
        cdef size_t k
        for k in range(self.loop.n_samples):
            numbers[k] = given[k]
            if not 0 <= numbers[k] < <int64_t>self.n_classes:
                raise DataError(f"target[{k}]: expected 0 to {self.n_classes - 1}, got {numbers[k]}")
        self.loop.label = numbers
        return 0

    cdef int go_on(self, size_t goal, int *at) noexcept:
        """Take steps until there are `goal`, and leave the numbers in the store."""
        cdef int k, status
        for k in range(self.loop.n_lessons):
            if self.alone:
                self.loop.lessons[k].program.body.stop = loop_stop_wanted
        if self.alone:
            with nogil:
                status = fg_loop_run(&self.loop, goal, at)
                fg_loop_settle(&self.loop)
        else:   # who else calls the programs that these call must not do so meanwhile
            status = fg_loop_run(&self.loop, goal, at)
            fg_loop_settle(&self.loop)
        for k in range(self.loop.n_lessons):
            self.loop.lessons[k].program.body.stop = stop_wanted
        return status


cdef int copy_numbers(double *to, object numbers) except -1:
    cdef const double[::1] given = numbers
    if given.shape[0] > 0:
        memcpy(to, &given[0], given.shape[0] * sizeof(double))
    return 0
