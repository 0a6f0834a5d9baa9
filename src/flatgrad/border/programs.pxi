# programs.pxi: Programs as Python has them: called with an operand for each input, as one instruction.
#
# A program holds what it captured, the Values and Tensors that it reads besides its inputs, and finds it anew at each
# call. How it is recorded is the matter of recordings.pxi; which function it is, and what that takes and returns, is
# known to its caller in Python.
#
# Uses anomaly, callees, contexts, criteria, handles, instructions, messages, operands, python, tape.

# Some numbers of an operand that a program has captured, in a row on the tape.
cdef struct Piece:
    Py_ssize_t which   # of the captured objects
    fg_id offset       # the first of its numbers
    fg_id count


cdef enum:
    FEW = 8   # inputs, whose operands need no memory of their own


cdef inline fg_id first_of(object o) noexcept:
    """The first slot of a captured Value or _Run."""
    return (<_Run>o).id - (<_Run>o).count if type(o) is _Run else (<Value>o).id


cdef int fill_program(_Program made, _Callee body, tuple captured, tuple shapes, tuple results,
                      tuple signs) except -1:
    """Set what a program has, besides its pieces and where they begin."""
    cdef Py_ssize_t k
    cdef fg_id n_inputs = <fg_id>len(shapes)
    made.body, made.captured, made.shapes, made.results, made.signs = body, captured, shapes, results, signs
    made.n_inputs, made.n_segments = n_inputs, body.callee.n_segments
    made.listed = <uint8_t *>PyMem_Calloc(made.n_segments + 1, 1)
    made.wanted = <uint8_t *>PyMem_Calloc(made.n_segments + 1, 1)
    made.inputs = <fg_view *>PyMem_Malloc((n_inputs + 1) * sizeof(fg_view))
    if made.inputs == NULL or made.listed == NULL or made.wanted == NULL:
        raise MemoryError()
    for k in range(n_inputs):
        shape = shapes[k]
        made.inputs[k] = fg_view(<fg_id>len(shape), 0, shape[0] if len(shape) == 2 else 1,
                                 shape[len(shape) - 1] if len(shape) > 0 else 1, 0, 0)
    for k in range(made.n_segments):
        made.wanted[k] = body.callee.steps.wants(body.callee, <fg_id>k)
    made.moves = -1
    return 0


