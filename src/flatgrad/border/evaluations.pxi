# evaluations.pxi: Values and gradients of programs as plain numbers, off the tape and without the GIL.
#
# A thread that evaluates takes a copy of the program that no other thread is in, reads the operands into it, lets the
# GIL go, computes, and takes the GIL again. No node is appended, and no gradient on the tape changes.
#
# Uses callees, copies, criteria, handles, messages, numbers, operands, programs, tape.

@cython.final
@cython.auto_pickle(False)
cdef class _Evaluator(_Copies):
    """The value of a program with one result, and its gradient.

    Parameters
    ----------
    program : _Program
    wanted : list of int
        Inputs whose gradients are returned, in this order.
    parameters : list of Value and Tensor, optional
        Instead of those: what the program may have captured. Gradients are returned in this order, 0 where the program
        does not have it.
    varies : list of bool, optional
        For each input, whether it is another for each sample of a batch.
    n_samples : int, optional
        How many samples there are expected in that case.
    single : bool, optional
        Whether such a batch is computed in floats of 32 bits.
    places : list of int, optional
        Calls give a vector: for each of its numbers its place among the numbers that the program has captured, counted
        from 0, or -1. It takes the place of what is on the tape. Gradients are returned by the numbers of the vector.
    begin : int, optional
        Gradients are returned by its numbers from this one on.
    lenient : bool, optional
        Whether numbers outside of an operation's domain are no error, and results C's.

    Attributes
    ----------
    count : int
        How many numbers the gradient has; of a batch without those of inputs that vary.
    width : int
        How many samples are computed at once.

    Raises
    ------
    NotImplementedError
        If the program calls something that cannot be copied.
    """

    def __init__(self, _Program program not None, list wanted not None, list parameters=None, list varies=None,
                 n_samples=1, bint single=False, list places=None, Py_ssize_t begin=0, bint lenient=False):
        cdef Py_ssize_t k, n, j
        cdef fg_stretch *s
        cdef Copy made
        if self.program is not None or program.body is None or type(program.body) is not _Body:
            raise TypeError("an evaluator is made once, of a program of one sample")
        n = program.n_inputs
        if not all([type(x) is int and 0 <= x < n for x in wanted]) or varies is not None and len(varies) != n:
            raise ValueError(f"expected some of {n} inputs, and whether each of them varies")
        if type(n_samples) is not int or not 0 < n_samples < MOST_NODES:
            raise ValueError(f"n_samples: expected a number of samples, got {describe(n_samples)}")
        if varies is not None and program.body.callee.n_results != 1:
            raise ValueError("expected a program of one result")
        if places is not None and (wanted or parameters is not None or varies is not None):
            raise ValueError("places: expected None besides inputs, parameters or samples")
        flags = bytearray(program.n_segments)
        for k in range(program.n_segments):
            flags[k] = parameters is not None if k >= n else k in wanted
        self.wanted, self.n_samples, self.single, self.lenient = bytes(flags), n_samples, single, lenient
        if varies is not None:
            self.varying = bytes([bool(x) for x in varies]) + bytes(program.n_segments - n)
            self.rows = tuple([k for k in wanted if self.varying[k]])
        self.count = 0 if parameters is None else count_numbers("parameters", tuple(parameters))
        if places is not None:
            self.find_given(program, places, begin)
            for k in range(n, program.n_segments):
                s = &program.body.callee.segments[k]
                for j in range(self.n_found):   # one may reach over several segments
                    flags[k] = flags[k] or (self.found[j].place < s.first + s.count
                                            and s.first < self.found[j].place + self.found[j].count)
            self.wanted = bytes(flags)
        elif parameters is None:
            self.find_inputs(program, [k for k in wanted if varies is None or not self.varying[k]])
        self.parameters = parameters
        self.program = program
        made = self.take_copy()
        self.width = 1
        if made.lanes != NULL:   # and no more than are expected, for some lanes may never have a sample
            self.width = <Py_ssize_t>fg_lanes_width(made.lanes)
            self.width = self.width if self.width < n_samples else n_samples
        self.give_copy(&made)

    # ---- one sample ----

    def __call__(self, operands not None, vector=None):
        """The value and the gradient.

        Parameters
        ----------
        operands : list
            For each input a Value, a Tensor, a number or an array of its shape.
        vector : array_like of float, optional
            With `places`.

        Returns
        -------
        value : float
        gradient : ndarray of float64, shape (count,)
            None, and no value, if there are parameters, and their gradients may flow through the tape: something that
            is captured is no leaf, or an operand takes a gradient.
        """
        cdef Copy c
        cdef double value = 0.0
        cdef const double *numbers = NULL
        cdef Py_buffer gradient
        cdef int status
        cdef list given = operands, keep = []
        cdef Operand[FEW] few
        cdef Operand *taken = few
        if len(given) > FEW:
            scratch = bytearray(len(given) * sizeof(Operand))
            taken = <Operand *><char *>scratch
        self.refuse(False)
        self.take_operands(given, taken, keep)
        numpy_is_there()
        if self.given != NULL:
            numbers = self.take_vector(vector, keep)
        result = np.zeros(self.count)
        PyObject_GetBuffer(result, &gradient, PyBUF_WRITABLE)
        PyBuffer_Release(&gradient)   # nobody else has the array
        c = self.take_copy()
        try:
            while self.parameters is not None and self.moves != handle_moves:
                self.find_parameters()
            if not self.read(taken, c.program.body.data) and self.parameters is not None:
                return None, None
            if self.given != NULL:
                self.give(numbers, c.program.body.data)
            self.check_signs(c.program.body.data)
            while True:
                with nogil:
                    status = fg_evaluate(c.program, 0, self.lenient, &value)
                if status != FG_E_INTERRUPTED:
                    break
                PyErr_CheckSignals()
            if status < 0:
                call_failed_in(&c.program.callee, status, self.program.body.where())
            if self.count > 0:
                self.add_gradients(c.program.body.grad, <double *>gradient.buf)
            return value, result
        finally:
            self.give_copy(&c)

    def values(self, operands not None, vector=None):
        """All results.

        Parameters
        ----------
        operands, vector
            As for a call.

        Returns
        -------
        ndarray of float64, shape (n_results,)
        """
        cdef Copy c
        cdef double[::1] values
        cdef double *to
        cdef const double *numbers = NULL
        cdef int status
        cdef list given = operands, keep = []
        cdef Operand[FEW] few
        cdef Operand *taken = few
        if len(given) > FEW:
            scratch = bytearray(len(given) * sizeof(Operand))
            taken = <Operand *><char *>scratch
        self.refuse(False)
        self.take_operands(given, taken, keep)
        numpy_is_there()
        if self.given != NULL:
            numbers = self.take_vector(vector, keep)
        results = np.zeros(self.program.body.callee.n_results)
        values = results
        to = &values[0]
        c = self.take_copy()
        try:
            self.read(taken, c.program.body.data)
            if self.given != NULL:
                self.give(numbers, c.program.body.data)
            self.check_signs(c.program.body.data)
            while True:
                with nogil:
                    status = fg_evaluate_values(c.program, self.lenient, to)
                if status != FG_E_INTERRUPTED:
                    break
                PyErr_CheckSignals()
            if status < 0:
                call_failed_in(&c.program.callee, status, self.program.body.where())
            return results
        finally:
            self.give_copy(&c)

    def table(self, operands not None, vector=None, Py_ssize_t first=0):
        """All results, and the gradient of each from one on by the inputs that are wanted.

        Parameters
        ----------
        operands, vector
            As for a call.
        first : int, optional
            The first result whose gradient is returned.

        Returns
        -------
        values : ndarray of float64, shape (n_results,)
        table : ndarray of float64, shape (n_results - first, count)
            With `places`, of all numbers of segments with some of the vector's: see `columns`.
        """
        cdef Copy c
        cdef double[::1] values
        cdef double[:, ::1] rows
        cdef double *of_results
        cdef double *of_rows
        cdef const double *numbers = NULL
        cdef int status
        cdef fg_id done = 0, k
        cdef Py_ssize_t width = 0
        cdef list given = operands, keep = []
        cdef Operand[FEW] few
        cdef Operand *taken = few
        cdef const uint8_t *wanted
        if len(given) > FEW:
            scratch = bytearray(len(given) * sizeof(Operand))
            taken = <Operand *><char *>scratch
        self.refuse(False)
        wanted = <const uint8_t *><const char *>self.wanted
        for k in range(self.program.n_segments):
            width += self.program.body.callee.segments[k].count if wanted[k] else 0
        if self.parameters is not None or width == 0 or not 0 <= first < self.program.body.callee.n_results:
            raise ValueError("wanted: expected inputs")
        self.take_operands(given, taken, keep)
        numpy_is_there()
        if self.given != NULL:
            numbers = self.take_vector(vector, keep)
        results, table = np.zeros(self.program.body.callee.n_results), np.zeros(
            (self.program.body.callee.n_results - first, width))
        values, rows = results, table
        of_results, of_rows = &values[0], &rows[0, 0]
        c = self.take_copy()
        try:
            self.read(taken, c.program.body.data)
            if self.given != NULL:
                self.give(numbers, c.program.body.data)
            self.check_signs(c.program.body.data)
            while True:
                with nogil:
                    status = fg_evaluate_all(c.program, wanted, <fg_id>first, self.lenient, of_results, of_rows, &done)
                if status != FG_E_INTERRUPTED:
                    break
                PyErr_CheckSignals()
            if status < 0:
                call_failed_in(&c.program.callee, status, self.program.body.where())
            return results, table
        finally:
            self.give_copy(&c)

    @property
    def columns(self):
        """With `places`: for each number of the vector by which gradients are returned, the column of `table` that is
        its, or -1."""
        cdef Py_ssize_t j
        cdef fg_id k, e
        cdef dict known = {}
        found = [-1] * self.count
        for k in range(self.program.n_segments):
            for e in range(self.program.body.callee.segments[k].count if self.wanted[k] else 0):
                known[self.program.body.callee.segments[k].first + e] = len(known)
        for j in range(self.n_found):
            for e in range(self.found[j].count):
                found[self.found[j].at + e] = known[self.found[j].place + e]
        return found

    # ---- batches ----

    def shared(self, operands not None):
        """The numbers that are the same for all samples, as they are now.

        Parameters
        ----------
        operands : list
            For each input; those that vary are not looked at.

        Returns
        -------
        ndarray of float64 or None
            For `sum`. None as for a single sample.
        """
        cdef double[::1] numbers
        cdef list given = operands, keep = []
        cdef Operand *taken
        self.refuse(True)
        scratch = bytearray((len(given) + 1) * sizeof(Operand))
        taken = <Operand *><char *>scratch
        self.take_operands(given, taken, keep)
        numpy_is_there()
        result = np.zeros((<_Body>self.program.body).program().area + 1)
        numbers = result
        while self.parameters is not None and self.moves != handle_moves:
            self.find_parameters()
        if not self.read(taken, &numbers[0]) and self.parameters is not None:
            return None
        self.check_signs(&numbers[0])
        return result

    def sum(self, const double[::1] shared not None, list columns not None, list to not None, Py_ssize_t first,
            Py_ssize_t count, Py_ssize_t chunk, double seed, double[::1] gradient not None):
        """The sum of the results of some samples, and gradients.

        Parameters
        ----------
        shared : ndarray of float64
            What `shared` has returned.
        columns : list of ndarray of float64, shape (n_samples, numbers of the input)
            For each input that varies.
        to : list of ndarray
            For each input that varies and is wanted: its gradients come there. Of the same shapes.
        first, count : int
            The samples.
        chunk : int
            So many samples are added up for themselves, and then these sums.
        seed : float
            The gradient of each result.
        gradient : ndarray of float64
            The other gradients are added to it.

        Returns
        -------
        float
        """
        cdef Copy c
        cdef fg_program *p
        cdef const double[:, ::1] column
        cdef double[:, ::1] row
        cdef const double **begins
        cdef double **ends
        cdef const double **source
        cdef double **target
        cdef double total = 0.0, part = 0.0
        cdef Py_ssize_t k, j, n, size, n_segments
        cdef fg_stretch *s
        cdef int status = 0
        cdef double *grad
        self.refuse(True)
        p = (<_Body>self.program.body).program()
        n_segments = self.program.n_segments
        places = [k for k in range(self.program.n_inputs) if self.varying[k]]
        if (shared.shape[0] != <Py_ssize_t>p.area + 1 or len(columns) != len(places) or len(to) != len(self.rows)
                or gradient.shape[0] != self.count or first < 0 or count < 1 or chunk < 1):
            raise ValueError("expected the numbers of this program, and samples")
        scratch = bytearray(4 * (n_segments + 1) * sizeof(double *))
        begins = <const double **><char *>scratch
        ends = <double **>(begins + n_segments)
        source, target = begins + 2 * n_segments, ends + 2 * n_segments
        views = []
        for k, x in zip(places, columns):
            column = x
            if column.shape[0] - first < count or <fg_id>column.shape[1] != self.program.body.callee.segments[k].count:
                raise ValueError("columns: expected a row for each sample")
            begins[k] = &column[0, 0]
            views.append(memoryview(x))   # nobody gives its memory back
            s = &self.program.body.callee.segments[k]
            for number in self.program.signs:
                if <Py_ssize_t>s.first <= number < <Py_ssize_t>(s.first + s.count):
                    j = number - s.first
                    for n in range(first, first + count):
                        if not is_sign(column[n, j], NEAR_SIGN):
                            raise DataError(f"target: expected -1 or 1, got {column[n, j]}")
        for k, x in zip(self.rows, to):
            row = x
            if row.shape[0] - first < count or <fg_id>row.shape[1] != self.program.body.callee.segments[k].count:
                raise ValueError("to: expected a row for each sample")
            ends[k] = &row[0, 0]
            views.append(memoryview(x))
        grad = &gradient[0] if self.count > 0 else NULL
        c = self.take_copy()
        try:
            self.enter(c.program, &shared[0])
            fg_lanes_changed(c.lanes)
            n = 0
            while n < count:
                with nogil:
                    while n < count:
                        size = chunk if chunk < count - n else count - n
                        for k in range(n_segments):
                            j = self.program.body.callee.segments[k].count
                            source[k] = begins[k] + (first + n) * j if begins[k] != NULL else NULL
                            target[k] = ends[k] + (first + n) * j if ends[k] != NULL else NULL
                        status = fg_lanes_sum(c.lanes, source, target, size, seed, &part)
                        if status != 0:
                            break
                        total += part
                        self.add_gradients(c.program.body.grad, grad)
                        n += size
                if status == FG_E_INTERRUPTED:
                    PyErr_CheckSignals()
                elif status != 0:
                    call_failed_in(<fg_callee *>c.lanes, status, self.program.body.where())
            return total
        finally:
            self.give_copy(&c)


def _takes_gradients(_Program program not None):
    """Whether gradients flow to numbers that a program has captured."""
    cdef fg_id k, i, first
    cdef Py_ssize_t n
    if program.body is None:
        raise RuntimeError("a program is made by a recording")
    for k in range(program.n_inputs, program.n_segments):
        if not program.wanted[k]:
            continue
        for n in range(program.begins[k - program.n_inputs], program.begins[k - program.n_inputs + 1]):
            first = first_of(program.captured[program.pieces[n].which]) + program.pieces[n].offset
            for i in range(first, first + <fg_id>program.pieces[n].count):
                if tape.op[i] != FG_FROZEN:
                    return True
    return False
