# contexts.pxi: Blocks that change what operations record: no_grad, recording, scalar_graph, detect_anomaly.
#
# A block belongs to the context (contextvars) in which it was entered: to a thread, or a task of asyncio, and to the
# tasks that are made within it. A generator shares the context of its caller, so a block that is entered in one
# counts only while that generator runs, and not while it is suspended. A block that has been left counts nowhere.
# While there is no block at all, operations look at one global count and no further.
#
# Asking whether there is a block runs no Python code: it may stand between reading an id and using it.
#
# Uses handles, python.

cdef extern from *:
    """
    #include <frameobject.h>

    static Py_ssize_t recordings; /* programs that are recorded, in all contexts */
    static int (*fg_refuse_recorded)(fg_id, PyObject *); /* see tracing.pxi */
    static int (*fg_refuse_stand_in)(fg_id, PyObject *); /* likewise */

    /* Before a number is read: an error if a program is recorded that it would be a constant of. A macro, for whoever
       reads numbers is to be as fast as if it were not there. */
    #define guard(i, what) (FG_UNLIKELY(recordings != 0) ? fg_refuse_recorded((i), (what)) : 0)

    /* The generator whose frame it is; NULL with an error, None for a frame of none. */
    static PyObject *fg_frame_generator(PyObject *frame)
    {
    #if PY_VERSION_HEX >= 0x030B0000
        PyObject *generator = PyFrame_GetGenerator((PyFrameObject *)frame);
    #else
        PyObject *generator = ((PyFrameObject *)frame)->f_gen;
        Py_XINCREF(generator);
    #endif
        if (!generator) {
            generator = Py_None;
            Py_INCREF(generator);
        }
        return generator;
    }

    /* What a weak reference refers to, as a new reference; NULL if that has gone. */
    static PyObject *fg_weak_target(PyObject *reference)
    {
        PyObject *target;
    #if PY_VERSION_HEX >= 0x030D0000
        if (PyWeakref_GetRef(reference, &target) < 0)
            PyErr_Clear();
        return target;
    #else
        target = PyWeakref_GetObject(reference);
        if (target == Py_None)
            return NULL;
        Py_XINCREF(target);
        return target;
    #endif
    }
    """
    Py_ssize_t recordings
    int (*fg_refuse_recorded)(fg_id i, object what) except -1
    int (*fg_refuse_stand_in)(fg_id i, object name) except -1
    int guard(fg_id i, object what) except -1
    object fg_frame_generator(object frame)
    PyObject *fg_weak_target(PyObject *reference) noexcept


cdef enum:
    NO_GRAD, RECORDING, SCALAR_GRAPH, ANOMALY, NO_ANOMALY


cdef Py_ssize_t scalar_blocks = 0   # scalar_graph() blocks that are open, in all contexts; as fg_no_grads for no_grad()

cdef Py_ssize_t anomaly_blocks = 0   # detect_anomaly() blocks that are open, in all contexts; also among fg_no_grads
cdef int (*look_on)() except -1    # the first is entered, and the last one has been left: see anomaly.pxi
cdef void (*look_off)() noexcept

cdef Py_ssize_t watches = 0   # functions under way that are watched, in all threads; each counts as a recording
cdef int (*watched_read)(fg_id i, object what) except -1   # what is asked then: see watching.pxi

cdef bint scalar_everywhere = False   # and then they are one more

cdef object gradient_block = ContextVar("flatgrad gradients", default=None)   # the innermost _Block, or None
cdef object scalar_block = ContextVar("flatgrad scalar_graph", default=None)
cdef object anomaly_block = ContextVar("flatgrad detect_anomaly", default=None)

cdef str GENERATOR_RUNS = sys.intern("gi_running"), ASYNC_GENERATOR_RUNS = sys.intern("ag_running")
cdef str contextlib_file = None   # what frames of contextlib have for a file; None before it has been imported


@cython.final
@cython.no_gc
@cython.auto_pickle(False)
cdef class _Block:
    """An open block, or one that has been left and is still among those of a context."""
    cdef int what
    cdef bint open
    cdef bint loose          # set_detect_anomaly() has entered it, and nobody else leaves it
    cdef _Block outer        # the block around it when it was entered
    cdef object generator    # a weak reference to the generator that it is in; None if it is in none
    cdef PyObject *recorder  # who records a program in it, as long as that lives; or NULL
    cdef str runs            # the attribute that says whether that runs

    def __dealloc__(self):
        cdef _Block block = self.outer
        close_block(self)    # nobody can leave it any more
        self.outer = None
        # A long chain goes link by link: one that only this variable refers to lets go of the next before it goes.
        while block is not None and Py_REFCNT(<PyObject *>block) == 1:
            self.outer = block.outer
            block.outer = None
            block = self.outer
            self.outer = None


cdef void close_block(_Block block) noexcept:
    global fg_no_grads, scalar_blocks, anomaly_blocks
    if block.open:
        block.open = False
        if block.what == NO_GRAD:
            fg_no_grads -= 1
        elif block.what == SCALAR_GRAPH:
            scalar_blocks -= 1
        elif block.what == ANOMALY or block.what == NO_ANOMALY:
            fg_no_grads -= 1
            anomaly_blocks -= 1
            if anomaly_blocks == 0:
                look_off()


