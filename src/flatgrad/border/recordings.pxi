# recordings.pxi: What a function does, recorded and cut out of the tape as a program.
#
# A program captures what lies below the recording's floor. What may not be done while a program is recorded is refused
# in tracing.pxi.
#
# Uses callees, contexts, entries, handles, messages, numbers, operands, programs, tape, tracing, views.

cdef tuple shape_tuple(object x):
    return x.shape if type(x) is Tensor else ()


class _Recording(_Recorder):
    """A context in which operations are recorded, to become a program.

    Parameters
    ----------
    inputs : list of Value and Tensor
        Leaves, made for the purpose. Tensors are whole.
    single : bool, optional
        True: what is recorded will be computed in floats of 32 bits; see `_is_recording_single`.

    Raises
    ------
    TypeError, ValueError
        If `inputs` is not as described.

    Notes
    -----
    It belongs to the context in the sense of `contextvars`, as `flatgrad.no_grad` does. In it, what depends on an
    input, or on anything that was there before, does not give its number: ``x.data``, ``float(x)``, ``x < 0`` and
    their like raise an ArgumentTypeError. So do `no_grad`, steps of optimizers, and what makes parameters and sources
    of random numbers.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad._core import _Recording
    >>> x, w = Value(1.0), Value(3.0)
    >>> recording = _Recording([x])
    >>> with recording:
    ...     y = (x * w).tanh()
    >>> program = recording.program([y])
    >>> y, = program([0.0])
    >>> y.backward()
    >>> y.data, w.grad, program.captured == (w,)
    (0.0, 0.0, True)
    """

    def __init__(self, inputs, single=False):
        set_inputs(self, to_list("inputs", "Values and Tensors", inputs), bool(single))

    def program(self, outputs, simplify=()):
        """The program that leads from the inputs to these outputs.

        Parameters
        ----------
        outputs : list of Value and Tensor
            At least one. Inputs, captured Values and constants are taken as well.
        simplify : tuple of str, optional
            Steps of _SIMPLIFICATIONS that are taken. Without any, results and gradients are bit for bit what they are
            without a program; with them but for rounding.

        Returns
        -------
        _Program
            Called with an operand for each input, then for each number and array of ``draws``, then for each of
            ``buffers``.
        """
        return recorded_program(self, to_list("outputs", "Values and Tensors", outputs), steps_of(simplify))


def _is_recording():
    """Whether a program is recorded in this context."""
    return recordings != 0 and current_recorder() != NULL


def _is_recorded(x):
    """For our modules: whether a program is recorded in this context, and a Value or a Tensor depends on what it will
    be called with, or on what was there before."""
    return is_recorded(first_slot(x) if type(x) is Tensor else (<Value?>x).id)


def _is_recording_single():
    """Whether that program's numbers will be floats of 32 bits."""
    cdef PyObject *recorder = current_recorder()
    return recorder != NULL and (<_Recorder>recorder).single


def _add_input(_Recorder recording not None, leaf):
    """For our modules: from now on that leaf, a Value or a Tensor made within the recording, is one of its inputs:
    after those that it began with, before those of `buffers`."""
    count_numbers("leaf", [leaf])
    recording.drawn.append(leaf)


def _stand_in(x, bint requires_grad=True):
    """For our modules: a new leaf with the number of a Value, or a Tensor of leaves with those of a Tensor, for a
    recording to begin with; also within another recording, which refuses to give the numbers."""
    cdef fg_id i, j, first
    cdef Tensor made, t
    cdef fg_view view
    if type(x) is not Tensor:
        reserve(1, 0)
        return handle_of(fg_tape_push_leaf(&tape, tape.data[(<Value?>x).id]))
    t = <Tensor>x
    made = new_tensor(t.rows, t.cols, t.ndim, False, not requires_grad)
    reserve(made.rows * made.cols + 1, 0)
    first = fg_tape_push_leaves(&tape, made.rows * made.cols)
    view = view_of(t)   # now: making room may have moved it
    for i in range(made.rows):
        for j in range(made.cols):
            tape.data[first + i * made.cols + j] = tape.data[slot_in(&view, i, j)]
    tie_run(made.run, fg_tape_push_run(&tape, made.rows * made.cols))
    return made


cdef int set_inputs(_Recorder recorder, list inputs, bint single) except -1:
    cdef Tensor t
    count_numbers("inputs", inputs)
    for k, x in enumerate(inputs):
        if type(x) is Tensor:
            t = <Tensor>x
            whole = t.offset == 0 and t.size == <Py_ssize_t>t.run.count and lies_dense(t)
            leaf = fg_tape_op(&tape, t.run.id) == FG_RUN
        else:
            whole, leaf = True, tape.op[(<Value>x).id] == FG_LEAF or tape.op[(<Value>x).id] == FG_FROZEN
        if not (whole and leaf):
            raise ArgumentError(f"inputs[{k}]: expected a leaf Value or a whole leaf Tensor, got {describe(x)}")
    if len(set([id(x) for x in inputs])) < len(inputs):
        raise ArgumentError("inputs: expected different Values and Tensors, got one of them twice")
    recorder.inputs, recorder.single = tuple(inputs), single
    return 0


