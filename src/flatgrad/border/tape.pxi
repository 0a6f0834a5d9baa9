# tape.pxi: The one tape, and room on it.
#
# reserve() makes room. It may renumber every node and run Python code, finalizers and signal handlers among it: so
# operands are converted before it is called, and ids, shapes and pointers are read after it. hold_ids() keeps ids as
# they are while Python code runs. A node's object is the matter of handles.pxi; which nodes are garbage is that of
# cycles.pxi.
#
# Uses python.

cdef fg_tape tape            # the one live tape; the GIL guards it
cdef bint draining = False   # drain() is under way further up the stack


cdef list kernel_levels():
    cdef list names = []
    while fg_cpu_level(len(names)) != NULL:
        names.append(fg_cpu_level(len(names)).decode())
    return names


cdef const fg_kernels *chosen_kernels() except NULL:
    """The best that this processor can run, or those that FLATGRAD_ISA names."""
    name = os.environ.get("FLATGRAD_ISA", "")
    encoded = name.encode("ascii", "replace")
    cdef const char *isa = encoded
    cdef const fg_kernels *kernels = fg_cpu_kernels(isa if name else NULL)
    if kernels == NULL:
        raise ImportError(f"FLATGRAD_ISA={name!r}: expected one of {', '.join(kernel_levels())}, which "
                          "this build has and this processor can run")
    return kernels


if fg_tape_init(&tape, chosen_kernels()) < 0:
    raise MemoryError("flatgrad: no memory for the tape")


cdef int drain() noexcept:
    """Dispose of what dead nodes had attached. Runs Python code; nested calls leave it to the first,
    so that a long chain of such nodes does not recurse."""
    global draining
    cdef fg_box *box
    cdef PyObject *extra
    if draining:
        return 0
    draining = True
    while tape.dead != NULL:
        box = tape.dead
        tape.dead = box.next
        extra = <PyObject *>box.extra
        fg_tape_box_free(&tape, box)
        if extra != NULL:
            Py_DECREF(extra)
    draining = False
    return 0


cdef int raise_status(int status) except -1:
    """The exception for a status that has nothing to do with numbers."""
    if status == FG_E_FULL:
        raise MemoryError(f"flatgrad: the tape is full: {tape.n - 1} nodes and {tape.npool} "
                          f"operands of at most {tape.limit} each")
    raise MemoryError(f"flatgrad: no memory for more than {tape.capacity} nodes")


cdef int (*before_collecting)() except -1   # frees cycles that lead through boxes: cycles.pxi
cdef fg_id nodes_left = 0                   # how many nodes there were after the last collection, and
cdef fg_id boxes_left = 0                   # boxes


cdef void collected() noexcept:
    global nodes_left, boxes_left
    nodes_left, boxes_left = tape.n, tape.boxes


cdef int reserve(fg_id nodes, fg_id operands) except -1:
    """Make room on the tape. Ids may change, and Python code may run."""
    cdef int status
    cdef bint boxes = tape.boxes > 0 and (tape.n + <uint64_t>nodes > tape.collect_at
                                          or tape.npool + <uint64_t>operands > tape.pool_collect_at)
    if boxes:
        before_collecting()
    while True:
        status = fg_tape_reserve(&tape, nodes, operands)
        if status < 0:
            raise_status(status)
        if boxes:
            collected()
        if tape.dead == NULL or draining:
            return 0
        drain()


cdef inline int reserve_few(fg_id nodes) except -1:
    """reserve(nodes, 0) for nodes < 16, where the sum cannot wrap: FG_MAX_ID leaves 16 ids."""
    if tape.n + nodes > tape.room:
        reserve(nodes, 0)
    return 0


cdef inline void assign_data(fg_id i, double number) noexcept:
    """Give a node that there was another number; programs that have computed with it go by the count."""
    tape.writes += 1
    tape.data[i] = number


# ---- while ids have to stay ----

cdef void hold_ids() noexcept:
    """Until release_ids() no node goes and none is renumbered, whatever Python code is run."""
    tape.busy += 1


cdef void release_ids() noexcept:
    tape.busy -= 1
    fg_tape_pop(&tape)
    if tape.dead != NULL:
        drain()


# ---- Ctrl-C ----

# Between two checks for an interrupt, in words of 64 nodes: 16 million nodes, some 50 ms.
cdef fg_id chosen_words = 1 << 18
cdef fg_id sweep_words = chosen_words   # 0 while there is detect_anomaly(): so sweeps stop before they begin
cdef long long sweep_pauses = 0   # how often a sweep has stopped for that check
cdef long long questions_left = -1   # in a test: at the question after so many Ctrl-C is pressed; negative: never


cdef inline int listen(Py_ssize_t k) except -1:
    """Called at each turn k of a loop over much of the user's: now and then, whether Ctrl-C was pressed. That may run
    Python code."""
    if k & 0xFFF == 0xFFF:
        PyErr_CheckSignals()
    return 0


cdef int stop_wanted() noexcept:
    """Whether Ctrl-C has been pressed: asked between the blocks of long instructions. Python is told again, for it
    forgets when it is asked."""
    global questions_left
    if questions_left >= 0:
        if questions_left == 0:
            PyErr_SetInterrupt()
        questions_left -= 1
    if not PyOS_InterruptOccurred():
        return 0
    PyErr_SetInterrupt()
    return 1


tape.stop = stop_wanted
