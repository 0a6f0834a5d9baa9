# recordings.pxi: What a function does, recorded and cut out of the tape as a program.
#
# A program captures what lies below the recording's floor. What may not be done while a program is recorded is refused
# in tracing.pxi.
#
# Uses attributes, callees, contexts, entries, handles, messages, neurons, numbers, operands, programs, python, tape,
# tracing, views.

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
    their like raise an ArgumentTypeError. So do `no_grad`, steps of optimizers, and what draws random numbers.

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
        set_inputs(self, to_list("inputs", "Values and Tensors", inputs))
        self.single = bool(single)

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
        """
        return recorded_program(self, to_list("outputs", "Values and Tensors", outputs), steps_of(simplify))


def _is_recording():
    """Whether a program is recorded in this context."""
    return recordings != 0 and current_recorder() != NULL


def _is_recording_single():
    """Whether that program's numbers will be floats of 32 bits."""
    cdef PyObject *recorder = current_recorder()
    return recorder != NULL and (<_Recorder>recorder).single


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


cdef int set_inputs(_Recorder recorder, list inputs) except -1:
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
    recorder.inputs = tuple(inputs)
    return 0


def _in_floats(_Program program not None):
    """The program of one sample that does the same in floats of 32 bits; its operands and results stay doubles."""
    cdef _Program made = _Program.__new__(_Program)
    cdef fg_id k, place
    cdef fg_stretch *s
    if type(program.body) is not _Body:
        raise TypeError("expected a program of one sample")
    body = lanes_of(<_Body>program.body, (True,) * program.n_segments, 1, (program.body.callee.n_results,), 0, True)
    signs = []
    for place in program.signs:
        for k in range(program.n_inputs):
            s = &program.body.callee.segments[k]
            if s.first <= place < s.first + s.count:
                signs.append(body.callee.segments[k].first + place - s.first)
    pieces, counts = program.layout()
    fill_program(made, body, program.captured, pieces, counts, program.shapes, program.results, tuple(signs))
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
    cdef list inputs = [], ids = [], objects = [], pieces = [], counts = [], signs = []
    cdef dict known = {}
    cdef fg_id *captured = NULL
    cdef fg_id k, n_inputs, first = 0, end = 0, slot, after, start, entry, numbers = 0
    if recorder.inputs is None or recorder.floor is None:
        raise RuntimeError("program(): expected a recording that has been entered")
    if count_numbers("outputs", outputs) == 0:
        raise ArgumentError("outputs: expected at least one, got none")
    shapes = tuple([shape_tuple(x) for x in recorder.inputs])
    results = tuple([(shape_tuple(x), type(x) is Tensor and bool((<Tensor>x).constant)) for x in outputs])
    n_inputs = <fg_id>len(recorder.inputs)
    hold_ids()
    try:
        for x in recorder.inputs:
            inputs.append((first_slot(x), (<Tensor>x).size if type(x) is Tensor else 1))
        for x in outputs:
            ids.extend(slots_in_order(x))
        for x in recorder.signs:
            signs.extend(slots_in_order(x))
        cut_program(body, recorder.floor.id, inputs, ids, &captured)
        try:
            for k in range(n_inputs, body.callee.n_segments):
                slot, after = captured[k], captured[k] + body.callee.segments[k].count
                counts.append(len(pieces))
                while slot < after:
                    entry = entry_near(slot, &first, &end)
                    if has_parts(entry):
                        o, start = run_object(entry), entry - tape.args[entry].b
                        numbers = (entry if entry < after else after) - slot
                    else:
                        o, start, numbers = handle_of(slot), slot, 1
                    address = PyLong_FromVoidPtr(<PyObject *>o)
                    if address not in known:
                        known[address] = len(objects)
                        objects.append(o)
                    pieces.append((known[address], slot - start, numbers))
                    slot += numbers
        finally:
            fg_program_forget(body.program(), captured)
        counts.append(len(pieces))
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
    fill_program(made, body, tuple(objects), pieces, counts, shapes, results, tuple(noted))
    return made