def _in_floats(_Program program not None):
    """The program of one sample that does the same in floats of 32 bits; its operands and results stay doubles."""
    cdef _Program made = _Program.__new__(_Program)
    if type(program.body) is not _Body:
        raise TypeError("expected a program of one sample")
    body = lanes_of(<_Body>program.body, (True,) * program.n_segments, 1, (program.body.callee.n_results,), 0, True)
    made.copy_pieces(program)
    fill_program(made, body, program.captured, program.shapes, program.results, program.signs_in(body))
    return made


cdef list slots_in_order(object x):
    """The slots of a Value or a Tensor, row by row. While ids are held."""
    cdef fg_view view
    cdef fg_id i, j
    if type(x) is not Tensor:
        return [(<Value>x).id]
    view = view_of(<Tensor>x)
    return [slot_in(&view, i, j) for i in range(view.rows) for j in range(view.cols)]


cdef int steps_of(object simplify) except -1:
    cdef int steps = 0
    for name in simplify:
        steps |= _SIMPLIFICATIONS[one_of("simplify", name, tuple(_SIMPLIFICATIONS))]
    return steps


cdef _Program recorded_program(_Recorder recorder, list outputs, int steps):
    began = perf_counter()
    cdef _Program made = _Program.__new__(_Program)
    cdef _Body body = _Body.__new__(_Body)
    cdef list inputs = [], ids = [], objects = [], signs = []
    cdef dict known = {}
    cdef fg_id *captured = NULL
    cdef fg_id k, n_inputs, first = 0, end = 0, slot, after, start, entry, numbers = 0
    cdef tuple leaves = recorder.inputs
    cdef Py_ssize_t given
    cdef Py_ssize_t which = 0, count = 0
    if recorder.inputs is None or recorder.floor is None:
        raise RuntimeError("program(): expected a recording that has been entered")
    if count_numbers("outputs", outputs) == 0:
        raise ArgumentError("outputs: expected at least one, got none")
    if recorder.drawn:
        given = len(leaves) - len(recorder.buffers)
        leaves = leaves[:given] + tuple(recorder.drawn) + leaves[given:]
    shapes = tuple([shape_tuple(x) for x in leaves])
    results = tuple([(shape_tuple(x), type(x) is Tensor and bool((<Tensor>x).constant)) for x in outputs])
    n_inputs = <fg_id>len(leaves)
    hold_ids()
    try:
        for x in leaves:
            inputs.append((first_slot(x), (<Tensor>x).size if type(x) is Tensor else 1))
        for x in outputs:
            ids.extend(slots_in_order(x))
        for x in recorder.signs:
            signs.extend(slots_in_order(x))
        cut_program(body, recorder.floor.id, inputs, ids, &captured)
        try:
            for k in range(n_inputs, body.callee.n_segments):
                count += body.callee.segments[k].count
            made.make_pieces(count, body.callee.n_segments - n_inputs)
            count = 0
            for k in range(n_inputs, body.callee.n_segments):
                slot, after = captured[k], captured[k] + body.callee.segments[k].count
                while slot < after:
                    entry = entry_near(slot, &first, &end)
                    if has_parts(entry):   # several segments may have parts of it, and none has more: it is no number
                        start, numbers = entry - tape.args[entry].b, after - slot
                        if entry not in known:
                            known[entry] = len(objects)
                            objects.append(run_object(entry))
                        which = known[entry]
                    else:
                        start, numbers, which = slot, 1, len(objects)
                        objects.append(handle_of(slot))
                    made.pieces[count] = Piece(which, slot - start, numbers)
                    count += 1
                    slot += numbers
                made.begins[k - n_inputs + 1] = count
        finally:
            fg_program_forget(body.program(), captured)
        noted = []
        for k in range(n_inputs):
            for place in signs:
                if inputs[k][0] <= place < inputs[k][0] + inputs[k][1]:
                    noted.append(body.callee.segments[k].first + place - inputs[k][0])
    finally:
        release_ids()
    cut = perf_counter()
    if steps:
        made.simplified = simplify_program(body, steps)
    made.seconds = {"record": recorder.seconds, "cut": cut - began, "simplify": perf_counter() - cut}
    fill_program(made, body, tuple(objects), shapes, results, tuple(noted))
    return made


def _is_captured(captured, x):
    """Whether a Value, or the numbers of a Tensor, are among what a program has captured.

    Parameters
    ----------
    captured : set of int
        The ids of those objects.
    x : Value or Tensor
    """
    return (id((<Tensor>x).run) if type(x) is Tensor else id(x)) in captured
