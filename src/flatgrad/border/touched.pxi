# touched.pxi: Gradients put aside: what a sweep from some outputs can touch, saved, cleared and restored.
#
# Uses operands, python, sweeps, tape.

cdef int write_slots(tuple items, fg_id *slots, uint8_t *constant) except -1:
    """The slots of their numbers, as many as count_numbers() says, of a Tensor row by row, and whether that is a
    constant one. No Python code."""
    cdef fg_view view
    cdef fg_id k
    cdef Py_ssize_t at = 0
    for item in items:
        if type(item) is not Tensor:
            slots[at] = (<Value>item).id
            constant[at] = False
            at += 1
            continue
        view = view_of(<Tensor>item)
        for k in range(view.rows * view.cols):
            slots[at] = pick_slot(&view, k)
            constant[at] = (<Tensor>item).constant
            at += 1
    return 0


# What sweeps from some outputs can touch, in words of 64 slots, and the gradients that were there.
cdef struct Touched:
    fg_id n            # slots on the tape when it was made; they keep their ids until touched_free()
    bint held          # by hold_ids(), where no Python code is run but that of signals; else
    fg_sweep *frozen   # what keeps them
    fg_id *slots       # of the outputs and, after them, of the inputs
    uint8_t *constant  # for each, whether it is in a constant Tensor
    fg_id *words
    uint64_t *masks    # which nodes of the word can be reached
    fg_id count        # words
    int hooked
    uint8_t *cleared   # for each input, whether it can be reached, or a rule may write to it
    double *saved      # [64 * count]
    bint aside         # whether the gradients are there, and not on the tape


cdef int touched_find(Touched *touched, tuple outputs, Py_ssize_t n_outputs, tuple inputs, Py_ssize_t n_inputs,
                      fg_which which=FG_ALL) except -1:
    cdef size_t words = (<size_t>tape.n + 63) // 64
    cdef Py_ssize_t k
    touched.n = tape.n
    touched.slots = <fg_id *>PyMem_Malloc((n_outputs + n_inputs + 1) * sizeof(fg_id))
    touched.constant = <uint8_t *>PyMem_Malloc(n_outputs + n_inputs + 1)
    touched.cleared = <uint8_t *>PyMem_Malloc(n_inputs + 1)
    touched.words = <fg_id *>PyMem_Malloc(words * sizeof(fg_id))
    touched.masks = <uint64_t *>PyMem_Malloc(words * sizeof(uint64_t))
    if (touched.slots == NULL or touched.constant == NULL or touched.cleared == NULL or touched.words == NULL
            or touched.masks == NULL):
        raise MemoryError()
    hold_ids()
    touched.held = True
    write_slots(outputs, touched.slots, touched.constant)
    write_slots(inputs, touched.slots + n_outputs, touched.constant + n_outputs)
    touched.count = fg_sweep_reach(&tape, touched.slots, n_outputs, which, touched.words, touched.masks,
                                   &touched.hooked)
    if touched.hooked:
        # Rules may take long. As if a sweep had to visit all that there is: so nothing of it goes or is renumbered,
        # but what is made from now on comes and goes as always.
        touched.frozen = fg_tape_sweep_begin(&tape, touched.n)
        if touched.frozen == NULL:
            raise MemoryError()
        touched.frozen.marks.lowest = 0
        touched.frozen.marks.highest = (touched.n - 1) >> 12
        fg_marks_add_range(&touched.frozen.marks, 0, touched.n)
        fg_tape_sweep_pause(&tape, touched.frozen)
        touched.held = False
        release_ids()
    for k in range(n_inputs):
        touched.cleared[k] = touched.hooked or is_touched(touched, touched.slots[n_outputs + k])
    return 0


cdef bint is_touched(const Touched *touched, fg_id slot) noexcept:
    """Whether sweeps can reach the slot. Words fall."""
    cdef fg_id low = 0, high = touched.count, middle
    while low < high:
        middle = low + (high - low) // 2
        if touched.words[middle] > slot >> 6:
            low = middle + 1
        else:
            high = middle
    return low < touched.count and touched.words[low] == slot >> 6 and touched.masks[low] >> (slot & 63) & 1


