# derivatives.pxi: Derivatives as numbers of their own, which leave all gradients as they were.
#
# What flatgrad.grad, jacobian and gradcheck build on.
#
# Uses contexts, messages, numbers, operands, python, sweeps, tape, touched, views.

cdef int check_wanted(tuple inputs) except -1:
    """An error unless all Values and Tensors to differentiate by require gradients."""
    for k, item in enumerate(inputs):
        if type(item) is Tensor and (<Tensor>item).constant:
            raise ArgumentError(f"inputs[{k}]: expected a Tensor that requires a gradient, got one with "
                                f"requires_grad=False of shape {item.shape}")
        if frozen_in(item) > 0:
            raise ArgumentError(f"inputs[{k}]: expected numbers that require a gradient, got {shortened(item)} with "
                                "requires_grad=False")
    return 0


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
    cdef Touched touched = Touched(0, False, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, NULL, False)
    cdef unsigned long outer = 0   # what whole_tape was, if it is set here
    cdef bint alone = False
    global whole_tape
    for item in outs:
        guard(first_slot(item), "derivatives")
    import numpy
    numpy_is_there()
    check_wanted(ins)
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
            while touched_run(&touched, fg_sweep_begin(&tape, touched.slots[row])) == STOPPED:
                touched_clear(&touched)
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
    cdef Touched touched = Touched(0, False, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, NULL, False)
    try:
        touched_find(&touched, outs, n_outputs, ins, n_inputs)
        for k in range(n_outputs, n_outputs + n_inputs):
            if is_touched(&touched, touched.slots[k]):
                return True
        return False
    finally:
        touched_free(&touched)
