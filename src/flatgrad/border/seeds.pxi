# seeds.pxi: Sweeps from several outputs, each with a gradient to begin with; and the leaves that these reach.
#
# What users see of it is in autograd.py.
#
# Uses contexts, entries, handles, messages, numbers, operands, python, sweeps, tape, touched.

cdef Py_ssize_t take_seeds(tuple outs, object seeds, double[::1] numbers) except -1:
    """Copy the seeds, an array for each output, one after the other."""
    cdef Py_ssize_t k, at = 0
    cdef const double[::1] seed
    for k in range(len(outs)):
        seed = seeds[k]
        if seed.shape[0] != ((<Tensor>outs[k]).size if type(outs[k]) is Tensor else 1) \
                or at + seed.shape[0] > numbers.shape[0]:
            raise ShapeError(f"seeds[{k}]: expected a number for each element, got {seed.shape[0]}")
        numbers[at:at + seed.shape[0]] = seed
        at += seed.shape[0]
    return at


def _sweep_from(Tensor output not None, double[::1] seed not None):
    """A backward pass from all elements of a Tensor, whose gradients become those of `seed`, row by row."""
    cdef Py_ssize_t k, count = output.size
    cdef fg_id *slots
    cdef fg_view view
    if seed.shape[0] != count:
        raise ShapeError(f"seed: expected {count} numbers, got {seed.shape[0]}")
    slots = <fg_id *>PyMem_Malloc((count + 1) * sizeof(fg_id))
    if slots == NULL:
        raise MemoryError()
    try:
        view = view_of(output)
        for k in range(count):
            slots[k] = pick_slot(&view, k)
            tape.grad[slots[k]] = seed[k]
        run_sweep(fg_sweep_begin_from(&tape, slots, <size_t>count))
    finally:
        PyMem_Free(slots)
        if tape.dead != NULL:
            drain()


def _sweep_with(Value output not None, double seed):
    """A backward pass from a Value, whose gradient becomes `seed`."""
    tape.grad[output.id] = seed
    run_sweep(fg_sweep_begin_from(&tape, &output.id, 1))
    if tape.dead != NULL:
        drain()


def _gradients(outputs, seeds, inputs):
    """The gradients of the inputs, if those of the outputs are `seeds`; no gradient is changed.

    Parameters
    ----------
    outputs, inputs : list of Value and Tensor
        Inputs need not be leaves.
    seeds : list of ndarray of float64
        For each output its elements' gradients, row by row. What an output that is there twice has adds up.

    Returns
    -------
    list of (ndarray of float64 or None)
        For each input its elements' gradients, row by row; None if no gradient of an output can flow there.
    """
    cdef tuple outs = tuple(to_list("outputs", "Values and Tensors", outputs))
    cdef tuple ins = tuple(to_list("inputs", "Values and Tensors", inputs))
    cdef Py_ssize_t n_outputs = count_numbers("outputs", outs), n_inputs = count_numbers("inputs", ins)
    cdef Py_ssize_t k, e, at, begun = 0
    cdef int again = STOPPED
    cdef double[::1] numbers
    cdef double[::1] wanted
    cdef Touched touched = Touched(0, False, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, NULL, False)
    cdef unsigned long outer = 0
    cdef bint alone = False
    cdef list found = []
    global whole_tape
    import numpy
    numpy_is_there()
    numbers = numpy.zeros(n_outputs + 1)
    take_seeds(outs, list(seeds), numbers)
    flat = numpy.zeros(n_inputs)
    wanted = flat   # here, for no object is made while gradients are put aside: that may run the collector
    sizes = [(<Tensor>x).size if type(x) is Tensor else 1 for x in ins]
    for item in outs:
        guard(first_slot(item), "gradients(): the numbers of an output")
    try:
        touched_find(&touched, outs, n_outputs, ins, n_inputs, FG_FLOWN_TO)
        at = n_outputs
        for size in sizes:   # now: to save the gradients of all may change what is touched
            used = False
            for e in range(size):
                used = used or is_touched(&touched, touched.slots[at + e])
            found.append(used)
            at += size
        # The outputs of constant Tensors go: no gradient flows from there.
        slots = bytearray((n_outputs + 1) * sizeof(fg_id))
        for k in range(n_outputs):
            if not touched.constant[k]:
                (<fg_id *><char *>slots)[begun] = touched.slots[k]
                begun += 1
        touched_save(&touched)
        if touched.hooked:
            outer, whole_tape = whole_tape, PyThread_get_thread_ident()
            alone = True
        while again == STOPPED:
            touched_clear(&touched)
            for k in range(n_outputs):
                if not touched.constant[k]:
                    tape.grad[touched.slots[k]] += numbers[k]
            if begun == 0:
                break
            again = touched_run(&touched, fg_sweep_begin_from(&tape, <fg_id *><char *>slots, <size_t>begun))
        for k in range(n_inputs):
            if touched.cleared[k]:
                wanted[k] = tape.grad[touched.slots[n_outputs + k]]
    finally:
        if alone:
            whole_tape = outer
        touched_restore(&touched)
        touched_free(&touched)
        if tape.dead != NULL:
            drain()
    at = 0
    for k in range(len(sizes)):
        if found[k]:
            found[k] = flat[at:at + sizes[k]]
        else:
            found[k] = None
        at += sizes[k]
    return found