cdef bint block_counts(_Block block) noexcept:
    """Whether it is open and not suspended. Runs no Python code, and cannot fail."""
    cdef PyObject *generator
    cdef PyObject *runs
    cdef bint result
    if not block.open or block.generator is None:
        return block.open
    generator = fg_weak_target(<PyObject *>block.generator)
    if generator == NULL:
        return False
    runs = PyObject_GetAttr(generator, <PyObject *>block.runs)
    result = runs == Py_True
    if runs == NULL:
        PyErr_Clear()
    else:
        Py_DECREF(runs)
    Py_DECREF(generator)
    return result


cdef int innermost(PyObject *var) noexcept:
    """What the innermost block that counts is; -1 if there is none. Runs no Python code, and cannot fail."""
    cdef PyObject *value = NULL
    cdef _Block block
    cdef int what = -1
    if PyContextVar_Get(var, NULL, &value) < 0 or value == NULL:
        PyErr_Clear()
        return -1
    if value != <PyObject *>None:
        block = <_Block>value
        while block is not None:
            if block_counts(block):
                what = block.what
                break
            block = block.outer
    Py_DECREF(value)
    return what


cdef PyObject *current_recorder() noexcept:
    """Who records a program in this context; NULL if nobody does. Runs no Python code, and cannot fail."""
    cdef PyObject *value = NULL
    cdef PyObject *recorder = NULL
    cdef _Block block
    if recordings == 0 or PyContextVar_Get(<PyObject *>gradient_block, NULL, &value) < 0 or value == NULL:
        PyErr_Clear()
        return NULL
    if value != <PyObject *>None:
        block = <_Block>value
        while block is not None and recorder == NULL:
            if block.recorder != NULL and block_counts(block):
                recorder = block.recorder
            block = block.outer
    Py_DECREF(value)
    return recorder


cdef int refuse_recording(str what) except -1:
    """An error for what would be done once, and not at each call of a program."""
    if current_recorder() != NULL:
        raise ArgumentTypeError(f"{what} while a compiled function is recorded: it would be done once, and not at each "
                                "call. Take it out of the compiled function")
    return 0


def _refuse_recording(str what not None):
    """For our modules: an error if a program is recorded in this context, for `what` would be done once."""
    refuse_recording(what)


cdef bint is_unrecorded() noexcept:
    return innermost(<PyObject *>gradient_block) == NO_GRAD


fg_is_unrecorded = is_unrecorded


def _is_unrecorded():
    """For our modules: whether the innermost block that counts here is no_grad()."""
    return fg_no_grads != 0 and is_unrecorded()


cdef inline bint in_scalar_graph() noexcept:
    """Whether there is a scalar_graph() block around us."""
    return FG_UNLIKELY(scalar_blocks != 0) and (scalar_everywhere
                                                or innermost(<PyObject *>scalar_block) == SCALAR_GRAPH)


cdef object innermost_frame():
    """The frame of the Python code that runs, or None. In a thread without one CPython 3.15 has a frame of no code."""
    try:
        frame = sys._getframe()
    except ValueError:
        return None
    return None if frame.f_code is None else frame


cdef object entering_generator():
    """The generator that a block entered now is in, or None.

    That of contextlib.contextmanager is none: it is suspended while the body of its `with` runs. So what counts is
    where that `with` stands, and likewise with an `__enter__` that enters a block.
    """
    global contextlib_file
    if contextlib_file is None and "contextlib" in sys.modules:
        from contextlib import ContextDecorator

        contextlib_file = ContextDecorator.__call__.__code__.co_filename
    frame = innermost_frame()
    while frame is not None:
        code = frame.f_code
        if code.co_flags & 0x220:   # CO_GENERATOR, CO_ASYNC_GENERATOR
            back = frame.f_back
            if (back is None or back.f_code.co_filename != contextlib_file
                    or back.f_code.co_name not in ("__enter__", "__aenter__")):
                return fg_frame_generator(frame)
            frame = back
        elif code.co_filename == contextlib_file or code.co_name in ("__enter__", "__aenter__"):
            frame = frame.f_back
        else:
            return None
    return None


cdef int enter_block(object var, int what, list own) except -1:
    """Open a block, and append it to those of the object that stands for it."""
    global fg_no_grads, scalar_blocks, anomaly_blocks
    cdef _Block block = _Block.__new__(_Block), other
    cdef int k
    generator = entering_generator()
    if generator is not None:
        block.generator = PyWeakref_NewRef(generator, None)
        block.runs = GENERATOR_RUNS if hasattr(generator, "gi_running") else ASYNC_GENERATOR_RUNS
    block.what = what
    block.outer = still_open(var.get())
    other = block.outer
    for k in range(16):   # drop those that were left before the ones within them; more are seldom open
        if other is None:
            break
        other.outer = still_open(other.outer)
        other = other.outer
    own.append(block)
    var.set(block)
    if (what == ANOMALY or what == NO_ANOMALY) and anomaly_blocks == 0:
        look_on()   # or the block has not been opened
    block.open = True
    if what == NO_GRAD:
        fg_no_grads += 1
    elif what == SCALAR_GRAPH:
        scalar_blocks += 1
    elif what == ANOMALY or what == NO_ANOMALY:
        fg_no_grads += 1
        anomaly_blocks += 1
    return 0


