# entries.pxi: The entries of a saved graph: what stands for a node, who holds it, and who else saves it.
#
# The results of one instruction are one entry of a saved graph, and so are the leaves of a tensor; their object is
# their _Run.
#
# Uses attributes, handles, python, tape.

cdef enum:
    FORMAT = 3
    SIGNALS_EVERY = 0xFFFF   # steps between two looks at whether Ctrl-C was pressed


cdef dict opcodes = {fg_op_table[op].id.decode(): op for op in range(FG_OPS)}


cdef bint has_parts(fg_id i):
    """Whether entry i is several numbers below its node, and not the node's own."""
    cdef int op = fg_tape_op(&tape, i)
    return (op == FG_RUN or fg_op_is_block(op)) and tape.args[i].b > 0


cdef bint is_leaf(fg_id i):
    return fg_op_is_leaf(fg_tape_op(&tape, i)) or fg_tape_op(&tape, i) == FG_RUN


cdef fg_id entry_of(fg_id i):
    """The node that stands for i in a saved graph: the instruction of a part, the run of a leaf."""
    cdef fg_id first = 0, end = 0
    return entry_near(i, &first, &end)


cdef fg_id entry_near(fg_id i, fg_id *first, fg_id *end):
    """entry_of(i). From *first to before *end is a stretch of leaves that has been looked through, to be kept
    between calls: operands of one instruction mostly lie in one."""
    cdef fg_id run
    if is_result(fg_tape_op(&tape, i)):
        return block_of(i)
    if not fg_op_is_leaf(fg_tape_op(&tape, i)) or live_runs == 0:
        return i
    if not first[0] <= i < end[0]:
        run = i
        while run < tape.n and fg_op_is_leaf(fg_tape_op(&tape, run)) and run != first[0]:
            run += 1
        if run != first[0] or end[0] == 0:
            end[0] = run
        first[0] = i
    run = end[0]
    if run < tape.n and fg_tape_op(&tape, run) == FG_RUN and run - tape.args[run].b <= i:
        return run
    return i


cdef enum:
    HELD = 1, HUNG = 2


cdef int owned(fg_id i):
    """HELD if there is an object for entry i or for a part of it; HUNG if something hangs on one of them; or both."""
    cdef fg_id k
    cdef int found = 0
    for k in range(i - tape.args[i].b if has_parts(i) else i, <fg_id>(i + 1)):
        if tape.owner[k] != NULL:
            found |= HUNG if fg_owner_is_box(tape.owner[k]) else 0
            found |= HELD if fg_tape_holder(&tape, k) != NULL else 0
    return found


cdef object entry_object(fg_id i):
    """The object of entry i, made if there is none. Runs no Python code while ids are held."""
    return run_object(i) if has_parts(i) else handle_of(i)


cdef enum:
    COPYING, DEEP, PICKLING, PACKING, LOOKING   # what find_part() is for


cdef bint has_own_ways(object cls, int purpose):
    """Whether a Value of this class has to be asked how it is copied or pickled."""
    if cls is _Run:
        return False
    if purpose != DEEP and copyreg.dispatch_table and cls in copyreg.dispatch_table:
        return True
    if cls is Value:
        return False
    return (class_attribute(cls, "__reduce_ex__") is not Value.__dict__["__reduce_ex__"]
            or class_attribute(cls, "__reduce__") is not object.__dict__["__reduce__"]
            or (purpose == DEEP and class_attribute(cls, "__deepcopy__") is not Value.__dict__["__deepcopy__"]))


cdef dict saved_in = {}   # address of a member -> address of the _Graph that is alive and has it


cdef _Graph graph_with(object o):
    """The _Graph that is alive and has o, or None."""
    cdef PyObject *found = PyDict_GetItemWithError(saved_in, PyLong_FromVoidPtr(<PyObject *>o))
    if found == NULL:
        return None
    return <_Graph>PyLong_AsVoidPtr(<object>found)
