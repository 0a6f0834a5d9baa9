# watching.pxi: Whether a function reads numbers that depend on what it was given: of these no derivative is known.
#
# Comparisons may decide what it computes; numbers that are read are constants in what it computes.
#
# Uses contexts, messages, numbers, python, tracing.

cdef tuple READS = ("data: read", "item()", "float()", "int()", "trunc()", "round()", "_local_grads: read",
                    "the numbers of a Tensor: read", "the number of a Value: read", "a copy", "derivatives",
                    "gradients(): the numbers of an output", "no_grad")
cdef list watchers = []


cdef int is_from(fg_id i, tuple inputs) except -1:
    """Whether node i is computed from one of these Values and Tensors, whose elements lie in a row, or is one. No
    Python code."""
    cdef fg_id base = FG_MAX_ID, count = 0, first, k, w, words, last = 0
    cdef uint64_t *marks
    cdef uint64_t *leaves
    cdef bint found = False
    for x in inputs:
        first = first_leaf(x, &count)
        base = first if first < base else base
    if i < base:
        return False
    words = ((i - base) >> 6) + 1
    marks = <uint64_t *>PyMem_Calloc(2 * <size_t>words, sizeof(uint64_t))
    if marks == NULL:
        raise MemoryError()
    leaves = marks + words
    for x in inputs:
        first = first_leaf(x, &count)
        for k in range(first, first + count):
            if k <= i:
                mark_from(leaves, base, k)
    mark_from(marks, base, i)
    for w in range(words - 1, -1, -1):
        while marks[w] and not found:
            found = marks[w] & leaves[w] != 0
            if not found:
                k = (w << 6) + fg_bits_top(marks[w])
                marks[w] ^= <uint64_t>1 << (k & 63)
                mark_operands(marks, base, base + k, &last)
        if found:
            break
    PyMem_Free(marks)
    return found


cdef int note_watched(fg_id i, object what) except -1:
    """A number is read, or with node 0 all results become constants."""
    cdef _Watch watch
    if what not in READS:
        return 0
    for watch in watchers[::-1]:
        if watch.thread != PyThread_get_thread_ident():
            continue
        if watch.inputs is None:
            break
        if watch.read is None and (i == 0 or is_from(i, watch.inputs)):
            if watch.refusal is not None:
                raise ArgumentTypeError(watch.refusal.format(what=what))
            watch.read = what
    return 0


watched_read = note_watched


@cython.final
@cython.auto_pickle(False)
cdef class _Watch:
    """For our modules: a context that notes whether numbers are read that depend on some inputs.

    Parameters
    ----------
    inputs : iterable of Value and Tensor, or None
        The elements of a Tensor lie in a row. None: from here on nothing is noted by what is around it.
    refusal : str, optional
        Raise an ArgumentTypeError of that, with `what` filled in, instead.

    Attributes
    ----------
    read : str or None
        What was read first.
    """
    cdef tuple inputs
    cdef object refusal
    cdef readonly object read
    cdef unsigned long thread
    cdef bint entered

    def __init__(self, inputs, refusal=None):
        if inputs is not None:
            self.inputs = tuple(to_list("inputs", "Values and Tensors", inputs))
            count_numbers("inputs", self.inputs)
        self.refusal = refusal

    def __enter__(self):
        global recordings, watches
        if not self.entered:
            self.thread = PyThread_get_thread_ident()
            watchers.append(self)
            self.entered = True
            recordings += 1   # so that whoever reads a number asks
            watches += 1
        return self

    def __exit__(self, *exception):
        global recordings, watches
        cdef Py_ssize_t k
        if not self.entered:
            return
        self.entered = False
        recordings -= 1
        watches -= 1
        for k in range(len(watchers)):
            if watchers[k] is self:
                del watchers[k]
                break


# ---- variables of a context ----

@cython.final
@cython.auto_pickle(False)
cdef class _Within:
    """For our modules: a context in which a ContextVar has a value. In C, or an interrupt might come between the change
    and the block.

    Parameters
    ----------
    var : ContextVar
    value : object
    """
    cdef object var, value
    cdef list tokens

    def __init__(self, var not None, value):
        self.var, self.value, self.tokens = var, value, []

    def __enter__(self):
        self.tokens.append(None)
        self.tokens[len(self.tokens) - 1] = self.var.set(self.value)
        return self

    def __exit__(self, *exception):
        self.var.reset(self.tokens.pop())