cdef _Block still_open(_Block block):
    """The block, or the first one around it that has not been left. Those of a generator that has gone, which can
    have been entered by hand only, are left here."""
    while block is not None:
        if block.open and block.generator is not None and block.generator() is None:
            close_block(block)
        if block.open:
            break
        block = block.outer
    return block


cdef int leave_block(object var, list own) except -1:
    """Close the last of these blocks that was entered in this context, or else the last; nothing if there is
    none: it was left before."""
    cdef _Block block = var.get()
    if not own:
        return 0
    while block is not None and not is_among(block, own):
        block = block.outer
    if block is None:
        block = own[-1]
    own.remove(block)
    close_block(block)
    block = var.get()
    if block is not None and not block.open:
        var.set(still_open(block))
    return 0


cdef bint is_among(_Block block, list own):
    for other in own:
        if other is block:
            return block.open
    return False


cdef list blocks_of(object self):
    return self.__dict__.setdefault("_blocks", [])


def _decorated(str name not None, block, function):
    """The function within a block, which is entered at each call. name: of the block's class."""
    import inspect   # here, as they take long to import
    from contextlib import ContextDecorator

    for kind in ("isgeneratorfunction", "iscoroutinefunction", "isasyncgenfunction"):
        if getattr(inspect, kind)(function):   # whose body runs when this is over
            raise ArgumentTypeError(f"{name}: expected a function that computes when it is called, got {function!r}; "
                                    f"write 'with {name}():' in it, between what it yields")

    class Decorator(ContextDecorator):
        def __enter__(decorator):
            return block.__enter__()

        def __exit__(decorator, *exception):
            return block.__exit__(*exception)

    return Decorator()(function)


class scalar_graph:
    """A context in which everything builds micrograd's scalar graph: a node for each product and sum.

    Layers, and the functions that make one instruction of many operands, then take as many nodes as
    the same code has in micrograd, and round as it does. As for `no_grad`, other threads and tasks, and
    the callers of a generator that is suspended in it, go on as before.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Value
    >>> a, b = Value(1.0), Value(2.0)
    >>> with flatgrad.scalar_graph():
    ...     y = flatgrad.dot([a, b], [3.0, 4.0])
    >>> y._op
    '+'
    """

    def __enter__(self):
        enter_block(scalar_block, SCALAR_GRAPH, blocks_of(self))
        return self

    def __exit__(self, *exception):
        leave_block(scalar_block, blocks_of(self))


class no_grad:
    """A context in which results are leaves: nothing is recorded that a backward pass could follow.

    For predictions and updates. They take no memory beyond their own, and Tensors that are made by
    operations have `requires_grad` False. Also a decorator of functions.

    Notes
    -----
    It belongs to the context in the sense of `contextvars`: other threads, and other tasks of asyncio, go on
    recording, also while this one waits within the block; tasks that are made in it are in it, until it is left. In
    a generator it counts while the generator runs, and not for its caller while it is suspended; in one decorated
    with `contextlib.contextmanager` it counts where the ``with`` statement does.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Value
    >>> a = Value(2.0)
    >>> with flatgrad.no_grad():
    ...     b = a * a
    >>> b.data, b._prev
    (4.0, set())
    >>> @flatgrad.no_grad()
    ... def square(x):
    ...     return x * x
    >>> square(a)._op
    ''
    """

    def __call__(self, function):
        return _decorated("no_grad", self, function)

    def __enter__(self):
        if current_recorder() != NULL:
            raise ArgumentTypeError("no_grad: what is computed in it would be constants of the program that is being "
                                    "recorded; write .detach() where no gradient is to flow, or enter no_grad around "
                                    "the call of the compiled function")
        if watches != 0:
            watched_read(0, "no_grad")
        enter_block(gradient_block, NO_GRAD, blocks_of(self))
        return self

    def __exit__(self, *exception):
        leave_block(gradient_block, blocks_of(self))


class recording:
    """A context in which operations are recorded, whatever `no_grad` blocks there are around it; those within it
    are as always.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad._core import recording
    >>> x = flatgrad.Value(2.0)
    >>> with flatgrad.no_grad(), recording():
    ...     y = x * 3.0
    >>> y._op
    '*'
    """

    def __enter__(self):
        enter_block(gradient_block, RECORDING, blocks_of(self))
        return self

    def __exit__(self, *exception):
        leave_block(gradient_block, blocks_of(self))


def _scalar_graph_everywhere():
    """From now on everything is within a scalar_graph() block, in all threads: for programs that are run by others."""
    global scalar_blocks, scalar_everywhere
    if not scalar_everywhere:
        scalar_everywhere = True
        scalar_blocks += 1


def _open_blocks():
    """How many no_grad() and scalar_graph() blocks are open, in all contexts, for tests."""
    return fg_no_grads - anomaly_blocks, scalar_blocks
