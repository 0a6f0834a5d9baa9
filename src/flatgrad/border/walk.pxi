# walk.pxi: Which objects only the tape holds, in cycles that lead through it.
#
# `out._backward = f`, where f uses `out`, is a cycle: the node's box holds f, f's cell holds the handle, the handle
# keeps the node. So is `v.owner = o` with `o.v = v`. Python's collector cannot see it, for the tape is no Python
# object. So the same is done here that Python's does: take the objects that boxes lead to, take from each one's
# reference count the references among them, and what is left over is held from outside. What neither that nor a
# living node leads to is garbage. When to walk, and what becomes of the garbage, is decided in cycles.pxi.
#
# Every object that Python's collector may look into is looked into, as it does it: by tp_traverse. A reference from
# anything else counts as one from outside, which may keep garbage but never frees what is in use. Modules that are
# imported, and their dicts, are alive: the walk ends there, for a function's globals would lead it through the whole
# program. From begin to end no Python code runs.
#
# A reference count may be more than the references that are found, and must never be less. From Python 3.14 on, the
# stack of a suspended generator or coroutine may have an object that one of its variables holds, and not count it:
# tp_traverse tells of both, and fg_frame_counts() which is which. Any other frame is looked into only after it has
# ended, and then it counts all that it refers to.
#
# Uses addresses, handles, python, tape.

# ---- where a walk ends ----
#
# These addresses are compared with, and never followed, so it does no harm if they are out of date: what is
# at such an address is called live.

cdef Addresses modules_alive = Addresses(NULL, NULL, 0, 0, SPREAD)   # modules that are imported, and their dicts
cdef Addresses classes_alive = Addresses(NULL, NULL, 0, 0, SPREAD)   # the classes in these
cdef Py_ssize_t modules_seen = -1                            # how many modules there were then


cdef void find_modules(bint exactly) noexcept:
    """Find what is alive because it is imported: the modules as they are now, or, as the classes, again if their
    number has changed."""
    global modules_seen
    cdef PyObject *modules = PyImport_GetModuleDict()
    cdef PyObject *names
    cdef PyObject *key
    cdef PyObject *module
    cdef PyObject *value
    cdef Py_ssize_t position = 0, inner
    cdef bint changed
    if modules == NULL or not PyDict_CheckExact_(modules):
        return
    changed = PyDict_Size_(modules) != modules_seen
    if not changed and not exactly:
        return
    modules_seen = PyDict_Size_(modules)
    free_addresses(&modules_alive)
    if changed:
        free_addresses(&classes_alive)
    while PyDict_Next_(modules, &position, &key, &module):
        if not PyModule_Check(module):
            continue
        names = PyModule_GetDict(module)
        enter(&modules_alive, module, 0)
        if names == NULL or not enter(&modules_alive, names, 0) or not changed:
            continue
        inner = 0
        while PyDict_Next_(names, &inner, &key, &value):
            if FG_IS_HEAP_TYPE(value):
                enter(&classes_alive, value, 0)


# ---- the walk ----

cdef struct Reached:
    PyObject *o
    Py_ssize_t inside   # references to it from the tape and from reached objects
    bint opened          # it is looked into
    bint live
    bint let_go         # a handle that does not hold its node for the time being


cdef enum:
    GOING, TOO_FAR, INTERRUPTED, NO_MEMORY   # what has stopped a walk

# Nothing in it is counted as a reference: from begin to end no Python code runs and nothing is freed.
cdef struct Walk:
    Reached *objects
    Py_ssize_t count
    Py_ssize_t capacity
    Addresses index     # of an object: its position in objects
    Py_ssize_t *stack   # live objects whose references are still to follow; as long as objects
    Py_ssize_t depth
    uint64_t *needed    # [n / 64 + 1] nodes that are living, besides those that the tape has marked; NULL at first
    fg_id *nodes        # [nodes_capacity] those whose operands are still to follow
    Py_ssize_t nodes_count
    Py_ssize_t nodes_capacity
    bint in_frame       # a frame is looked into, whose references may be borrowed
    fg_frame frame
    uint64_t visits     # references seen
    uint64_t limit
    int stopped


cdef enum:
    NO_LIMIT = -1


cdef bint is_container(PyObject *o) noexcept:
    """Whether o may lead to other objects or to a node."""
    cdef PyTypeObject *tp = Py_TYPE(o)
    if tp == <PyTypeObject *>Value or tp == <PyTypeObject *>_Run or tp == <PyTypeObject *>Tensor:
        return True
    return PyObject_IS_GC(o) or (tp.tp_flags & Py_TPFLAGS_HEAPTYPE and is_value(o))