@cython.final
@cython.auto_pickle(False)
cdef class _Program:
    """What a recording has recorded; see `_Recording`.

    Attributes
    ----------
    captured : tuple
        The Values, and what keeps the numbers of Tensors, that it reads at each call.
    shapes : tuple of tuple
        Those of the inputs, () for a Value.
    results : tuple of (tuple, bool)
        The shape of each result, and whether it is a constant Tensor.
    """
    cdef _Callee body
    cdef readonly tuple captured
    cdef readonly tuple shapes   # of the inputs: () for a Value
    cdef readonly tuple results  # of each: its shape, and whether it is a constant Tensor
    cdef tuple signs           # nodes of the body, inputs, that have to be -1 or 1
    cdef dict simplified       # how many instructions there were at first and after each step; None if it was loaded
    cdef dict seconds          # how long it took to make it; likewise
    cdef fg_id n_inputs, n_segments
    cdef fg_view *inputs       # [n_inputs] their rows and columns, and as flags how many dimensions
    cdef Piece *pieces         # of the captured segments, one after the other
    cdef Py_ssize_t *begins    # [n_segments - n_inputs + 1] where each one's pieces begin
    cdef uint8_t *listed       # [n_segments] whether its numbers no longer lie in a row
    cdef uint8_t *wanted       # [n_segments] whether gradients flow there
    cdef long long moves       # handle_moves when that was seen
    cdef uint64_t words        # that a call takes in the pool

    def __dealloc__(self):
        PyMem_Free(self.inputs)
        PyMem_Free(self.pieces)
        PyMem_Free(self.begins)
        PyMem_Free(self.listed)
        PyMem_Free(self.wanted)

    cdef int make_pieces(self, Py_ssize_t most, Py_ssize_t segments) except -1:
        """Room for so many pieces, there may be fewer in the end, of so many captured segments."""
        self.pieces = <Piece *>PyMem_Malloc((most + 1) * sizeof(Piece))
        self.begins = <Py_ssize_t *>PyMem_Malloc((segments + 1) * sizeof(Py_ssize_t))
        if self.pieces == NULL or self.begins == NULL:
            raise MemoryError()
        self.begins[0] = 0
        return 0

    cdef int copy_pieces(self, _Program of) except -1:
        """Those of a program that captures the same."""
        cdef Py_ssize_t segments = of.n_segments - of.n_inputs
        self.make_pieces(of.begins[segments], segments)
        memcpy(self.pieces, of.pieces, of.begins[segments] * sizeof(Piece))
        memcpy(self.begins, of.begins, (segments + 1) * sizeof(Py_ssize_t))
        return 0

    cdef void look(self) noexcept:
        """Whether the captured segments lie in a row: they do until a Value becomes the handle of another node."""
        cdef fg_id k
        cdef Py_ssize_t j
        cdef fg_id at = 0
        cdef Piece *p
        self.words = fg_block_words(self.n_segments, 0)
        for k in range(self.n_inputs, self.n_segments):
            self.listed[k] = False
            for j in range(self.begins[k - self.n_inputs], self.begins[k - self.n_inputs + 1]):
                p = &self.pieces[j]
                if j > self.begins[k - self.n_inputs] and first_of(self.captured[p.which]) + p.offset != at:
                    self.listed[k] = True
                at = first_of(self.captured[p.which]) + p.offset + p.count
            if self.listed[k]:
                self.words += self.body.callee.segments[k].count
        self.moves = handle_moves

    cdef void fill_captured(self, fg_record *r) noexcept:
        cdef fg_id k, e, i = 0, count
        cdef Py_ssize_t j
        cdef fg_id *ids
        cdef Piece *p
        for k in range(self.n_inputs, self.n_segments):
            j = self.begins[k - self.n_inputs]
            count = self.body.callee.segments[k].count
            if not self.listed[k]:
                p = &self.pieces[j]
                fg_block_view(r, k, fg_view(0, first_of(self.captured[p.which]) + p.offset, 1, count,
                                            <int32_t>count, 1))
            else:
                ids = fg_block_ids(r)
                i = 0
                for j in range(j, self.begins[k - self.n_inputs + 1]):
                    p = &self.pieces[j]
                    for e in range(p.count):
                        ids[i] = first_of(self.captured[p.which]) + p.offset + e
                        i += 1
                fg_block_list(r, k, 1, count)

    def __call__(self, operands):
        """The results, a list, computed as one instruction. operands: for each input a Value, a Tensor, a number or an
        array of its shape."""
        cdef list given = (<list>operands)[:] if type(operands) is list else to_list(
            "operands", "Values, Tensors, numbers and arrays", operands)   # list() would leak it where memory fails
        return self.run(given)

    cdef list run(self, list given):
        """__call__ with a list that nobody else has."""
        cdef list keep = []
        cdef Operand[FEW] few
        cdef Operand *taken = few
        cdef fg_view *shape
        cdef fg_id k
        if self.body is None:
            raise RuntimeError("a program is made by a recording")
        if len(given) != len(self.shapes):
            raise ArgumentError(f"operands: expected {len(self.shapes)}, one for each input, got {len(given)}")
        if self.n_inputs > FEW:
            scratch = bytearray(self.n_inputs * sizeof(Operand))
            taken = <Operand *><char *>scratch
        for k in range(self.n_inputs):
            if not take_number(given[k], &taken[k]) and not take_plain(given[k], &taken[k]):
                take(f"operands[{k}]", given[k], &taken[k], keep)
            if FG_UNLIKELY(recordings != 0) and self.signs and current_recorder() != NULL and self.has_signs(k):
                noted_signs(given[k])   # so that calls of the new program check what this one's do
            shape = &self.inputs[k]
            if (taken[k].ndim != <int>shape.flags or rows_of(&taken[k]) != shape.rows
                    or cols_of(&taken[k]) != shape.cols):
                raise ShapeError(f"operands[{k}]: expected the shape {self.shapes[k]} that the program was recorded "
                                 f"with, got {shape_of(&taken[k])}")
        return self.called(taken)

    cdef bint has_signs(self, fg_id k) except -1:
        """Whether some numbers of input k have to be -1 or 1."""
        cdef fg_stretch *s = &self.body.callee.segments[k]
        for place in self.signs:
            if s.first <= place < s.first + s.count:
                return True
        return False

    cdef tuple signs_in(self, _Callee made):
        """Where such numbers are among the operands of what has been made of this program, which may repeat inputs."""
        cdef fg_stretch *s
        cdef fg_stretch *t
        cdef fg_id k
        cdef list signs = []
        for k in range(self.n_inputs):
            s, t = &self.body.callee.segments[k], &made.callee.segments[k]
            for place in self.signs:
                if s.first <= place < s.first + s.count:
                    signs.extend(range(t.first + place - s.first, t.first + t.count, s.count))
        return tuple(signs)

    cdef list called(self, Operand *operands):
        cdef uint64_t nodes, words
        cdef fg_callee *c = self.body.callee
        cdef fg_id k, n, npool, node = 0
        cdef fg_record *r
        cdef int status = 0
        cdef bint constant = True
        cdef double sign
        if self.moves != handle_moves:
            self.look()
        nodes, words = <uint64_t>c.n_results + 1, self.words
        for k in range(self.n_inputs):
            if operands[k].kind != TENSOR and operands[k].kind != VALUE:
                nodes += elements_of(&operands[k])
                if operands[k].kind != NUMBER and operands[k].kind != ARRAY:
                    words += elements_of(&operands[k])
        if nodes > MOST_NODES or words > MOST_NODES:
            raise MemoryError(f"flatgrad: a call of {nodes} nodes and {words} operands does not fit on the tape")
        while True:
            if tape.n + nodes > tape.room or tape.npool + words > tape.pool_capacity:
                reserve(<fg_id>nodes, <fg_id>words)
                if self.moves != handle_moves:   # making room runs finalizers
                    self.look()
                    continue

            # From here on no Python code is run.
            n, npool = tape.n, tape.npool
            r = fg_block_begin(&tape, self.body.place, self.n_segments, 0)
            for k in range(self.n_inputs):
                if status == 0:
                    status = fill(r, k, &operands[k])
            if status < 0:
                undo(n, npool, NULL)
                raise RuntimeError("a list changed while it was read")
            self.fill_captured(r)
            for k in range(self.n_segments):
                if not self.wanted[k]:
                    fg_record_view(r, k).flags |= FG_VIEW_CONSTANT
                constant = constant and fg_record_view(r, k).flags & FG_VIEW_CONSTANT != 0
            status = fg_block_push(&tape, FG_CALL, 1, c.n_results, True, NULL, &node)
            if status >= 0:
                break
            undo(n, npool, NULL)
            if status != FG_E_INTERRUPTED:
                call_failed(c, status)
            PyErr_CheckSignals()   # and if that does not raise, once more from the start
            status = 0
        if FG_UNLIKELY(fg_no_grads != 0):
            constant = constant or fg_is_unrecorded()
            node = looked_at(n, npool, node, NULL)
        hold_ids()   # until all results have their objects
        try:
            for place in self.signs:
                sign = self.body.number(place)
                if not is_sign(sign, NEAR_SIGN):
                    raise DataError(f"target: expected -1 or 1, got {sign}")
            return self.objects_of(node - c.n_results, node, constant)
        finally:
            release_ids()

    cdef list objects_of(self, fg_id first, fg_id node, bint constant):
        """The results, from slot `first` on, as objects. While ids are held."""
        cdef list found = []
        cdef Tensor t
        cdef fg_id at = 0
        for shape, was_constant in self.results:
            if len(<tuple>shape) == 0:
                found.append(handle_of(first + at))
                at += 1
                continue
            t = Tensor.__new__(Tensor)
            t.run = run_object(node)
            t.offset, t.ndim, t.constant = at, <int>len(shape), constant or was_constant
            t.rows = shape[0] if t.ndim == 2 else 1
            t.cols = shape[t.ndim - 1]
            t.row_step, t.col_step = <int32_t>t.cols, 1
            at += t.rows * t.cols
            found.append(t)
        return found

    def mapped(self, n_samples, varies, most_lanes=0, single=False):
        """The program that does this for each sample of a batch.

        Parameters
        ----------
        n_samples : int
            At least one.
        varies : list of bool
            For each input, whether it is another for each sample. Then the batch is a Tensor or an array of one
            dimension more, with a row for each sample; so are all results.
        most_lanes : int, optional
            How many samples to compute at once at most; 0: what is best.
        single : bool, optional
            True: in floats of 32 bits.
        """
        cdef _Program made = _Program.__new__(_Program)
        cdef Py_ssize_t k
        if type(self.body) is not _Body:
            raise TypeError("mapped(): expected a program of one sample")
        if type(n_samples) is not int or not 0 < n_samples < MOST_NODES:
            raise ArgumentError(f"n_samples: expected a number of samples, got {describe(n_samples)}")
        if type(most_lanes) is not int or not 0 <= most_lanes <= 1 << 20:
            raise ArgumentError(f"most_lanes: expected an int from 0 to 2**20, got {describe(most_lanes)}")
        every = tuple([bool(x) for x in to_list("varies", "bools", varies)])
        if len(every) != len(self.shapes):
            raise ArgumentError(f"varies: expected {len(self.shapes)}, one for each input, got {len(every)}")
        for k in range(len(every)):
            if every[k] and len(self.shapes[k]) == 2:
                raise ShapeError(f"varies[{k}]: a batch of the shape {self.shapes[k]} has three dimensions")
        for shape, _ in self.results:
            if len(shape) == 2:
                raise ShapeError("vmap: the result of fn: expected Values or Tensors of one dimension, since a Tensor "
                                 f"has at most two, got the shape {shape}")
        captured = self.n_segments - self.n_inputs
        body = lanes_of(<_Body>self.body, every + (False,) * captured, n_samples,
                        tuple([shape[0] if shape else 1 for shape, _ in self.results]), most_lanes, single)
        made.copy_pieces(self)
        fill_program(made, body, self.captured,
                     tuple([(n_samples, *shape) if varying else shape for shape, varying in zip(self.shapes, every)]),
                     tuple([((n_samples, *shape), constant) for shape, constant in self.results]), self.signs_in(body))
        return made

    def stats(self):
        """What it is made of.

        Returns
        -------
        dict
            ``operands``: how many numbers it takes, of which ``captured`` are its own; ``instructions``: how many nodes
            there are of each operation; ``constants``: numbers; ``bytes``: memory; ``simplified``: how many
            instructions there were ``"before"`` and after each step of simplification that was taken; ``seconds``:
            how long it took to record, to cut and to simplify it. These two are empty if it was loaded. Of a batch also
            ``samples``, ``lanes``: how many of them are computed at once, and ``varying``: how many instructions are
            computed for each sample, the others once for all. ``calls``: the like of each call within.
        """
        cdef fg_callee *c
        cdef fg_id k, operands = 0, captured = 0
        if self.body is None:
            raise RuntimeError("a program is made by a recording")
        c = self.body.callee
        for k in range(self.n_segments):
            operands += c.segments[k].count
            captured += c.segments[k].count if k >= self.n_inputs else 0
        return {"operands": operands, "captured": captured, **self.body.contents(), "bytes": c.steps.bytes(c),
                "simplified": dict(self.simplified or ()), "seconds": dict(self.seconds or ())}

    def scanned(self, length, carries, xs, reverse=False, checkpoint=0):
        """The program that computes this one for one step after the other.

        Parameters
        ----------
        length : int
            How many steps, 1 or more.
        carries, xs : int
            So many inputs are the carry, and so many results, the first ones, the carry of the next step; so many
            inputs after them are other numbers at each step: the program that is returned takes those of all steps,
            one below the other, and likewise returns all results but the carry, which is the last.
        reverse : bool, optional
            True: the first step takes the last numbers of `xs`, and its results become the last.
        checkpoint : int, optional
            A backward pass needs memory for so many steps, and for every so many steps once more a carry; 0: as many as
            fit into memory that is fast.

        Returns
        -------
        _Program
        """
        cdef _Program made = _Program.__new__(_Program)
        cdef _Scan body = _Scan.__new__(_Scan)
        cdef fg_id k
        cdef list shapes = []
        numbers = 0
        if type(self.body) is not _Body:
            raise RuntimeError("a step is made by a recording")
        if not are_ints((length, carries, xs, checkpoint), -1) or length < 1:
            raise ArgumentError(f"expected numbers of steps, carries and xs, got {(length, carries, xs, checkpoint)}")
        if carries + xs > len(self.shapes) or carries > len(self.results):
            raise ArgumentError(f"expected at most {len(self.shapes)} carries and xs, and {len(self.results)} carries, "
                                f"got {carries} and {xs}")
        for k in range(carries):
            if self.shapes[k] != self.results[k][0]:
                raise ShapeError(f"carry {k}: expected the shape {self.shapes[k]}, got {self.results[k][0]}")
        shapes = list(self.shapes)
        for k in range(carries, carries + xs):
            shapes[k] = (length, *shapes[k])
        for shape in [*self.shapes[carries:carries + xs], *[shape for shape, _ in self.results[carries:]]]:
            if len(shape) > 1:
                raise ShapeError(f"expected numbers or one dimension at each step, got the shape {shape}")
            numbers += size_of_shape(shape)
        if length * numbers > MOST_NODES:
            raise MemoryError(f"flatgrad: xs and outputs of {length} steps do not fit on the tape")
        results = [result if k < carries else ((length, *result[0]), result[1])
                   for k, result in enumerate(self.results)]
        sizes = tuple([size_of_shape(shape) for shape, _ in self.results[carries:]])
        scan_body(body, self.body, length, carries, xs, sizes, reverse, checkpoint)
        for k in range(carries):
            if self.has_signs(k):
                raise ArgumentTypeError("target: numbers that have to be -1 or 1, and are a carry: checked while a "
                                        "compiled function is recorded")
        made.copy_pieces(self)
        fill_program(made, body, self.captured, tuple(shapes), tuple(results), self.signs_in(body))
        return made

    def __reduce__(self):
        """Among others the pieces, and where those of each captured segment begin and the last one's end."""
        cdef Py_ssize_t k
        if self.body is None:
            damaged("no program")
        counts = [self.begins[k] for k in range(self.n_segments - self.n_inputs + 1)]
        pieces = [(self.pieces[k].which, self.pieces[k].offset, self.pieces[k].count) for k in range(counts[-1])]
        return _restore_program, (self.body, self.captured, tuple(pieces), tuple(counts), self.shapes, self.results,
                                  self.signs)