def _held_below(outputs, inputs):
    """Whether gradients of the outputs flow to a leaf that somebody holds, and that is none of the inputs."""
    cdef tuple outs = tuple(to_list("outputs", "Values and Tensors", outputs))
    cdef tuple ins = tuple(to_list("inputs", "Values and Tensors", inputs))
    cdef Py_ssize_t n_outputs = count_numbers("outputs", outs), n_inputs = count_numbers("inputs", ins), j
    cdef Touched touched = Touched(0, False, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, NULL, False)
    cdef fg_id i, first = 0, end = 0
    cdef Py_ssize_t k
    cdef uint64_t mask
    try:
        touched_find(&touched, outs, n_outputs, ins, n_inputs, FG_FLOWN_TO)
        for j in range(n_inputs):
            touched_skip(&touched, touched.slots[n_outputs + j])
        for k in range(<Py_ssize_t>touched.count - 1, -1, -1):   # parameters are older than what is made of them
            mask = touched.masks[k]
            while mask:
                i = touched.words[k] * 64 + <fg_id>fg_bits_low(mask)
                mask ^= <uint64_t>1 << (i & 63)
                if fg_tape_op(&tape, i) == FG_LEAF and (fg_tape_holder(&tape, i) != NULL
                                                        or fg_tape_holder(&tape, entry_near(i, &first, &end)) != NULL):
                    return True
        return False
    finally:
        touched_free(&touched)


def _leaves_below(outputs):
    """The leaves to which gradients of the outputs flow and that somebody holds: Values, and of a leaf Tensor all
    elements as a Tensor of one dimension; where some are frozen, the others as Values."""
    cdef tuple outs = tuple(to_list("outputs", "Values and Tensors", outputs))
    cdef Py_ssize_t n_outputs = count_numbers("outputs", outs)
    cdef Touched touched = Touched(0, False, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, NULL, False)
    cdef fg_id k, i, entry, last = 0, first = 0, end = 0
    cdef uint64_t mask
    cdef list found = []
    cdef Tensor t
    try:
        touched_find(&touched, outs, n_outputs, (), 0, FG_FLOWN_TO)
        for k in range(touched.count):
            mask = touched.masks[k]
            while mask:
                i = touched.words[k] * 64 + <fg_id>fg_bits_top(mask)
                mask ^= <uint64_t>1 << (i & 63)
                if fg_tape_op(&tape, i) != FG_LEAF:
                    continue
                entry = entry_near(i, &first, &end)
                if entry == i or any_frozen(entry - tape.args[entry].b, tape.args[entry].b):
                    if entry != i or fg_tape_holder(&tape, i) != NULL:
                        found.append(handle_of(i))
                elif entry != last:
                    last = entry
                    t = Tensor.__new__(Tensor)
                    t.run = run_object(entry)
                    t.rows, t.cols, t.row_step, t.col_step = 1, t.run.count, <int32_t>t.run.count, 1
                    found.append(t)
    finally:
        touched_free(&touched)
    return found
