# parameters.pxi: What an optimizer updates, as stretches of slots, and by which rule.
#
# A step converts what users have given, then looks where the slots lie, and then runs the core's loops over them.
#
# Uses contexts, handles, kept, messages, operands, python, tape.

cdef int (*look_at_step)(list several, list groups) except -1   # within detect_anomaly(): blame.pxi


@cython.final
cdef class Parameters:
    """Values and leaf Tensors, updated together by one call into C.

    Parameters
    ----------
    values : iterable of Value and Tensor
        Those that occur again are left out.
    name : str
        What error messages call `values`.

    Attributes
    ----------
    values : tuple of Value and Tensor
        Those that are kept.
    count : int
        How many numbers there are.

    Notes
    -----
    `sgd`, `adam` and the others say by which rule `step` goes, until one of them is called again, with all
    but the learning rate, which a step takes. They take the state that the rule keeps, by PyTorch's names,
    as arrays of `count` numbers, which they hold, and as a dict, where `step` writes what is not in an array.
    """
    cdef readonly tuple values  # kept alive, so that what lies in order stays in order; None before __init__
    cdef tuple stretches        # (object, offset, length, frozen): from so far after its first slot on; frozen:
                                # they take no gradient; None: to be found again
    cdef readonly Py_ssize_t count
    cdef long long moves        # handle_moves when the stretches were found
    cdef int rule
    cdef fg_rule how            # its settings, some of them for the next step only
    cdef double lr_decay        # Adagrad's
    cdef long long steps        # how many there were, for a rule that counts them
    cdef dict state
    cdef str name               # of what the next step writes there, None: nothing
    cdef object number          # and what it writes
    cdef double[::1] a, b, c    # the rule's arrays, in its kernel's order; None: it goes without

    def __init__(self, values, name="params"):
        cdef set seen = set()   # slots
        cdef list kept = []
        cdef Py_ssize_t count = 0
        cdef Tensor t
        values = list(values)
        hold_ids()
        try:
            for k, value in enumerate(values):
                listen(k)
                if not isinstance(value, (Value, Tensor)):
                    raise ArgumentTypeError(f"{name}[{k}]: expected a Value or a Tensor, got {describe(value)}")
                if isinstance(value, Tensor):
                    t = <Tensor>value
                    if fg_op_is_block(fg_tape_op(&tape, t.run.id)) or t.constant:
                        raise ArgumentError(f"{name}[{k}]: expected a leaf Tensor that requires a gradient, got one "
                                            f"made by {t._op or 'requires_grad=False'!r} of shape {t.shape}")
                    if not lies_dense(t):
                        raise ArgumentError(f"{name}[{k}]: expected a Tensor whose elements lie in order, got a view "
                                            f"of shape {t.shape}")
                slots = slots_of(value)
                new = [slot not in seen for slot in slots]
                if all(new):
                    seen.update(slots)
                    kept.append(value)
                    count += len(slots)
                elif any(new):
                    raise ArgumentError(f"{name}[{k}]: some of its elements are in an earlier parameter, and others "
                                        f"are not")
        finally:
            release_ids()
        if self.values is not None:   # its rule has arrays for as many as there are
            raise RuntimeError(f"Parameters of {self.count} numbers keep them: __init__ cannot be called again")
        self.values, self.count = tuple(kept), count

    def __reduce__(self):
        return Parameters, (self.values,)

    cdef int find(self) except -1:
        """Join what lies in order, if all or nothing of it is frozen. Ids move together, so this holds until a Value
        becomes another node's handle, or is frozen. Runs Python code, and afterwards `moves` tells whether it still
        holds."""
        cdef list stretches = []
        cdef long long moves
        cdef Py_ssize_t length = 0, offset = 0, k, count
        cdef fg_id next_id = 0, start
        cdef object first = None
        cdef bint frozen = False, is_tensor
        if self.values is None:
            raise RuntimeError("Parameters: __init__ has not been called")
        hold_ids()
        moves = handle_moves
        try:
            for value in self.values:
                is_tensor = isinstance(value, Tensor)
                start = first_slot(value)
                count = (<Tensor>value).size if is_tensor else 1
                if is_tensor and not any_frozen(start, <fg_id>count):
                    if first is not None:
                        stretches.append((first, offset, length, frozen))
                    first = None
                    stretches.append((value, 0, count, False))
                    continue
                for k in range(count):
                    if (first is not None and start + <fg_id>k == next_id and not (is_tensor and k == 0)
                            and frozen == (fg_tape_op(&tape, next_id) == FG_FROZEN)):
                        length += 1
                        next_id += 1
                        continue
                    if first is not None:
                        stretches.append((first, offset, length, frozen))
                    first, offset, length, next_id = value, k, 1, start + <fg_id>k + 1
                    frozen = fg_tape_op(&tape, next_id - 1) == FG_FROZEN
                if is_tensor:
                    stretches.append((first, offset, length, frozen))
                    first = None
            if first is not None:
                stretches.append((first, offset, length, frozen))
        finally:
            release_ids()
        self.stretches = tuple(stretches)
        self.moves = moves
        return 0

    cdef int find_all(self) except -1:
        """Make `stretches` hold. What comes next must not run Python code."""
        while self.stretches is None or self.moves != handle_moves:
            self.find()
        return 0

    def zero_grad(self):
        """Set the gradient of every number to 0."""
        if FG_UNLIKELY(recordings != 0):
            refuse_recording("zero_grad()")
        cdef Py_ssize_t offset, length
        if kept_ever and self.values is not None:
            for value in self.values:
                forget_kept(value)
        self.find_all()
        for first, offset, length, _ in self.stretches:
            memset(fg_tape_gradient(&tape, first_slot(first) + <fg_id>offset), 0, length * sizeof(double))

    def shared_with(self, Parameters other not None):
        """The first Value or Tensor that has a number of `other`; None if there is none."""
        cdef set theirs = set()
        if self.values is None or other.values is None:
            raise RuntimeError("Parameters: __init__ has not been called")
        hold_ids()
        try:
            for value in other.values:
                theirs.update(slots_of(value))
            for value in self.values:
                if not theirs.isdisjoint(slots_of(value)):
                    return value
        finally:
            release_ids()
        return None

    # ---- the rules ----

    cdef int use(self, int rule, dict state, double[::1] a, double[::1] b, double[::1] c, double weight_decay,
                 double eps, bint maximize) except -1:
        """Take the state; the rule itself comes last, for a step without one does nothing."""
        self.rule, self.name, self.number, self.lr_decay = FG_NO_RULE, None, None, 0.0
        if ((a is not None and a.shape[0] != self.count) or (b is not None and b.shape[0] != self.count)
                or (c is not None and c.shape[0] != self.count)):
            raise ValueError(f"state: expected arrays of shape ({self.count},)")
        self.state, self.a, self.b, self.c = state, a, b, c
        memset(&self.how, 0, sizeof(fg_rule))
        self.how.weight_decay, self.how.eps, self.how.maximize = weight_decay, eps, maximize
        if rule == FG_ADAM or rule == FG_ADAGRAD:
            self.steps = state.setdefault("step", 0)
        self.rule = rule
        return 0

    def sgd(self, dict state not None, momentum_buffer, double momentum, double dampening, double weight_decay,
            bint nesterov, bint maximize):
        """Steps of `flatgrad.optim.SGD`; with a buffer, of momentum. The first one fills it, if the state
        has none, and puts it there."""
        cdef bint first = momentum_buffer is not None and state.setdefault("momentum_buffer") is None
        self.use(FG_SGD, state, momentum_buffer, None, None, weight_decay, 0.0, maximize)
        self.how.momentum, self.how.dampening, self.how.nesterov, self.how.first = momentum, dampening, nesterov, first
        if first:
            self.name, self.number = "momentum_buffer", momentum_buffer

    def adam(self, dict state not None, double[::1] exp_avg not None, double[::1] exp_avg_sq not None,
             double[::1] max_exp_avg_sq, double beta1, double beta2, double eps,
             double weight_decay, bint decoupled, bint maximize):
        """Steps of `flatgrad.optim.Adam`; with `max_exp_avg_sq`, of AMSGrad."""
        self.use(FG_ADAM, state, exp_avg, exp_avg_sq, max_exp_avg_sq, weight_decay, eps, maximize)
        self.how.beta1, self.how.beta2, self.how.decoupled = beta1, beta2, decoupled

    def rmsprop(self, dict state not None, double[::1] square_avg not None, double[::1] grad_avg,
                double[::1] momentum_buffer, double alpha, double eps, double weight_decay,
                double momentum, bint maximize):
        """Steps of `flatgrad.optim.RMSprop`: centered with `grad_avg`, with momentum if it has its buffer."""
        self.use(FG_RMSPROP, state, square_avg, grad_avg, momentum_buffer, weight_decay, eps, maximize)
        self.how.alpha, self.how.momentum = alpha, momentum

    def adagrad(self, dict state not None, double[::1] total not None, double lr_decay,
                double weight_decay, double eps, bint maximize):
        """Steps of `flatgrad.optim.Adagrad`."""
        self.use(FG_ADAGRAD, state, total, None, None, weight_decay, eps, maximize)
        self.lr_decay = lr_decay

    def adadelta(self, dict state not None, double[::1] square_avg not None, double[::1] acc_delta not None,
                 double rho, double eps, double weight_decay, bint maximize):
        """Steps of `flatgrad.optim.Adadelta`."""
        self.use(FG_ADADELTA, state, square_avg, acc_delta, None, weight_decay, eps, maximize)
        self.how.alpha = rho

    @staticmethod
    def have(groups, tuple keys not None, list seen):
        """Whether each group, a dict, has under these keys the very objects of its tuple in `seen`."""
        return groups_have(groups, keys, seen)

    @staticmethod
    def step(list several not None, groups, tuple keys=None, list seen=None):
        """One step of each of them by its rule, with the learning rate that its group, a dict, has as 'lr'.

        If a learning rate is not a float that is finite and 0 or more, it returns False; if there are keys, and the
        groups are not as `have` asks, None; if there is an error, such as no memory, it raises it. Then nothing has
        changed. A signal, Ctrl-C, has to wait.
        """
        cdef Parameters one
        cdef bint ready = False
        cdef double lr
        cdef dict group
        cdef Py_ssize_t k
        if FG_UNLIKELY(recordings != 0):
            refuse_recording("an optimizer's step")
        if keys is not None and not groups_have(groups, keys, seen):
            return None
        if len(several) != len(<list?>groups):
            return False
        for k in range(len(several)):
            one, group = several[k], (<list>groups)[k]
            number = group.get("lr")
            if not PyFloat_Check(number):
                return False
            lr = PyFloat_AS_DOUBLE(number)
            if not 0.0 <= lr < INFINITY:
                return False
            one.get_ready(lr)
        while not ready:   # looking for one may run finalizers, and these move another
            ready = True
            for one in several:
                if one.stretches is None or one.moves != handle_moves:
                    one.find()
                    ready = False
        for one in several:   # no Python code
            one.take_step()
        for one in several:
            one.note_step()
        if FG_UNLIKELY(fg_no_grads != 0):
            look_at_step(several, <list>groups)
        return True

    cdef int get_ready(self, double lr) except -1:
        """What of a step may fail."""
        cdef double t = <double>(self.steps + 1)
        self.how.lr = lr / (1.0 + self.steps * self.lr_decay)
        if self.rule == FG_ADAM:
            self.how.correction1, self.how.correction2 = 1.0 - pow(self.how.beta1, t), 1.0 - pow(self.how.beta2, t)
        if self.rule == FG_ADAM or self.rule == FG_ADAGRAD:
            self.name, self.number = "step", self.steps + 1
        return 0

    cdef int take_step(self) except -1:
        """Call the kernel. Nothing fails."""
        cdef Py_ssize_t offset, length
        cdef bint frozen
        cdef fg_id i
        cdef int k
        cdef double *state[3]
        memset(state, 0, sizeof(state))
        if self.rule != FG_NO_RULE and self.count > 0:   # else there may be no arrays
            state[0] = &self.a[0] if self.a is not None else NULL
            state[1] = &self.b[0] if self.b is not None else NULL
            state[2] = &self.c[0] if self.c is not None else NULL
        tape.writes += 1
        for first, offset, length, frozen in self.stretches:
            i = first_slot(first) + <fg_id>offset
            if self.rule != FG_NO_RULE and not frozen:
                tape.kernels.update[self.rule](length, tape.data + i, tape.grad + i, state, &self.how)
            for k in range(3):
                if state[k] != NULL:
                    state[k] += length
        self.how.first = 0
        self.steps += 1
        return 0

    cdef int note_step(self) except -1:
        """Write the step into the state. What was there goes, which may run Python code."""
        if self.name is not None:
            name, number, self.name, self.number = self.name, self.number, None, None
            self.state[name] = number   # there was something of that name, so this does not fail
        return 0

    # ---- all numbers in one array ----

    def get_data(self, double[::1] to not None):
        """Copy all numbers there."""
        cdef Py_ssize_t offset, length, k = 0
        self.check_length(to.shape[0])
        self.find_all()
        for first, offset, length, _ in self.stretches:
            memcpy(&to[k], tape.data + first_slot(first) + <fg_id>offset, length * sizeof(double))
            k += length

    def get_grad(self, double[::1] to not None):
        """Copy the gradients there, 0 of what is frozen, and return the largest |gradient|: nan if one is nan."""
        cdef Py_ssize_t offset, length, k = 0
        cdef bint frozen
        self.check_length(to.shape[0])
        self.find_all()
        for first, offset, length, frozen in self.stretches:
            if frozen:
                memset(&to[k], 0, length * sizeof(double))
            else:
                memcpy(&to[k], fg_tape_gradient(&tape, first_slot(first) + <fg_id>offset), length * sizeof(double))
            k += length
        return tape.kernels.power_sum(k, &to[0], INFINITY, 1.0) if k > 0 else 0.0

    def set_data(self, const double[::1] x not None, double t=0.0, const double[::1] d=None):
        """Set all numbers, but what is frozen, to x, or to x + t * d."""
        cdef Py_ssize_t offset, length, k = 0
        cdef double *data
        cdef bint frozen
        refuse_recording("an optimizer's step")
        self.check_length(x.shape[0])
        if d is not None:
            self.check_length(d.shape[0])
        self.find_all()
        tape.writes += 1
        for first, offset, length, frozen in self.stretches:
            if not frozen:
                data = tape.data + first_slot(first) + <fg_id>offset
                memcpy(data, &x[k], length * sizeof(double))
                if d is not None:
                    tape.kernels.axpy(length, t, &d[k], data)
            k += length

    def clear_frozen(self, double[::1] x not None):
        """Set to 0 in the array what is frozen."""
        cdef Py_ssize_t offset, length, k = 0
        cdef bint frozen
        self.check_length(x.shape[0])
        self.find_all()
        for first, offset, length, frozen in self.stretches:
            if frozen:
                memset(&x[k], 0, length * sizeof(double))
            k += length

    cdef int check_length(self, Py_ssize_t length) except -1:
        if length != self.count:
            raise ValueError(f"expected an array of {self.count} numbers, got one of {length}")
        return 0

    # ---- norms of gradients, and what clips them ----

    def grad_norm(self, double norm_type):
        """(sum of |gradient|**norm_type)**(1 / norm_type), and for inf the largest |gradient|.

        It neither overflows nor underflows on the way; norm_type has to be above 0.
        """
        cdef double total = self.grad_power_sum(norm_type, 1.0), largest
        if norm_type == INFINITY or isnan(total):
            return total
        if 1e-280 < total < 1e280:
            return sqrt(total) if norm_type == 2.0 else total**(1.0 / norm_type)
        largest = self.grad_power_sum(INFINITY, 1.0)
        if not 0.0 < largest < INFINITY:
            return largest
        return largest * self.grad_power_sum(norm_type, largest)**(1.0 / norm_type)

    cdef double grad_power_sum(self, double power, double divisor) except? -1.0:
        cdef Py_ssize_t offset, length
        cdef double total = 0.0, part
        self.find_all()
        for first, offset, length, _ in self.stretches:
            part = tape.kernels.power_sum(length, fg_tape_gradient(&tape, first_slot(first) + <fg_id>offset), power,
                                          divisor)
            if power == INFINITY:
                total = part if part > total or isnan(part) else total
            else:
                total += part
        return total

    def scale_grad(self, double factor):
        """Multiply every gradient by `factor`."""
        cdef Py_ssize_t offset, length
        self.find_all()
        for first, offset, length, _ in self.stretches:
            tape.kernels.scale(length, factor, fg_tape_gradient(&tape, first_slot(first) + <fg_id>offset))

    def clip_grad(self, double bound):
        """Bring every gradient to what is from -bound to bound; nan stays."""
        cdef Py_ssize_t offset, length
        self.find_all()
        for first, offset, length, _ in self.stretches:
            tape.kernels.clip(length, bound, fg_tape_gradient(&tape, first_slot(first) + <fg_id>offset))


cdef bint groups_have(object groups, tuple keys, list seen) except -1:
    """See Parameters.have."""
    cdef Py_ssize_t k, j
    cdef PyObject *found
    cdef tuple before
    if seen is None or type(groups) is not list or len(<list>groups) != len(seen):
        return False
    for k in range(len(seen)):
        group = (<list>groups)[k]
        if type(group) is not dict:
            return False
        before = seen[k]
        if before is None or len(before) != len(keys):
            return False
        for j in range(len(keys)):
            found = PyDict_GetItemWithError(group, keys[j])
            if found == NULL or found != <PyObject *>before[j]:
                return False
    return True


cdef object slots_of(value):
    """The slots of a Value or a Tensor whose elements lie in order; ids are held."""
    if isinstance(value, Tensor):
        return range(first_slot(value), first_slot(value) + (<Tensor>value).size)
    return ((<Value>value).id,)


def are_values(list items not None):
    """Whether there is nothing but Values in the list: what a loop in Python takes longer for than a dot product."""
    for item in items:
        if not isinstance(item, Value):
            return False
    return True
