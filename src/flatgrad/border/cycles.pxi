# cycles.pxi: Frees cycles that lead through the tape, and promises that what anybody can still reach stays.
#
# That is done before the tape is collected, and when Python's collector runs over all. walk.pxi says what is garbage;
# emptying its boxes' dicts breaks the cycles, and reference counting does the rest: that runs Python code. A walk
# that runs by itself may look at no more than has been made since the last one: it gives up, and the next one waits
# until twice as much is allowed.
#
# Uses addresses, python, tape, walk.

# When a walk runs by itself: it costs some nanoseconds for each reference.
cdef enum:
    VISITS_FREE = 5_000    # for a walk
    NODES_VISIT = 16       # nodes appended for one visit: an operation takes a fraction of a visit's time
    VISITS_BOX = 64        # for each box more than after the last one: the user's closure took as long to make


cdef uint64_t nodes_made = 0        # nodes appended since the last walk
cdef uint64_t visits_needed = 0     # the last one's, or twice those after which it gave up


cdef int release_some() except -1:
    """The tape is about to be collected, and there are boxes: release cycles if as much has been made since the
    last time as that may cost."""
    global nodes_made, nodes_left
    cdef uint64_t limit
    if tape.n > nodes_left:
        nodes_made += tape.n - nodes_left
    nodes_left = tape.n
    limit = nodes_made // NODES_VISIT + VISITS_FREE
    if tape.boxes > boxes_left:
        limit += <uint64_t>VISITS_BOX * (tape.boxes - boxes_left)
    if limit >= visits_needed:
        nodes_made = 0
        release_cycles(limit)
    return 0


before_collecting = release_some


cdef int release_cycles(uint64_t limit, bint heed=True) except -1:
    """Empty the boxes that only cycles keep alive. At a safe point: ids may change, Python code runs.

    limit: how many references may be looked at. heed: if interrupted, raise what the signal's handler raises.
    """
    cdef list dead = [], finals = []   # made first: making them may run Python's collector
    cdef int state, attempt
    for attempt in range(3):
        if draining or tape.busy or tape.boxes == 0:
            return 0
        state = one_walk(limit, dead, finals)
        if state == INTERRUPTED:
            if not heed:
                return 0
            PyErr_CheckSignals()   # if it does not raise, begin again
        elif finals:
            # As Python's collector does: finalizers see all as it was, and may hold on to it.
            for o in finals:
                PyObject_CallFinalizer(<PyObject *>o)
            o = None
            finals.clear()
        else:
            empty(dead)
            return 0
    return 0


cdef int one_walk(uint64_t limit, list dead, list finals) except -1:
    """Enter into `dead` the dicts of boxes that only cycles keep alive; or, if some of the garbage has finalizers
    that have not run yet, only into `finals` such objects. What has stopped the walk."""
    global visits_needed
    cdef Walk w
    cdef fg_id boxes = 0, i
    cdef Py_ssize_t k
    cdef PyObject *o
    cdef fg_id *boxed = <fg_id *>PyMem_Malloc((tape.boxes + 1) * sizeof(fg_id))
    if boxed == NULL:
        return NO_MEMORY
    memset(&w, 0, sizeof(Walk))
    w.limit = limit
    w.index.factor = SPREAD
    for i in range(1, tape.n):
        if leads_on(tape.owner[i]):
            boxed[boxes] = i
            boxes += 1
    tape.busy += 1   # while Values do not hold their nodes, none must go; release_ids() would let some go at the end
    try:
        if boxes > 0:
            find_modules(limit == <uint64_t>NO_LIMIT)
            find_dead(&w, boxed, boxes)
        hold_again(&w)
        if w.stopped == GOING:
            for k in range(w.count):
                o = w.objects[k].o
                if (not w.objects[k].live and w.objects[k].opened and Py_TYPE(o).tp_finalize != NULL
                        and PyObject_IS_GC(o) and not PyObject_GC_IsFinalized(o)):
                    finals.append(<object>o)
            for i in range(boxes if not finals else 0):
                o = <PyObject *>fg_owner_box(tape.owner[boxed[i]]).extra
                if not w.objects[number_of(&w.index, o)].live:
                    dead.append(<object>o)
    finally:
        tape.busy -= 1
        PyMem_Free(boxed)
        PyMem_Free(w.objects)
        PyMem_Free(w.stack)
        PyMem_Free(w.needed)
        PyMem_Free(w.nodes)
        free_addresses(&w.index)
        if w.stopped == TOO_FAR:
            visits_needed = 2 * limit
        elif limit != <uint64_t>NO_LIMIT:
            visits_needed = w.visits if w.stopped == GOING else 0
    return w.stopped


cdef int empty(list dead) except -1:
    """Empty these dicts, and so let go of what they hold."""
    global draining
    cdef dict extra
    draining = True   # what dies now is disposed of at the end, without recursion
    try:
        while dead:
            if len(dead) & 0xFFF == 0 and stop_wanted():
                break   # the rest is found again the next time
            extra = <dict>dead.pop()
            op = extra.get("_op")
            extra.clear()
            if op is not None:
                extra["_op"] = op
    finally:
        extra = None
        draining = False
        if tape.dead != NULL:
            drain()
    return 0


def _around_collection(phase, info):
    """Python's collector calls this. Cycles through the tape are freed when it looks at everything: those that it
    cannot see itself before it does, and those that it has uncovered after."""
    if tape.boxes > 0 and info["generation"] == 2 and (phase == "start" or info["collected"]):
        release_cycles(NO_LIMIT, False)   # what a signal's handler raises would be lost here


gc.callbacks.append(_around_collection)
