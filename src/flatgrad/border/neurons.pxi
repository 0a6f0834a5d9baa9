# neurons.pxi: Neurons' weights, and one neuron as a scalar graph.
#
# Whatever a user does to a neuron is honoured, and still a call must not look at every weight again. Weights keeps
# the list `w` only while somebody else may have it: as long as nobody does, the weights are those that were seen
# last, and since these are kept alive, they lie where they lay, in order.
#
# Uses contexts, elementwise, handles, numbers, operands, python, tape, value_type.

cdef class Weights:
    """What a neuron computes with.

    Attributes
    ----------
    w : list of Value
        One weight for each input. May be changed, or another list or tuple put in its place.
    b : Value
        The bias.
    activation : str
        'linear', 'relu', 'leaky_relu', 'elu', 'gelu', 'gelu_tanh', 'silu', 'softplus', 'tanh' or 'sigmoid'.
    nonlin : bool
        Whether the activation is another than 'linear'. Assigning True means 'relu'.
    has_bias : bool
        Whether the bias is among the parameters.
    """
    cdef object handed_out      # the list (or whatever a user has put there) that `w` gave; None: nobody has it
    cdef tuple kept             # the weights as last seen in it, all Values; None: not yet seen
    cdef object bias
    cdef int code               # the activation's opcode, FG_LEAF for linear
    cdef public bint has_bias
    cdef bint in_order          # the weights' slots follow each other
    cdef long long moves        # handle_moves when that was seen

    def __cinit__(self):
        if FG_UNLIKELY(recordings != 0):
            refuse_recording("a neuron: made")
        self.bias = None
        self.has_bias = True
        self.code = FG_RELU

    @property
    def w(self):
        if self.handed_out is None:
            if self.kept is None:
                raise AttributeError(f"'{type(self).__name__}' object has no attribute 'w'")
            self.handed_out = list(self.kept)
        return self.handed_out

    @w.setter
    def w(self, x):
        if x is None:   # which would say that nobody has the list
            raise TypeError("w: expected a list of Values, got None")
        self.handed_out = x
        self.kept = None

    @property
    def b(self):
        if self.bias is None:
            raise AttributeError(f"'{type(self).__name__}' object has no attribute 'b'")
        return self.bias

    @b.setter
    def b(self, x):
        self.bias = x

    @property
    def activation(self):
        return "linear" if self.code == FG_LEAF else fg_op_table[self.code].name.decode()

    @activation.setter
    def activation(self, x):
        self.code = activation_of("activation", x)

    @property
    def nonlin(self):
        return self.code != FG_LEAF

    @nonlin.setter
    def nonlin(self, x):
        if bool(x) != (self.code != FG_LEAF):
            self.code = FG_RELU if x else FG_LEAF

    def __getstate__(self):
        return dict(self.__dict__), self.w, self.b, self.activation, self.has_bias

    def __setstate__(self, state):
        own, self.w, self.b, self.activation, self.has_bias = state
        self.__dict__.update(own)

    def __reduce__(self):
        return copyreg.__newobj__, (type(self),), self.__getstate__()

    def own_parameters(self):
        """The weights, then the bias if there is one, in a new list."""
        if not is_current(self):
            see(self)
        weights = self.kept if self.kept is not None else self.w
        return [*weights, self.b] if self.has_bias else list(weights)


cdef bint is_current(Weights n) noexcept:
    """Whether `kept` are the weights, which is so if nobody has the list, or it has not changed. No Python
    code."""
    cdef Py_ssize_t k
    cdef PyObject **items
    cdef PyObject **kept
    if n.kept is None:
        return False
    if n.handed_out is None:
        return True
    if type(n.handed_out) is not list or PySequence_Fast_GET_SIZE(n.handed_out) != len(n.kept):
        return False
    items = PySequence_Fast_ITEMS(n.handed_out)
    kept = PySequence_Fast_ITEMS(n.kept)
    for k in range(PySequence_Fast_GET_SIZE(n.kept)):
        if items[k] != kept[k]:
            return False
    if Py_REFCNT(<PyObject *>n.handed_out) == 1:   # ours
        n.handed_out = None
    return True


cdef int see(Weights n) except -1:
    """Look at the weights: 1 if all of them are exactly Values, whose operators are ours."""
    cdef tuple seen
    n.kept = None
    if type(n.handed_out) not in (list, tuple):
        return 0
    seen = tuple(n.handed_out)   # first: making it may run Python code, and that change the list
    for item in seen:
        if type(item) is not Value:
            return 0
    n.kept = seen
    n.moves = -1
    if type(n.handed_out) is list:
        is_current(n)
    return 1