# ---- whether what was captured is still in its place ----

_MISSING = MISSING   # in place of an object of _Places: there was none

cdef bint is_same(object now, object x) except -1:
    """Whether they are one object, or equal numbers of one type."""
    if now is x:
        return True
    return type(now) is type(x) and type(x) in (int, float, bool, str) and repr(now) == repr(x)


cdef bint is_neuron(Weights neuron, tuple noted) except -1:
    """Whether a neuron computes with the weights, the bias and the activation that were noted."""
    cdef Py_ssize_t k
    cdef tuple kept
    if neuron.bias is not noted[2] or neuron.code != <int>noted[3]:
        return False
    if not is_current(neuron):
        if see(neuron) == 0:
            return False
    kept = neuron.kept
    if kept is not noted[1]:
        if len(kept) != len(<tuple>noted[1]):
            return False
        for k in range(len(kept)):
            if kept[k] is not (<tuple>noted[1])[k]:
                return False
    return True


cdef inline bint is_there(PyObject *now, object x) noexcept:
    """Whether that is x; NULL stands for None."""
    return now == <PyObject *>x or now == NULL and x is None


@cython.final
@cython.auto_pickle(False)
cdef class _Places:
    """Where a recorded function found things: asked at each call whether they are there still.

    Attributes
    ----------
    dicts : list of (dict, key, object)
    lists : list of (list or dict, tuple)
        With all that was in them.
    cells : list of (cell, object)
    neurons : list of (Weights, tuple of its weights, its bias, its activation)
    functions : list of (function, its code, its defaults, those of keywords)
    """
    cdef readonly list dicts, lists, cells, neurons, functions

    def __cinit__(self):
        self.dicts, self.lists, self.cells, self.neurons, self.functions = [], [], [], [], []

    def __bool__(self):
        return (len(self.dicts) + len(self.lists) + len(self.cells) + len(self.neurons) + len(self.functions)) > 0

    def note_neuron(self, Weights neuron not None, set captured not None):
        """Note it if it computes with what is among `captured`, ids; whether it does."""
        if not is_current(neuron):
            see(neuron)
        if neuron.kept is None or not any([id(x) in captured for x in (*neuron.kept, neuron.bias)]):
            return False
        self.neurons.append((neuron, neuron.kept, neuron.bias, neuron.code))
        return True

    def hold(self):
        """Whether all are there."""
        cdef Py_ssize_t k
        cdef PyObject *found
        for place in self.dicts:
            container, key, x = <tuple>place
            found = PyDict_GetItemWithError(container, key)
            now = MISSING if found == NULL else <object>found
            if now is not x and not is_same(now, x):
                return False
        for place in self.lists:
            container, snapshot = <tuple>place
            if len(container) != len(<tuple>snapshot):
                return False
            for k, now in enumerate(container if type(container) is list else tuple(container.values())):
                if now is not (<tuple>snapshot)[k]:
                    return False
        for place in self.neurons:
            if not is_neuron(<Weights>(<tuple>place)[0], <tuple>place):
                return False
        for place in self.functions:
            function, code, defaults, others = <tuple>place
            if (PyFunction_GetCode(function) != <PyObject *>code
                    or not is_there(PyFunction_GetDefaults(function), defaults)
                    or not is_there(PyFunction_GetKwDefaults(function), others)):
                return False
        for place in self.cells:
            cell, x = <tuple>place
            found = PyCell_GET(cell)
            if found == NULL:
                return False
            now = <object>found
            if now is not x and not is_same(now, x):
                return False
        return True


def _is_captured(captured, x):
    """Whether a Value, or the numbers of a Tensor, are among what a program has captured.

    Parameters
    ----------
    captured : set of int
        The ids of those objects.
    x : Value or Tensor
    """
    return (id((<Tensor>x).run) if type(x) is Tensor else id(x)) in captured