def _restore_program(_Callee body not None, captured, pieces, counts, shapes, results, signs):
    """The program that _Program.__reduce__ describes. Raises ValueError for anything else."""
    cdef _Program made = _Program.__new__(_Program)
    cdef Py_ssize_t k, j, size, n_inputs, total = 0
    if body.callee == NULL or type(captured) is not tuple or not all([
            isinstance(o, Value) or type(o) is _Run for o in captured]):
        damaged(f"expected Values, got {describe(captured)}")
    if type(shapes) is not tuple or type(results) is not tuple or not all([
            type(r) is tuple and len(r) == 2 and type(r[1]) is bool for r in results]):
        damaged("a program has no shapes")
    n_inputs = len(shapes)
    if (type(pieces) is not tuple or not all([are_ints(p, 3) for p in pieces])
            or not are_ints(counts, <Py_ssize_t>body.callee.n_segments - n_inputs + 1) or counts[0] != 0
            or counts[-1] != len(pieces)):
        damaged("a program has other pieces than segments")
    for k in range(n_inputs):
        if size_of_shape(shapes[k]) != <Py_ssize_t>body.callee.segments[k].count:
            damaged(f"input {k} of a program is not of the shape {shapes[k]}")
    for which, offset, count in pieces:
        if which >= len(captured) or not 0 < count <= (
                (<_Run>captured[which]).count if type(captured[which]) is _Run else 1) - offset:
            damaged(f"a program has the piece {(which, offset, count)}")
    for k in range(len(counts) - 1):
        size = 0
        for j in range(counts[k], counts[k + 1]):
            size += pieces[j][2]
        if size != <Py_ssize_t>body.callee.segments[n_inputs + k].count:
            damaged("a program has captured another number of Values")
    for shape, _ in results:
        total += size_of_shape(shape)
    if total != <Py_ssize_t>body.callee.n_results or total == 0:
        damaged("a program has another number of results")
    if not are_ints(signs, -1) or not all([0 < place <= body.area() for place in signs]):
        damaged(f"a program has the signs {describe(signs)}")
    made.make_pieces(len(pieces), len(counts) - 1)
    for k in range(len(pieces)):
        made.pieces[k].which, made.pieces[k].offset, made.pieces[k].count = pieces[k]
    for k in range(len(counts)):
        made.begins[k] = counts[k]
    fill_program(made, body, captured, shapes, results, signs)
    return made