cdef bint lies_in_order(Weights n) noexcept:
    """Whether the slots of the kept weights follow each other. Once they do, they stay so."""
    cdef PyObject **kept = PySequence_Fast_ITEMS(n.kept)
    cdef Py_ssize_t k, count = PySequence_Fast_GET_SIZE(n.kept)
    if n.moves == handle_moves:
        return n.in_order
    n.in_order = True
    for k in range(1, count):
        if (<fg_handle *>kept[k]).id != (<fg_handle *>kept[0]).id + <fg_id>k:
            n.in_order = False
            break
    n.moves = handle_moves
    return n.in_order


# ---- which classes and functions are nn's own, and so may be replaced by what they do ----

cdef PyObject *neuron_call = NULL   # Neuron.__call__ and Layer.__call__, as nn has defined them
cdef PyObject *layer_call = NULL
cdef str CALL = "__call__"


def own_calls(neuron, layer):
    """nn says what its classes do when called; a class with another `__call__` is called."""
    global neuron_call, layer_call
    kept_alive.extend((neuron, layer))
    neuron_call = <PyObject *>neuron
    layer_call = <PyObject *>layer


cdef inline bint calls(object o, PyObject *function) noexcept:
    return _PyType_Lookup(Py_TYPE(<PyObject *>o), <PyObject *>CALL) == function


cdef bint only_values(object x):
    """Whether a sample's Values are exactly that."""
    if isinstance(x, (list, tuple)):
        for item in x:
            if isinstance(item, Value) and type(item) is not Value:
                return False
    return True


# ---- one neuron as a scalar graph ----

def weighted_sum(w not None, x not None, b):
    """b + w[0] * x[0] + w[1] * x[1] + ..., node for node as the operators would build it.

    Parameters
    ----------
    w, x : list or tuple of Value or real number
        Weights and inputs, equally many.
    b : Value or real number
        Where the sum starts.

    Returns
    -------
    Value
        The last sum; `b` itself if there is nothing to add. Only it gets a handle, so this costs
        a fraction of the same expression in Python.

    Raises
    ------
    ValueError
        If `w` and `x` differ in length.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad._core import weighted_sum
    >>> weighted_sum([Value(2.0), Value(3.0)], [10.0, 100.0], Value(1.0)).data
    321.0
    """
    cdef Py_ssize_t count, k
    cdef PyObject **ws
    cdef PyObject **xs
    cdef fg_id xi, product, total
    cdef double xd, wd, sum
    cdef fg_handle *handle
    w = plain_sequence(w) if isinstance(w, (list, tuple)) else list(w)
    x = plain_sequence(x) if isinstance(x, (list, tuple)) else one_sample(x)
    count = len(w)
    if len(x) != count:
        raise ShapeError(f"x: expected {count} inputs, one for each weight, got {len(x)}")
    if count == 0:
        return b
    if count >= <fg_id>FG_MAX_ID // 4:
        raise MemoryError(f"w: {count} weights do not fit on the tape")
    reserve(<fg_id>(3 * count), 0)
    if not plain_terms(w, x, b, count):
        for k in range(count):
            if is_row(x[k]):
                raise ArgumentTypeError("x: expected one sample, a list of numbers and Values, got one with a "
                                        f"{type(x[k]).__name__} in it; a Layer takes several samples")
            b = b + w[k] * x[k]
        return b
    # No Python code runs from plain_terms() to the end: the lists and all ids stay as they are.
    handle = new_handle()
    ws = PySequence_Fast_ITEMS(w)
    xs = PySequence_Fast_ITEMS(x)
    total = (<Value>b).id
    sum = tape.data[total]
    for k in range(count):
        if Py_TYPE(xs[k]) == <PyTypeObject *>Value:
            xi = (<fg_handle *>xs[k]).id
            xd = tape.data[xi]
        else:
            xd = PyFloat_AS_DOUBLE(<object>xs[k])
            xi = fg_tape_push_leaf(&tape, xd)
        wd = tape.data[(<fg_handle *>ws[k]).id] * xd
        product = fg_tape_push(&tape, FG_MUL, (<fg_handle *>ws[k]).id, xi, wd)
        sum += wd
        total = fg_tape_push(&tape, FG_ADD, total, product, sum)
    return FG_GIVE(fg_give(&tape, handle, total))


cdef bint plain_terms(object w, object x, object b, Py_ssize_t count):
    """Whether the operators of exactly Value would do all of b + sum(w * x)."""
    cdef PyObject **ws = PySequence_Fast_ITEMS(w)
    cdef PyObject **xs = PySequence_Fast_ITEMS(x)
    cdef PyTypeObject *value = <PyTypeObject *>Value
    cdef Py_ssize_t k
    if (type(b) is not Value or PySequence_Fast_GET_SIZE(w) != count
            or PySequence_Fast_GET_SIZE(x) != count
            or not operators_are_ours()):
        return False
    for k in range(count):
        if Py_TYPE(ws[k]) != value or (Py_TYPE(xs[k]) != value
                                       and Py_TYPE(xs[k]) != <PyTypeObject *>float):
            return False
    return True
