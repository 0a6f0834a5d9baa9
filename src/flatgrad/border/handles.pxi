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
    MOST_NODES = 1 << 30   # of one instruction, and of one saved graph


cdef long long handle_moves = 0   # how often a Value has become the handle of another node


cdef inline fg_handle *new_handle() except NULL:
    """A new Value that is no node's handle yet. Runs no Python code: Value is not GC-tracked."""
    if fg_has_free():
        return fg_reuse()
    return <fg_handle *>PyType_GenericAlloc(<PyTypeObject *>Value, 0)


cdef extern from *:
    """
    #if defined(__GNUC__)
    #define FG_COLD __attribute__((cold, noinline))
    #else
    #define FG_COLD
    #endif
    #if defined(_MSC_VER)
    static __declspec(thread) Py_ssize_t fg_rules; /* users' backward rules that are running, in this thread */
    static __declspec(thread) Py_ssize_t fg_arrays; /* calls of elementwise() that are, one in the other */
    #else
    static _Thread_local Py_ssize_t fg_rules;
    static _Thread_local Py_ssize_t fg_arrays;
    #endif
    static Py_ssize_t fg_no_grads;        /* blocks that are open, anywhere, in which a new node is looked at: those of
                                             no_grad() and of detect_anomaly(). It costs nothing to read */
    static int (*fg_is_unrecorded)(void); /* whether no_grad() is around us: see contexts.pxi */
    static int (*fg_look_at)(PyObject *); /* see anomaly.pxi; NULL where there is no detect_anomaly() */
    static int (*fg_note)(PyObject *);    /* likewise */

    /* Dead handles of exactly type Value, each with its reference to the type, for reuse: those before the top. */
    enum { FG_FREE_MAX = 256 };
    static fg_handle *fg_free[FG_FREE_MAX];
    static fg_handle **fg_free_top = fg_free;

    static inline int fg_has_free(void)
    {
        return fg_free_top != fg_free;
    }

    /* One of them, alive again. Precondition: fg_has_free(). */
    static inline fg_handle *fg_reuse(void)
    {
        fg_handle *const handle = *--fg_free_top;
    #if defined(Py_REF_DEBUG)
        _Py_NewReference((PyObject *)handle); /* it is counted among all references, as it was when it died */
    #elif defined(Py_GIL_DISABLED)
        Py_SET_REFCNT((PyObject *)handle, 1);
    #else
        ((PyObject *)handle)->ob_refcnt = 1; /* Py_SET_REFCNT first asks whether it is immortal */
    #endif
        return handle;
    }

    /* Keep a dead one; 0 if there are enough. */
    static inline int fg_keep_free(fg_handle *handle)
    {
        if (FG_UNLIKELY(fg_free_top == fg_free + FG_FREE_MAX))
            return 0;
        *fg_free_top++ = handle;
        return 1;
    }

    /* fg_give while there are such blocks: under no_grad() the node becomes a leaf. NULL with an error if
     * detect_anomaly() is around us and the node is one; then it is as if it had not been made. */
    static FG_COLD PyObject *fg_give_looked_at(fg_tape *t, fg_handle *handle, fg_id i)
    {
        if (fg_look_at) {
            handle->id = i;
            t->owner[i] = &handle->id;
            if (fg_look_at((PyObject *)handle) < 0) {
                Py_DECREF((PyObject *)handle);
                return NULL;
            }
            t->owner[i] = NULL;
        }
        if (fg_is_unrecorded()) {
            const int op = fg_tape_op(t, i);
            i = fg_tape_forget(t, i, fg_op_is_pooled(op) || fg_op_is_block(op) ? t->args[i].a : t->npool);
        }
        handle->id = i;
        t->owner[i] = &handle->id;
        if (fg_note && fg_note((PyObject *)handle) < 0) {
            Py_DECREF((PyObject *)handle);
            return NULL;
        }
        return (PyObject *)handle;
    }

    /* Tie a new handle to node i, which is on top and has none and no box. In C for the sake of its inlining:
     * every operator ends with it. */
    static FG_ALWAYS PyObject *fg_give(fg_tape *t, fg_handle *handle, fg_id i)
    {
        if (FG_UNLIKELY(fg_no_grads != 0))
            return fg_give_looked_at(t, handle, i);
        handle->id = i;
        t->owner[i] = &handle->id;
        return (PyObject *)handle;
    }

    /* Whether fg_append may append so many nodes: there are room and a handle, and no no_grad() block. */
    static FG_ALWAYS int fg_is_quick(const fg_tape *t, fg_id nodes)
    {
        return FG_LIKELY(t->n + nodes <= t->room) && FG_LIKELY(fg_has_free()) && FG_LIKELY(fg_no_grads == 0);
    }

    /* A node and its handle. Precondition: fg_is_quick. An operator whose operands are Values does nothing else: so it
     * calls no function and keeps no register. All is read before anything is written: a byte that is written may be
     * part of anything. */
    static FG_ALWAYS PyObject *fg_append(fg_tape *t, int op, fg_id a, fg_id b, double z)
    {
        const fg_id i = t->n;
        uint8_t *const ops = t->op;
        fg_args *const args = t->args;
        double *const data = t->data, *const grad = t->grad;
        fg_id **const owner = t->owner;
        fg_handle *const handle = fg_reuse();
        assert(i < t->room);
        t->n = i + 1;
        handle->id = i;
        owner[i] = &handle->id;
        data[i] = z;
        grad[i] = 0.0;
        args[i].a = a;
        args[i].b = b;
        ops[i] = (uint8_t)op;
        return (PyObject *)handle;
    }

    /* tp_dealloc where nothing is to be done but to let go of a node that stays and to keep the handle; else 0, and
     * nothing is done. */
    static FG_ALWAYS int fg_let_go(fg_tape *t, fg_handle *handle, PyTypeObject *value)
    {
        const fg_id i = handle->id;
        fg_id **const owner = t->owner + i;
        if (FG_LIKELY(*owner == &handle->id) && FG_LIKELY(i + 1 != t->n)
                && FG_LIKELY(t->op[i] < FG_PART) /* its instruction may be on top */
                && FG_LIKELY(!handle->weak_references) && FG_LIKELY(Py_TYPE((PyObject *)handle) == value)
                && FG_LIKELY(!t->dead) && FG_LIKELY(fg_keep_free(handle))) {
            *owner = NULL;
            return 1;
        }
        return 0;
    }
    """
    Py_ssize_t fg_no_grads, fg_rules, fg_arrays
    bint (*fg_is_unrecorded)() noexcept
    int (*fg_look_at)(PyObject *handle) except -1
    int (*fg_note)(PyObject *handle) except -1
    PyObject *fg_give(fg_tape *t, fg_handle *handle, fg_id i)
    bint fg_has_free() noexcept
    fg_handle *fg_reuse() noexcept
    bint fg_keep_free(fg_handle *handle) noexcept
    bint fg_is_quick(const fg_tape *t, fg_id nodes) noexcept
    PyObject *fg_append(fg_tape *t, int op, fg_id a, fg_id b, double z) noexcept
    bint fg_let_go(fg_tape *t, fg_handle *handle, PyTypeObject *value) noexcept


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
    """tp_dealloc of Value."""
    if not fg_let_go(&tape, <fg_handle *>o, <PyTypeObject *>Value):
        gone_otherwise(o)


cdef void value_gone(PyObject *o) noexcept:
    """All else that tp_dealloc may have to do. Lets go of the node first: what runs later must not find this handle."""
    cdef fg_handle *handle = <fg_handle *>o
    cdef fg_id i = handle.id
    cdef PyTypeObject *tp = Py_TYPE(o)
    if fg_tape_holder(&tape, i) == &handle.id:
        fg_tape_hold(&tape, i, NULL)
        if i + 1 == tape.n or tape.op[i] >= FG_PART:   # its instruction may be on top
            fg_tape_pop(&tape)
    if handle.weak_references != NULL:
        PyObject_ClearWeakRefs(o)
    if tp != <PyTypeObject *>Value or not fg_keep_free(handle):
        tp.tp_free(o)
        Py_DECREF(<PyObject *>tp)
    if tape.dead != NULL:
        drain()


# By address, or the compiler inlines it, and each dying handle saves registers for it.
cdef void (*gone_otherwise)(PyObject *) noexcept
gone_otherwise = value_gone


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
        if fg_owner_is_box(tape.owner[i]) and fg_owner_box(tape.owner[i]).extra != NULL:   # of a call that has a name
            return (<dict>fg_owner_box(tape.owner[i]).extra).get("_op", "call")
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
