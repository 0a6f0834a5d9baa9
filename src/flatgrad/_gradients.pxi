# _gradients.pxi: part of _core.pyx. Derivatives as numbers of their own, which leave all gradients as they
# were: what flatgrad.grad, jacobian and gradcheck build on.


cdef double learning_rate(object lr) except? -1.0:
    cdef double rate = to_data("lr", lr)
    if not isfinite(rate):
        raise ArgumentError(f"lr: expected a finite number, got {rate}")
    return rate


cdef Py_ssize_t count_numbers(str name, object items, bint heed=True) except -1:
    """How many numbers there are in Values and Tensors. heed: Ctrl-C, which may run Python code."""
    cdef Py_ssize_t k, count = 0
    for k, item in enumerate(items):
        if heed:
            listen(k)
        if isinstance(item, Value):
            count += 1
        elif type(item) is Tensor and (<Tensor>item).rows > 0:
            count += (<Tensor>item).size
        else:
            raise ArgumentTypeError(f"{name}[{k}]: expected a Value or a Tensor, got {describe(item)}")
    return count


cdef int write_slots(tuple items, fg_id *slots, uint8_t *constant) except -1:
    """The slots of their numbers, as many as count_numbers() says, of a Tensor row by row, and whether that is a
    constant one. No Python code."""
    cdef fg_view view
    cdef fg_id i, j
    cdef Py_ssize_t at = 0
    for item in items:
        if type(item) is not Tensor:
            slots[at] = (<Value>item).id
            constant[at] = False
            at += 1
            continue
        view = view_of(<Tensor>item)
        for i in range(view.rows):
            for j in range(view.cols):
                slots[at] = <fg_id>(<int64_t>view.base + <int64_t>i * view.row_step
                                    + <int64_t>j * view.col_step)
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


cdef unsigned long whole_tape = 0   # the thread, if any, that has put the gradients of the whole tape aside


