# handles.pxi: One object for a node, and one for the numbers of a Tensor or an instruction.
#
# Promises that a node has at most one handle, that making one runs no Python code, and that a dying one lets go of
# its node before anything else runs. A handle is an id and nothing else: what is known of the node stands on the
# tape.
#
# Uses python, tape.

cdef extern from *:
    """
    /* The memory of a Value, for code that must not count references. */
    typedef struct fg_handle {
        PyObject_HEAD
        fg_id id;
        PyObject *weak_references;
    } fg_handle;

    /* A pointer that we own, handed to Cython as a reference that it owns from then on. */
    #define FG_GIVE(pointer) (pointer)
    """
    object FG_GIVE(PyObject *pointer)
    ctypedef struct fg_handle:
        fg_id id
        PyObject *weak_references


cdef enum:
    FREE_MAX = 256
    MOST_NODES = 1 << 30   # of one instruction, and of one saved graph


cdef PyObject *free_list[FREE_MAX]   # dead handles of exactly type Value, each with its reference
                                     # to the type, for reuse
cdef int free_count = 0
cdef long long handle_moves = 0   # how often a Value has become the handle of another node


cdef inline fg_handle *new_handle() except NULL:
    """A new Value that is no node's handle yet. Runs no Python code: Value is not GC-tracked."""
    global free_count
    if free_count > 0:
        free_count -= 1
        Py_SET_REFCNT(free_list[free_count], 1)
        return <fg_handle *>free_list[free_count]
    return <fg_handle *>PyType_GenericAlloc(<PyTypeObject *>Value, 0)


cdef extern from *:
    """
    #if defined(__GNUC__)
    #define FG_COLD __attribute__((cold, noinline, returns_nonnull))
    #define FG_INLINED inline __attribute__((always_inline, returns_nonnull))
    #else
    #define FG_COLD
    #define FG_INLINED inline
    #endif
    #if defined(_MSC_VER)
    static __declspec(thread) Py_ssize_t fg_rules; /* users' backward rules that are running, in this thread */
    static __declspec(thread) Py_ssize_t fg_arrays; /* calls of elementwise() that are, one in the other */
    #else
    static _Thread_local Py_ssize_t fg_rules;
    static _Thread_local Py_ssize_t fg_arrays;
    #endif
    static Py_ssize_t fg_no_grads;        /* no_grad() blocks that are open, anywhere: it costs nothing to read */
    static int (*fg_is_unrecorded)(void); /* whether one is around us: see contexts.pxi */

    /* fg_give while there are no_grad() blocks: if one is around us, the node becomes a leaf. */
    static FG_COLD PyObject *fg_give_unrecorded(fg_tape *t, fg_handle *handle, fg_id i)
    {
        if (fg_is_unrecorded()) {
            const int op = fg_tape_op(t, i);
            i = fg_tape_forget(t, i, fg_op_is_pooled(op) || fg_op_is_block(op) ? t->args[i].a : t->npool);
        }
        handle->id = i;
        t->owner[i] = &handle->id;
        return (PyObject *)handle;
    }

    /* Tie a new handle to node i, which is on top and has none and no box. In C for the sake of its inlining:
     * every operator ends with it. */
    static FG_INLINED PyObject *fg_give(fg_tape *t, fg_handle *handle, fg_id i)
    {
        if (FG_UNLIKELY(fg_no_grads != 0))
            return fg_give_unrecorded(t, handle, i);
        handle->id = i;
        t->owner[i] = &handle->id;
        return (PyObject *)handle;
    }
    """
    Py_ssize_t fg_no_grads, fg_rules, fg_arrays
    bint (*fg_is_unrecorded)() noexcept
    PyObject *fg_give(fg_tape *t, fg_handle *handle, fg_id i)


cdef inline bint unrecorded() noexcept:
    """Whether there is a no_grad() block around us."""
    return FG_UNLIKELY(fg_no_grads != 0) and fg_is_unrecorded()


cdef inline PyObject *object_of(fg_id *holder) noexcept:
    """The Value or _Run whose `id` this is: it follows the object's head."""
    return <PyObject *>(<char *>holder - sizeof(PyObject))


cdef object handle_of(fg_id i):
    """The canonical handle of node i, made if there is none."""
    cdef fg_id *holder = fg_tape_holder(&tape, i)
    cdef PyObject *o
    cdef fg_handle *handle
    if holder != NULL:
        o = object_of(holder)
        if Py_REFCNT(o) > 0:
            return <object>o
        holder[0] = 0   # it is being destroyed; from now on it holds the sentinel, that is nothing
    handle = new_handle()
    handle.id = i
    fg_tape_hold(&tape, i, &handle.id)
    return FG_GIVE(<PyObject *>handle)