cdef bint is_open(PyObject *o) noexcept:
    """Whether its tp_traverse, or we, can tell what it refers to. An object that Python's collector does not
    track may not be complete yet; but it also stops to track tuples, frozensets and dicts in which it sees no
    container, and Values it does not see."""
    cdef PyTypeObject *tp = Py_TYPE(o)
    return (tp == <PyTypeObject *>Tensor or tp == <PyTypeObject *>_Rule or tp == &PyTuple_Type or tp == &PyDict_Type
            or tp == &PyFrozenSet_Type
            or (PyObject_IS_GC(o) and tp.tp_traverse != NULL and PyObject_GC_IsTracked(o)))


cdef int each_reference(const Reached *r, visitproc visit, void *w) noexcept:
    """Call visit for the objects that it refers to, until that returns 1."""
    cdef PyTypeObject *tp = Py_TYPE(r.o)
    if not r.opened:
        return 0
    if tp == <PyTypeObject *>_Rule:
        return visit(<PyObject *>(<_Rule>r.o).node, w)
    if tp == <PyTypeObject *>Tensor:
        return visit(<PyObject *>(<Tensor>r.o).run, w)
    return tp.tp_traverse(r.o, visit, w)


cdef Py_ssize_t reach(Walk *w, PyObject *o) noexcept:
    """The object's position, a new one if it had none; -1 if memory is short."""
    cdef Py_ssize_t known = number_of(&w.index, o), capacity
    cdef Reached *objects
    cdef Py_ssize_t *stack
    if known >= 0:
        return known
    if w.count == w.capacity:
        capacity = 2 * w.count + 64
        objects = <Reached *>PyMem_Realloc(w.objects, capacity * sizeof(Reached))
        if objects == NULL:
            return -1
        w.objects = objects
        stack = <Py_ssize_t *>PyMem_Realloc(w.stack, capacity * sizeof(Py_ssize_t))
        if stack == NULL:
            return -1
        w.stack = stack
        w.capacity = capacity
    if not enter(&w.index, o, w.count):
        return -1
    w.objects[w.count] = Reached(o, 0, is_open(o), False, False)
    if number_of(&modules_alive, o) >= 0 or (w.limit != <uint64_t>NO_LIMIT and number_of(&classes_alive, o) >= 0):
        w.objects[w.count].live = True
        w.objects[w.count].opened = False
    w.count += 1
    return w.count - 1


cdef bint goes_on(Walk *w) noexcept:
    w.visits += 1
    if w.visits > w.limit:
        w.stopped = TOO_FAR
    elif w.visits & 0xFFFF == 0 and stop_wanted():
        w.stopped = INTERRUPTED
    return w.stopped == GOING


cdef int count_reference(PyObject *o, void *walk) noexcept:
    cdef Walk *w = <Walk *>walk
    cdef Py_ssize_t k
    cdef bint counted = not w.in_frame or fg_frame_counts(&w.frame, o)
    if not goes_on(w):
        return 1
    if is_container(o):
        k = reach(w, o)
        if k < 0:
            w.stopped = NO_MEMORY
            return 1
        w.objects[k].inside += counted
    return 0


cdef int enliven(PyObject *o, void *walk) noexcept:
    """o is live: what it refers to is to follow, and a handle holds its node again."""
    cdef Walk *w = <Walk *>walk
    cdef Py_ssize_t k
    if w.visits & 0xFFFF == 0 and stop_wanted():
        w.stopped = INTERRUPTED
        return 1
    w.visits += 1   # without the limit: these are what has been counted
    k = number_of(&w.index, o)
    if k >= 0 and not w.objects[k].live:
        w.objects[k].live = True
        w.stack[w.depth] = k
        w.depth += 1
    return 0


cdef int need(Walk *w, fg_id i) noexcept:
    """Node i is living: what it holds and its operands are to follow."""
    cdef Py_ssize_t capacity
    cdef fg_id *nodes
    if w.needed[i >> 6] >> (i & 63) & 1 or fg_tape_is_marked(&tape, i):
        return 0
    if w.nodes_count == w.nodes_capacity:
        capacity = 2 * w.nodes_count + 64
        nodes = <fg_id *>PyMem_Realloc(w.nodes, capacity * sizeof(fg_id))
        if nodes == NULL:
            w.stopped = NO_MEMORY
            return 1
        w.nodes = nodes
        w.nodes_capacity = capacity
    w.needed[i >> 6] |= <uint64_t>1 << (i & 63)
    w.nodes[w.nodes_count] = i
    w.nodes_count += 1
    return 0


