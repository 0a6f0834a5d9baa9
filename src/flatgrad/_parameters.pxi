# _parameters.pxi: part of _core.pyx. What an optimizer updates, as stretches of slots.


@cython.final
cdef class Parameters:
    """Values and leaf Tensors, updated together by one call into C.

    Parameters
    ----------
    values : iterable of Value and Tensor
        Those that occur again are left out.

    Attributes
    ----------
    count : int
        How many numbers there are.
    """
    cdef list values            # kept alive, so that what lies in order stays in order
    cdef list stretches         # (object, length): from its first slot on; None: to be found again
    cdef readonly Py_ssize_t count
    cdef long long moves        # handle_moves when the stretches were found

    def __init__(self, values):
        cdef set seen = set()   # slots
        cdef Tensor t
        self.values = []
        self.stretches = None
        self.count = 0
        values = list(values)
        hold_ids()
        try:
            for k, value in enumerate(values):
                if not isinstance(value, (Value, Tensor)):
                    raise TypeError(f"params[{k}]: expected a Value or a Tensor, got {describe(value)}")
                if isinstance(value, Value):
                    slots = ((<Value>value).id,)
                else:
                    t = <Tensor>value
                    if fg_op_is_block(fg_tape_op(&tape, t.run.id)) or t.constant:
                        raise ValueError(f"params[{k}]: expected a leaf Tensor that requires a gradient, got one "
                                         f"made by {t._op or 'requires_grad=False'!r} of shape {t.shape}")
                    if not lies_dense(t):
                        raise ValueError(f"params[{k}]: expected a Tensor whose elements lie in order, got a view "
                                         f"of shape {t.shape}")
                    slots = range(first_slot(t), first_slot(t) + t.size)
                new = [slot not in seen for slot in slots]
                if all(new):
                    seen.update(slots)
                    self.values.append(value)
                    self.count += len(slots)
                elif any(new):
                    raise ValueError(f"params[{k}]: some of its elements are in an earlier parameter, and others "
                                     f"are not")
        finally:
            release_ids()

    def __reduce__(self):
        return Parameters, (self.values,)

    cdef int find(self) except -1:
        """Join the Values whose slots follow each other. Ids move together, so this holds until a Value
        becomes another node's handle."""
        cdef list stretches = []
        cdef Py_ssize_t length = 0
        cdef fg_id next_id = 0
        cdef object first = None
        cdef Tensor t
        hold_ids()
        try:
            for value in self.values:
                if isinstance(value, Tensor):
                    t = <Tensor>value
                    if first is not None:
                        stretches.append((first, length))
                    first = None
                    stretches.append((t, t.size))
                elif first is not None and (<Value>value).id == next_id:
                    length += 1
                    next_id += 1
                else:
                    if first is not None:
                        stretches.append((first, length))
                    first, length, next_id = value, 1, (<Value>value).id + 1
            if first is not None:
                stretches.append((first, length))
        finally:
            release_ids()
        self.stretches = stretches
        self.moves = handle_moves
        return 0

    def zero_grad(self):
        """Set the gradient of every number to 0."""
        cdef Py_ssize_t length
        if self.stretches is None or self.moves != handle_moves:
            self.find()
        for first, length in self.stretches:
            memset(tape.grad + first_slot(first), 0, length * sizeof(double))

    def sgd(self, double[::1] buffer, double lr, double momentum, double dampening, double weight_decay,
            bint nesterov, bint first_step):
        """One step of stochastic gradient descent, as in `flatgrad.optim.SGD`."""
        cdef fg_sgd h = fg_sgd(lr, momentum, dampening, weight_decay, nesterov, first_step)
        cdef Py_ssize_t length, at = 0
        cdef fg_id i
        if self.stretches is None or self.moves != handle_moves:
            self.find()
        if buffer is not None and buffer.shape[0] != self.count:
            raise ValueError(f"buffer: expected shape ({self.count},), got ({buffer.shape[0]},)")
        for first, length in self.stretches:
            i = first_slot(first)
            tape.kernels.sgd(length, tape.data + i, tape.grad + i, &buffer[at] if buffer is not None else NULL,
                             &h)
            at += length

    def adam(self, double[::1] m not None, double[::1] v not None, double[::1] v_max, double lr, double beta1,
             double beta2, double eps, double weight_decay, long long step):
        """One step of Adam, as in `flatgrad.optim.Adam`; `step` counts from 1."""
        cdef fg_adam h = fg_adam(lr, beta1, beta2, eps, weight_decay, 1.0 - beta1**step, 1.0 - beta2**step)
        cdef Py_ssize_t length, at = 0
        cdef fg_id i
        if self.stretches is None or self.moves != handle_moves:
            self.find()
        if (m.shape[0] != self.count or v.shape[0] != self.count
                or (v_max is not None and v_max.shape[0] != self.count)):
            raise ValueError(f"m, v, v_max: expected shape ({self.count},)")
        for first, length in self.stretches:
            i = first_slot(first)
            tape.kernels.adam(length, tape.data + i, tape.grad + i, &m[at], &v[at],
                              &v_max[at] if v_max is not None else NULL, &h)
            at += length


cdef bint lies_dense(Tensor t) noexcept:
    """Whether its elements are one stretch of slots, row by row."""
    return t.col_step == 1 and (t.rows == 1 or t.row_step == <int64_t>t.cols)


cdef inline fg_id first_slot(object first) noexcept:
    """Where a stretch begins. Runs no Python code."""
    if type(first) is Tensor:
        return (<Tensor>first).run.id - (<Tensor>first).run.count + (<Tensor>first).offset
    return (<Value>first).id