cdef void value_dealloc(PyObject *o) noexcept:
    """tp_dealloc of Value. Lets go of the node first: what runs later must not find this handle."""
    global free_count
    cdef fg_handle *handle = <fg_handle *>o
    cdef fg_id i = handle.id
    cdef PyTypeObject *tp = Py_TYPE(o)
    if fg_tape_holder(&tape, i) == &handle.id:
        fg_tape_hold(&tape, i, NULL)
        if i + 1 == tape.n or tape.op[i] >= FG_PART:   # its instruction may be on top
            fg_tape_pop(&tape)
    if handle.weak_references != NULL:
        PyObject_ClearWeakRefs(o)
    if tp == <PyTypeObject *>Value and free_count < FREE_MAX:
        free_list[free_count] = o
        free_count += 1
    else:
        tp.tp_free(o)
        Py_DECREF(<PyObject *>tp)
    if tape.dead != NULL:
        drain()


cdef bint is_value(PyObject *o) noexcept:
    return PyObject_TypeCheck(o, <PyTypeObject *>Value)


cdef bint is_handle(PyObject *o) noexcept:
    """Whether o holds a node, and is laid out as fg_handle as far as the id."""
    return is_value(o) or Py_TYPE(o) == <PyTypeObject *>_Run


# ---- runs ----

@cython.final
cdef class _Run:
    """Keeps the numbers of a tensor, or the results of an instruction, together on the tape."""
    cdef fg_id id       # of the node above them; the tape renumbers it. First, as in Value
    cdef fg_id count    # how many there are
    cdef bint leaves    # it is counted in live_runs

    def __dealloc__(self):
        run_gone(self)

    def __reduce__(self):
        return _member, place_in_graph(self)

    def __deepcopy__(self, memo):
        return deep_copy(self, memo)


cdef Py_ssize_t live_runs = 0   # how many _Runs keep leaves: while there are none, no leaf has to be
                                # asked whether it belongs to one


cdef inline bint is_result(int op) noexcept:
    """Whether a node with this opcode is a result of an instruction, or the instruction itself, its only one."""
    return op == FG_PART or fg_op_is_block(op)


cdef fg_id block_of(fg_id i):
    """The block instruction of a part; any other node is its own."""
    return i + tape.args[i].a if fg_tape_op(&tape, i) == FG_PART else i


cdef str block_symbol(fg_id i):
    """What _op says for a result of block instruction i."""
    cdef fg_record *r = fg_tape_record(&tape, i)
    if fg_tape_op(&tape, i) != FG_MAP:
        return fg_op_table[fg_tape_op(&tape, i)].symbol.decode()
    if r.param == FG_POWI:
        return f"**{<int32_t>r.k}"
    if (fg_op_table[r.param].parents < fg_op_table[r.param].arity   # and a constant, which all elements share
            and fg_record_view(r, 1).rows * fg_record_view(r, 1).cols == 1):
        return f"{fg_op_table[r.param].symbol.decode()}{tape.data[fg_record_slot(r, fg_record_view(r, 1), 0, 0)]}"
    return fg_op_table[r.param].symbol.decode()


cdef void tie_run(_Run run, fg_id i) noexcept:
    """From now on the new run keeps the numbers below node i."""
    run.id = i
    run.count = tape.args[i].b
    fg_tape_hold(&tape, i, &run.id)
    run_made(run)


cdef void run_made(_Run run) noexcept:
    global live_runs
    run.leaves = fg_tape_op(&tape, run.id) == FG_RUN
    live_runs += run.leaves


cdef int run_gone(_Run run) noexcept:
    """Lets go of the nodes first: what runs later must not find this object."""
    global live_runs
    live_runs -= run.leaves
    if run.id != 0 and fg_tape_holder(&tape, run.id) == &run.id:
        fg_tape_hold(&tape, run.id, NULL)
        if run.id + 1 == tape.n:
            fg_tape_pop(&tape)
        else:
            fg_tape_pass(&tape, run.id)
    if tape.dead != NULL:
        drain()
    return 0


cdef _Run run_object(fg_id i):
    """The one _Run of node i, made if there is none. Runs no Python code."""
    cdef fg_id *holder = fg_tape_holder(&tape, i)
    cdef PyObject *o
    cdef _Run run
    if holder != NULL:
        o = object_of(holder)
        if Py_REFCNT(o) > 0:
            return <_Run>o
        holder[0] = 0
    run = _Run.__new__(_Run)
    tie_run(run, i)
    return run


# ---- leaves without a gradient ----

cdef bint frozen_ever = False   # some leaf has been frozen: until then nobody has to look for them


cdef int freeze(fg_id i, bint on) noexcept:
    """Leaf i takes no gradient from now on, or again does."""
    global frozen_ever, handle_moves
    if (fg_tape_op(&tape, i) == FG_FROZEN) != on:
        fg_tape_freeze(&tape, i, on)
        frozen_ever = True
        handle_moves += 1   # optimizers look again
    return 0


cdef bint any_frozen(fg_id first, fg_id count) noexcept:
    cdef fg_id k
    if frozen_ever:
        for k in range(count):
            if fg_tape_op(&tape, first + k) == FG_FROZEN:
                return True
    return False