cdef int follow_node(Walk *w, fg_id i) noexcept:
    cdef int op = fg_tape_op(&tape, i)
    cdef fg_id k, v, row, col
    cdef fg_operands o
    cdef fg_view *view
    w.visits += 1
    if fg_owner_is_box(tape.owner[i]) and fg_owner_box(tape.owner[i]).extra != NULL:
        enliven(<PyObject *>fg_owner_box(tape.owner[i]).extra, w)
    if op == FG_PART:
        return need(w, block_of(i))
    if op == FG_RUN or fg_op_is_block(op):
        for k in range(i - tape.args[i].b, i):
            if need(w, k):
                return 1
    fg_tape_views(&tape, i, &o)
    for v in range(o.count):
        view = &o.view[v]
        for row in range(view.rows):
            for col in range(view.cols):
                if need(w, fg_view_slot(o.words, view, row, col)):
                    return 1
    return 0


cdef int follow(Walk *w) noexcept:
    """Follow all that is live and all nodes that are needed. Once `needed` is there, a live handle needs its node."""
    cdef Reached *r
    while w.stopped == GOING and (w.depth > 0 or w.nodes_count > 0):
        if w.depth > 0:
            w.depth -= 1
            r = &w.objects[w.stack[w.depth]]
            if w.needed != NULL and is_handle(r.o) and (<fg_handle *>r.o).id != 0:
                need(w, (<fg_handle *>r.o).id)
            each_reference(r, enliven, w)
        else:
            w.nodes_count -= 1
            follow_node(w, w.nodes[w.nodes_count])
    return w.stopped


cdef int find_dead(Walk *w, const fg_id *boxed, fg_id boxes) noexcept:
    """Tell the live among the objects that the boxes of these nodes lead to from the dead. Until hold_again()
    the handles that were dead at first do not hold their nodes."""
    cdef Py_ssize_t k = 0
    cdef fg_id j
    cdef fg_handle *handle
    for j in range(boxes):
        if count_reference(<PyObject *>fg_owner_box(tape.owner[boxed[j]]).extra, w):
            return w.stopped
    while k < w.count:
        w.in_frame = w.objects[k].opened and fg_frame_of(w.objects[k].o, &w.frame)
        each_reference(&w.objects[k], count_reference, w)
        if w.stopped != GOING:
            return w.stopped
        k += 1
    for k in range(w.count):
        if Py_REFCNT(w.objects[k].o) > w.objects[k].inside:
            enliven(w.objects[k].o, w)
    if follow(w) != GOING:
        return w.stopped
    w.needed = <uint64_t *>PyMem_Calloc(tape.n // 64 + 1, sizeof(uint64_t))
    if w.needed == NULL:
        w.stopped = NO_MEMORY
        return w.stopped
    for k in range(w.count):
        if not w.objects[k].live and is_handle(w.objects[k].o):
            handle = <fg_handle *>w.objects[k].o
            if handle.id != 0 and fg_tape_holder(&tape, handle.id) == &handle.id:
                fg_tape_hold(&tape, handle.id, NULL)
                w.objects[k].let_go = True
    # A node that is needed keeps its box alive, and that may lead to more Values and so to more nodes.
    fg_tape_mark_living(&tape)
    for j in range(boxes):
        if fg_tape_is_marked(&tape, boxed[j]):
            enliven(<PyObject *>fg_owner_box(tape.owner[boxed[j]]).extra, w)
    follow(w)
    fg_tape_clear_marks(&tape)
    return w.stopped


cdef void hold_again(Walk *w) noexcept:
    cdef Py_ssize_t k
    cdef fg_handle *handle
    for k in range(w.count):
        if w.objects[k].let_go:
            handle = <fg_handle *>w.objects[k].o
            fg_tape_hold(&tape, handle.id, &handle.id)


cdef bint leads_on(fg_id *owner) noexcept:
    """Whether what a user has hung on the node can lead to a node: a label does not."""
    cdef PyObject *extra
    cdef PyObject *key
    cdef PyObject *value
    cdef Py_ssize_t position = 0
    if not fg_owner_is_box(owner):
        return False
    extra = <PyObject *>fg_owner_box(owner).extra
    if extra != NULL:
        while PyDict_Next_(extra, &position, &key, &value):
            if is_container(value) or is_container(key):
                return True
    return False
