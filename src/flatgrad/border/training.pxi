# training.pxi: The steps of a training loop by programs, many in one call.
#
# While steps are taken, the GIL is released and parameters are in the bodies of programs. Before any Python code can
# run they are back on the tape, as the last whole step has left them.
#
# Uses anomaly, callees, contexts, draws, handles, messages, parameters, programs, python, tape.

cdef object seconds = time.perf_counter


cdef int loop_stop_wanted() noexcept nogil:
    """stop_wanted(), for who does not hold the GIL."""
    with gil:
        return stop_wanted()


@cython.final
@cython.auto_pickle(False)
cdef class _Loop(_Store):
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
    draws : list of _Draws or None, optional
        What each program draws at random at each step.
    begin : int, optional
        The sample in an epoch with which the first batch begins.
    most_norm, most : float, optional
        The largest norm of the gradients of a step, or the largest size of each of them: see flatgrad.optim.clip.

    Notes
    -----
    Gradients of what is not updated add up over the steps, as they do on the tape.
    """
    cdef object labels
    cdef list draws         # of each program, or None
    cdef bytearray label    # a copy of the labels
    cdef size_t n_classes
    cdef size_t budget      # how many steps to take before Python is asked for signals
    cdef bint alone, running

    def __cinit__(self):
        self.budget = 1

    def __init__(self, list programs not None, list rows not None, Py_ssize_t n_samples, list parameters not None,
                 list columns not None, list starts not None, list fixed not None, labels=None, bint picky=False,
                 list draws=None, Py_ssize_t begin=0, double most_norm=INFINITY, double most=INFINITY):
        cdef fg_lesson *lesson
        cdef _Program program
        cdef const double[:, ::1] numbers
        cdef const int64_t[::1] given
        cdef Py_ssize_t k, c, first, size
        cdef _Draws drawn
        if self.loop.learners != NULL:   # it may have failed then
            raise RuntimeError("a loop is made once")
        if not (1 <= len(programs) <= 2 and len(rows) == len(starts) == len(fixed) == len(programs)
                and n_samples >= 1 and not (len(programs) == 2 and programs[0] is programs[1])):
            raise ValueError("programs: expected one or two, and rows, starts and fixed operands of each")
        if not (1 <= rows[0] <= n_samples) or (n_samples % rows[0] != 0) != (len(rows) == 2) or (
                len(rows) == 2 and rows[1] != n_samples % rows[0]):
            raise ValueError(f"rows: expected those of the batches of {n_samples} samples, got {rows}")
        if not 0 <= begin < n_samples or begin % rows[0] != 0:
            raise ValueError(f"begin: expected a sample that a batch begins with, got {begin}")
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
        self.loop.n_samples, self.loop.picky, self.loop.begin = n_samples, picky, <size_t>begin
        if not (most_norm > 0.0 and most > 0.0 and (most_norm == INFINITY or most == INFINITY)):
            raise ValueError("most_norm and most: expected numbers above 0, and one of them at most")
        if most_norm < INFINITY:
            self.loop.clip, self.loop.bound = FG_CLIP_NORM, most_norm
        elif most < INFINITY:
            self.loop.clip, self.loop.bound = FG_CLIP_VALUE, most
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
            drawn = None if draws is None else draws[k]
            if drawn is not None:
                if size < drawn.size:
                    raise ValueError(f"draws[{k}]: expected numbers that are operands")
                lesson.draws, lesson.n_draws, lesson.drawn = drawn.entries, drawn.count, <fg_id>(size - drawn.size + 1)
                size -= drawn.size
            if program.results[0][0] != ():
                raise ArgumentError(f"expected a loss that is a Value, got a Tensor of shape {program.results[0][0]}")
            if lesson.program.results[0] <= lesson.program.area:
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
        self.draws = draws
        self.loop.n_lessons = <int>len(programs)
        self.loop.n_learners = <fg_id>len(self.several)
        self.programs = list(programs)
        fg_loop_prepare(&self.loop)

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

    def look(self):
        """Find anew where the numbers are; an ArgumentError if they are not those of leaves.

        Returns
        -------
        list of (int, int, bool)
            Of what is updated: where numbers in a row begin, how many they are, and whether they are frozen.
        """
        if self.programs is None:
            raise RuntimeError("__init__ has not been called")
        if self.running:
            raise RuntimeError("this loop is running")
        self.moves = -1
        while self.moves != handle_moves:
            self.place()
        return [(at, count, frozen) for _, _, count, at, learner, frozen in self.sources if learner is not None]

    def run(self, Py_ssize_t steps, rates not None, order, double[::1] losses not None, kept=None,
            double pause=INFINITY):
        """Take steps.

        Parameters
        ----------
        steps : int
        rates : list of float, or ndarray of float64, shape (steps, n)
            The learning rate of each of the n `parameters`, or those of each step. Their other settings are those of
            their rule.
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
        cdef const double[:, ::1] speeds
        cdef size_t n = self.loop.n_samples, size, goal, before
        cdef Py_ssize_t k
        cdef int status = 0, at = 0
        cdef double began, elapsed, until
        cdef list held = []
        if self.programs is None:
            raise RuntimeError("__init__ has not been called")
        if self.running:
            raise RuntimeError("this loop is running")
        self.loop.done = 0
        if FG_UNLIKELY(recordings != 0):
            refuse_recording("training")
        if steps < 0 or losses.shape[0] < steps or len(rates) < 1 <= len(self.several) or (
                type(rates) is list and len(rates) != len(self.several)):
            raise ValueError("expected steps, a learning rate for each of the parameters, and room for losses")
        if steps == 0:
            return 0, None
        self.loop.rates, now = NULL, rates
        if type(rates) is not list:
            speeds, now = rates, [0.0] * len(self.several)
            if speeds.shape[0] < steps or speeds.shape[1] != len(self.several):
                raise ValueError("rates: expected those of each step, one for each of the parameters")
            self.loop.rates = &speeds[0, 0] if self.several else NULL
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
        self.loop.losses, self.loop.done, self.loop.epoch, self.loop.ready = &losses[0], 0, 0, False
        self.running = True
        until = seconds() + pause
        try:
            while self.loop.done < <size_t>steps and status != FG_LOOP_DIVERGED:
                self.lock_draws(held)   # it may wait, so before anything is read
                while self.moves != handle_moves:
                    self.place()
                self.learn(now)
                self.take()
                began = seconds()
                before = self.loop.done
                goal = before + self.budget
                status = self.go_on(goal if goal < <size_t>steps else <size_t>steps, &at)
                if self.loop.done > before:
                    self.give()
                    self.note()
                release_all(held)
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
            release_all(held)
            self.running = False
            self.loop.order, self.loop.losses, self.loop.kept, self.loop.rates = NULL, NULL, NULL, NULL
        if status != FG_LOOP_DIVERGED:
            return <Py_ssize_t>self.loop.done, None
        return <Py_ssize_t>self.loop.done, self.loss_at(at)

    cdef int lock_draws(self, list held) except -1:
        """Nobody else draws from the generators of the programs, until what `held` gets is released."""
        cdef _Draws all
        if self.draws is None:
            return 0
        all = _Draws()
        for draws in self.draws:
            if draws is not None:
                all.hold((<_Draws>draws).sources)
        all.lock(held)
        return 0

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


def _updates():
    """The update rules of optimizers, those of updates.def, as C.

    Returns
    -------
    dict of str to (str, str, str)
        For each function its parameters, a comment and its body; see `fg_update_text`.
    """
    cdef const fg_update_text *u = fg_update_texts
    cdef dict found = {}
    while u.name != NULL:
        found[u.name.decode()] = u.parameters.decode(), u.comment.decode(), u.body.decode()
        u += 1
    return found