cdef void touched_skip(Touched *touched, fg_id slot) noexcept:
    """As if sweeps could not reach the slot."""
    cdef fg_id low = 0, high = touched.count, middle
    while low < high:
        middle = low + (high - low) // 2
        if touched.words[middle] > slot >> 6:
            low = middle + 1
        else:
            high = middle
    if low < touched.count and touched.words[low] == slot >> 6:
        touched.masks[low] &= ~(<uint64_t>1 << (slot & 63))


cdef int touched_save(Touched *touched) except -1:
    """Put the gradients aside."""
    global whole_tape
    cdef fg_id k
    if touched.hooked:   # a user's rule may write to any gradient: all of them
        if whole_tape not in (0, PyThread_get_thread_ident()):
            raise RuntimeError("derivatives(): another thread is within a transform of a graph with _backward rules of "
                               "its own")
        touched.count = (touched.n + 63) // 64
        for k in range(touched.count):
            touched.words[k] = k
            touched.masks[k] = ~<uint64_t>0
        if touched.n & 63:
            touched.masks[touched.count - 1] = (<uint64_t>1 << (touched.n & 63)) - 1
    touched.saved = <double *>PyMem_Malloc((<size_t>touched.count * 64 + 1) * sizeof(double))
    if touched.saved == NULL:
        raise MemoryError()
    touched_put_aside(touched)
    return 0


cdef void touched_put_aside(Touched *touched) noexcept:
    cdef fg_id k
    for k in range(touched.count):
        copy_word(touched.masks[k], tape.grad + <size_t>touched.words[k] * 64, touched.saved + <size_t>k * 64)
    touched.aside = True


cdef void copy_word(uint64_t mask, const double *source, double *to) noexcept:
    """Of 64 numbers those that the mask names. No others: they are of somebody else's graph, who may be in another
    thread."""
    cdef unsigned bit
    if mask == ~<uint64_t>0:
        memcpy(to, source, 64 * sizeof(double))
        return
    while mask:
        bit = fg_bits_low(mask)
        to[bit] = source[bit]
        mask &= mask - 1


cdef void touched_clear(const Touched *touched) noexcept:
    """Set the gradients to 0, those of nodes that rules have made since as well."""
    cdef double[64] zeros
    cdef fg_id k
    memset(zeros, 0, sizeof(zeros))
    for k in range(touched.count):
        copy_word(touched.masks[k], zeros, tape.grad + <size_t>touched.words[k] * 64)
    if touched.hooked:
        memset(tape.grad + touched.n, 0, (tape.n - touched.n) * sizeof(double))


cdef void touched_restore(Touched *touched) noexcept:
    cdef fg_id k
    if not touched.aside:
        return
    touched.aside = False
    if touched.hooked:
        touched_clear(touched)
    for k in range(touched.count):
        copy_word(touched.masks[k], touched.saved + <size_t>k * 64, tape.grad + <size_t>touched.words[k] * 64)


cdef int touched_run(Touched *touched, fg_sweep *sweep) except -1:
    """SWEPT: a sweep that has begun, over gradients put aside. STOPPED: Ctrl-C has been pressed, and what handles that
    has been run, over the gradients that everybody knows; the sweep is to begin once more, after touched_clear()."""
    if run_sweep(sweep, not touched.hooked) == SWEPT:
        return SWEPT
    touched_restore(touched)
    PyErr_CheckSignals()
    touched_put_aside(touched)
    return STOPPED


cdef void touched_free(Touched *touched) noexcept:
    if touched.frozen != NULL:
        fg_sweep_cancel(&tape, touched.frozen)
    if touched.held:
        release_ids()
    PyMem_Free(touched.slots)
    PyMem_Free(touched.constant)
    PyMem_Free(touched.cleared)
    PyMem_Free(touched.words)
    PyMem_Free(touched.masks)
    PyMem_Free(touched.saved)