cdef int touched_find(Touched *touched, tuple outputs, Py_ssize_t n_outputs, tuple inputs,
                      Py_ssize_t n_inputs) except -1:
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
    touched.count = fg_sweep_reach(&tape, touched.slots, n_outputs, touched.words, touched.masks,
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
    for k in range(touched.count):
        copy_word(touched.masks[k], tape.grad + <size_t>touched.words[k] * 64, touched.saved + <size_t>k * 64)
    return 0


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


cdef void touched_restore(const Touched *touched) noexcept:
    cdef fg_id k
    if touched.saved == NULL:
        return
    if touched.hooked:
        touched_clear(touched)
    for k in range(touched.count):
        copy_word(touched.masks[k], touched.saved + <size_t>k * 64, tape.grad + <size_t>touched.words[k] * 64)


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


cdef bint has_frozen(object item) noexcept:
    """Whether there is a frozen leaf in a Value or Tensor."""
    cdef fg_view view
    cdef fg_id i, j
    if not frozen_ever:
        return False
    if type(item) is not Tensor:
        return fg_tape_op(&tape, (<Value>item).id) == FG_FROZEN
    view = view_of(<Tensor>item)
    for i in range(view.rows):
        for j in range(view.cols):
            if fg_tape_op(&tape, slot_in(&view, i, j)) == FG_FROZEN:
                return True
    return False


# ---- for the classes of programs whose `backward` does more ----

# The nodes that a backward pass reaches, in words of 64 ids.
cdef struct PassReach:
    fg_id count
    fg_id *words
    uint64_t *masks


cdef int find_reached(Value output, PassReach *reached) except -1:
    cdef size_t words = (<size_t>tape.n + 63) // 64
    cdef fg_id slot = output.id
    cdef int hooked = 0
    reached.words = <fg_id *>PyMem_Malloc(words * sizeof(fg_id))
    reached.masks = <uint64_t *>PyMem_Malloc(words * sizeof(uint64_t))
    if reached.words == NULL or reached.masks == NULL:
        free_reached(reached)
        raise MemoryError()
    reached.count = fg_sweep_reach(&tape, &slot, 1, reached.words, reached.masks, &hooked)
    return 0


cdef void free_reached(PassReach *reached) noexcept:
    PyMem_Free(reached.words)
    PyMem_Free(reached.masks)


def _clear_gradients(Value output not None, leaves=True):
    """Set the gradients of all nodes that a backward pass from `output` reaches to 0, its own as well.

    leaves: also those of leaves.
    """
    cdef bint of_leaves = leaves
    cdef PassReach reached
    cdef fg_id k, i, block
    cdef uint64_t mask
    cdef int op
    find_reached(output, &reached)
    for k in range(reached.count):
        mask = reached.masks[k]
        while mask:
            i = reached.words[k] * 64 + <fg_id>fg_bits_low(mask)
            mask &= mask - 1
            op = fg_tape_op(&tape, i)
            if of_leaves or not fg_op_is_leaf(op):
                fg_tape_gradient(&tape, i)[0] = 0.0
            if op == FG_PART or fg_op_is_block(op):   # one of its results stands for all
                block = block_of(i)
                i = block
                while i > 0 and fg_tape_op(&tape, i - 1) == FG_PART and block_of(i - 1) == block:
                    i -= 1
                    tape.grad[i] = 0.0
    free_reached(&reached)


def _sign_zeros(Value output not None):
    """Make the gradients of 0 that a backward pass from `output` reaches -0.0: so they differ from those that no pass
    has reached."""
    cdef PassReach reached
    cdef fg_id k, i
    cdef uint64_t mask
    find_reached(output, &reached)
    for k in range(reached.count):
        mask = reached.masks[k]
        while mask:
            i = reached.words[k] * 64 + <fg_id>fg_bits_low(mask)
            mask &= mask - 1
            if tape.grad[i] == 0.0:
                tape.grad[i] = -0.0
    free_reached(&reached)


def _changed_since(Value output not None):
    """Whether an operand of an operation that a backward pass from `output` reaches has other data than when that was
    done: what the operation gives now is not what it gave."""
    cdef PassReach reached
    cdef fg_id k, i, n
    cdef uint64_t mask
    cdef int op, status
    cdef double z = 0.0
    cdef fg_id[2] pair
    cdef const fg_id *operands
    cdef bint found = False
    find_reached(output, &reached)
    for k in range(reached.count):
        mask = reached.masks[k]
        while mask and not found:
            i = reached.words[k] * 64 + <fg_id>fg_bits_low(mask)
            mask &= mask - 1
            op = fg_tape_op(&tape, i)
            if not FG_LEAF < op < FG_CUSTOM:
                continue
            n = fg_tape_operands(&tape, i, pair, &operands)
            if fg_op_table[op].arity == 1:
                status = fg_op_unary(op, tape.data[operands[0]], <int32_t>tape.args[i].b, &z)
            elif fg_op_table[op].arity == 2:
                status = fg_op_binary(op, tape.data[operands[0]], tape.data[operands[1]], &z)
            else:
                status = fg_op_ternary(op, tape.data[operands[0]], tape.data[operands[1]], tape.data[operands[2]], &z)
            found = status < 0 or not (z == tape.data[i] or (z != z and tape.data[i] != tape.data[i]))
    free_reached(&reached)
    return found


def _second_pass(Value output not None):
    """Whether a backward pass from `output` would meet a node of `-`, `/` or a negation, below it, that has a gradient
    already: where several nodes stand for one of these, they would compound it."""
    cdef PassReach reached
    cdef fg_id k, i
    cdef uint64_t mask
    cdef int op
    cdef bint found = False
    find_reached(output, &reached)
    for k in range(reached.count):
        mask = reached.masks[k]
        while mask and not found:
            i = reached.words[k] * 64 + <fg_id>fg_bits_low(mask)
            mask &= mask - 1
            op = fg_tape_op(&tape, i)
            found = (op == FG_SUB or op == FG_DIV or op == FG_NEG) and tape.grad[i] != 0.0
    free_reached(&reached)
    return found


def derivatives(outputs, inputs):
    """The derivative of every output by every input; no gradient is changed.

    Parameters
    ----------
    outputs, inputs : iterable of Value and Tensor
        A Tensor counts as its elements, row by row. An input need not be a leaf.

    Returns
    -------
    ndarray of float64, shape (n_outputs, n_inputs)
        0 where an output does not depend on an input, and for outputs that are a constant Tensor; 1 where
        it is that input.

    Raises
    ------
    TypeError, ValueError
        If there is something else in an argument, or an input does not require a gradient.
    RuntimeError
        If another thread is within such a call, in a `_backward` rule.

    Notes
    -----
    One backward pass for each output, over gradients that start at 0; the gradients that were there are put
    aside and come back, after an error too. This costs what the nodes that the outputs depend on cost; if
    one of them has a `_backward` of its own, which may write to any gradient, then in addition one pass
    over the gradients of the whole tape for each output.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad._core import derivatives
    >>> x, y = Value(2.0), Value(5.0)
    >>> derivatives([x * y, x], [x, y]).tolist(), x.grad
    ([[5.0, 2.0], [1.0, 0.0]], 0.0)
    """
    cdef tuple outs = tuple(to_list("outputs", "Values and Tensors", outputs))
    cdef tuple ins = tuple(to_list("inputs", "Values and Tensors", inputs))
    cdef Py_ssize_t n_outputs = count_numbers("outputs", outs), n_inputs = count_numbers("inputs", ins)
    cdef Py_ssize_t row, col
    cdef double[:, ::1] table
    cdef Touched touched = Touched(0, False, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, NULL)
    cdef unsigned long outer = 0   # what whole_tape was, if it is set here
    cdef bint alone = False
    global whole_tape
    import numpy
    numpy_is_there()
    for k, item in enumerate(ins):
        if type(item) is Tensor and (<Tensor>item).constant:
            raise ArgumentError(f"inputs[{k}]: expected a Tensor that requires a gradient, got one with "
                                f"requires_grad=False of shape {item.shape}")
        if has_frozen(item):
            raise ArgumentError(f"inputs[{k}]: expected numbers that require a gradient, got {shortened(item)} with "
                                "requires_grad=False")
    result = numpy.zeros((n_outputs, n_inputs))
    if result.size == 0:
        return result
    table = result
    try:
        touched_find(&touched, outs, n_outputs, ins, n_inputs)
        touched_save(&touched)
        if touched.hooked:
            outer, whole_tape = whole_tape, PyThread_get_thread_ident()
            alone = True
        for row in range(n_outputs):
            if touched.constant[row]:
                continue
            touched_clear(&touched)
            sweep_from(touched.slots[row])
            for col in range(n_inputs):
                if touched.cleared[col]:   # the others are not reached, and hold what they held before
                    table[row, col] = tape.grad[touched.slots[n_outputs + col]]
    finally:
        if alone:
            whole_tape = outer
        touched_restore(&touched)
        touched_free(&touched)
        if tape.dead != NULL:
            drain()
    return result


def depends(outputs, inputs):
    """Whether some output is computed from some input, or is one.

    Parameters
    ----------
    outputs, inputs : iterable of Value and Tensor

    Returns
    -------
    bool
        Also True if another result of the same instruction of many results is computed from it, or a
        constant Tensor lies between.

    Raises
    ------
    TypeError
        If there is something else in an argument.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad._core import depends
    >>> x, y = Value(2.0), Value(5.0)
    >>> depends([x * 2.0], [x]), depends([x * 2.0], [y])
    (True, False)
    """
    cdef tuple outs = tuple(to_list("outputs", "Values and Tensors", outputs))
    cdef tuple ins = tuple(to_list("inputs", "Values and Tensors", inputs))
    cdef Py_ssize_t n_outputs = count_numbers("outputs", outs), n_inputs = count_numbers("inputs", ins), k
    cdef Touched touched = Touched(0, False, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, NULL)
    try:
        touched_find(&touched, outs, n_outputs, ins, n_inputs)
        for k in range(n_outputs, n_outputs + n_inputs):
            if is_touched(&touched, touched.slots[k]):
                return True
        return False
    finally:
        touched_free(&touched)
