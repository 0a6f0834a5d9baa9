# anomaly.pxi: The operation that first made a nan or inf, and the user's line, while detect_anomaly() is on.
#
# New nodes are looked at where they get their objects, in a way that no_grad() has made slower already: while no such
# block is open this costs nothing. Looking runs no Python code unless there is something to tell; noting the line may
# run any. Each node has in tape.origin where its line is in `noted`. The words are those of anomaly.py.
#
# Uses contexts, handles, python, sweeps, tape.

cdef enum:
    MOST_LINES = 1 << 20   # whose places are kept; nodes of others have none

cdef list noted = [None]        # places: a code object, and the instruction in it
cdef dict noted_at = {}         # by that code object's id and the instruction: where the place is in `noted`
cdef dict files = {}            # by a file's name, whether it is a user's
cdef str own_files = os.path.join(os.path.dirname(sys.modules[DataError.__module__].__file__), "")


cdef bint is_watched() noexcept:
    """Whether detect_anomaly() is around us. Runs no Python code, and cannot fail."""
    return anomaly_blocks != 0 and innermost(<PyObject *>anomaly_block) == ANOMALY


def _detects_anomaly():
    """For our modules: whether detect_anomaly() is around us."""
    return is_watched()


def _enter_anomaly(list own not None):
    """For anomaly.py: open a block of detect_anomaly(), and append it to those of its object."""
    enter_block(anomaly_block, ANOMALY, own)


def _leave_anomaly(list own not None):
    """For anomaly.py: close the last of these blocks."""
    cdef _Block block
    leave_block(anomaly_block, own)
    block = still_open(anomaly_block.get())
    if block is not None and block.loose:   # there may be no need of it any more
        set_anomaly(block.what == ANOMALY)
    if anomaly_blocks == 0:
        forget_lines()


cdef int set_anomaly(bint on) except -1:
    """Switch it on or off in this context, by a block that takes the place of such a block."""
    cdef _Block block = still_open(anomaly_block.get())
    cdef list own = []
    while block is not None and block.loose:
        close_block(block)
        block = still_open(block)
    anomaly_block.set(block)
    if is_watched() != on:
        enter_block(anomaly_block, ANOMALY if on else NO_ANOMALY, own)
        (<_Block>own[0]).loose = True
    return 0


def _set_anomaly(bint on):
    """For anomaly.py: switch it on or off in this context."""
    set_anomaly(on)
    if anomaly_blocks == 0:
        forget_lines()


cdef int begin_looking() except -1:
    """The first block is entered, anywhere."""
    global fg_look_at, fg_note, sweep_words
    forget_lines()
    if fg_tape_trace(&tape, 1) < 0:
        raise_status(FG_E_MEMORY)
    fg_look_at, fg_note, sweep_words = look_at_node, note_node, 0
    return 0


cdef void end_looking() noexcept:
    """The last one has been left. Runs no Python code."""
    global fg_look_at, fg_note, sweep_words
    fg_look_at, fg_note, sweep_words = NULL, NULL, chosen_words
    fg_tape_trace(&tape, 0)


look_on, look_off = begin_looking, end_looking


cdef int forget_lines() except -1:
    """Forget the places of lines, for there are no nodes with any."""
    noted_at.clear()
    files.clear()
    del noted[1:]
    return 0


# ---- lines ----

cdef bint is_users(str name):
    """Whether a file is neither ours, nor of NumPy, nor of Python's own start."""
    return not (name.startswith(own_files) or name.startswith("<frozen ") or name.startswith("<__array_function__")
                or f"{os.sep}numpy{os.sep}" in name)


cdef fg_id line_here() except? <fg_id>0xFFFFFFFF:
    """Where the innermost line of a user's is in `noted`; the innermost of all if there is none. May run any code."""
    cdef Py_ssize_t place
    first = frame = innermost_frame()
    if frame is None:
        return 0
    while frame is not None:
        name = frame.f_code.co_filename
        users = files.get(name)
        if users is None:
            users = files[name] = is_users(name)
        if users:
            break
        frame = frame.f_back
    if frame is None:
        frame = first
    code, at = frame.f_code, frame.f_lasti
    key = id(code), at
    found = noted_at.get(key)
    if found is not None:
        return found
    if len(noted) >= MOST_LINES:
        return 0
    place = len(noted)
    noted.append((code, at))
    noted_at[key] = place
    return <fg_id>place


cdef object place_of_node(fg_id i):
    """The place of node i's line; None if it is not known."""
    cdef fg_id k = tape.origin[i] if tape.origin != NULL else 0
    return noted[k] if k < <fg_id>len(noted) else None


cdef fg_id begin_of(fg_id i) noexcept:
    """The first of the nodes that have been made with node i, which is on top: operands that nobody holds, and
    theirs."""
    cdef fg_id k, n, count = 0, j = i - 1
    cdef fg_id *ids
    cdef bint used
    while j > 0 and tape.owner[j] == NULL:
        used = False
        for k in range(j + 1, j + 4):
            if k > i or fg_op_is_block(fg_tape_op(&tape, k)):
                break
            ids = fg_tape_operands(&tape, k, &count)
            for n in range(count):
                used = used or ids[n] == j
        if not used:
            break
        j -= 1
    return j + 1


cdef void note(fg_id first, fg_id end, fg_id line) noexcept:
    cdef fg_id i
    if tape.origin != NULL:
        for i in range(first, end):
            tape.origin[i] = line


cdef int note_node(PyObject *handle) except -1:
    """Note the line of a node that a new handle holds, and which is on top; not of a handle that has none yet."""
    cdef fg_id line = line_here() if is_watched() else 0, i = (<fg_handle *>handle).id
    if i != 0 and tape.origin != NULL:
        note(begin_of(i), i + 1, line)
    return 0


cdef int note_run(_Run run) except -1:
    """Note the line of new leaves."""
    cdef fg_id line = line_here() if is_watched() else 0
    note(run.id - run.count, run.id + 1, line)
    return 0


# ---- forward ----

cdef fg_id strange(fg_id first, fg_id end) except? 0:
    """The first of these nodes that an operation has made nan, or inf of finite operands; 0 if there is none. Runs no
    Python code."""
    cdef fg_id i, k, count
    cdef fg_id *ids
    cdef bint finite
    cdef int op
    for i in range(first, end):
        op = fg_tape_op(&tape, i)
        if isfinite(tape.data[i]) or fg_op_is_leaf(op) or op == FG_RUN:
            continue
        if isnan(tape.data[i]):
            return i
        count = fg_block_operands(&tape, i, NULL, NULL)
        ids = <fg_id *>PyMem_Malloc((count + 1) * sizeof(fg_id))
        if ids == NULL:
            raise MemoryError()
        fg_block_operands(&tape, i, ids, NULL)
        finite = True
        for k in range(count):
            finite = finite and isfinite(tape.data[ids[k]])
        PyMem_Free(ids)
        if finite:
            return i
    return 0


cdef object anomaly_module = None


cdef object anomaly():
    global anomaly_module
    if anomaly_module is None:
        from flatgrad import anomaly as anomaly_module
    return anomaly_module


cdef tuple element_of(fg_id i):
    """Which element of its instruction node i is, as (row, column); None if it is the only one."""
    cdef fg_id block = block_of(i), k
    cdef fg_record *r
    if block == i or not fg_op_is_block(fg_tape_op(&tape, block)):
        return None
    r = fg_tape_record(&tape, block)
    k = i - (block - tape.args[block].b)
    return k // r.cols, k % r.cols


cdef dict facts_of(fg_id i):
    """What an error says of node i and its operation. While ids are held."""
    cdef list ids = operand_ids(i), numbers = [tape.data[j] for j in ids], origins = []
    for j in ids:
        if not isfinite(tape.data[j]):
            leaf = bool(fg_op_is_leaf(fg_tape_op(&tape, j)))
            origins.append((tape.data[j], leaf, place_of_node(j)))
            break
    return {"operation": handle_of(i)._op, "operands": tuple(numbers), "result": tape.data[i],
            "element": element_of(i), "place": place_of_node(i), "origins": origins}


cdef int raise_made(fg_id i, str phase, bint here) except -1:
    """The error for a node that an operation has made so. here: at this line; else at that which is noted."""
    hold_ids()
    try:
        facts = facts_of(i)
        if here:
            line = line_here()
            facts["place"] = noted[line]
        raise anomaly().made(phase, facts)
    finally:
        release_ids()


cdef int look_at_node(PyObject *handle) except -1:
    """An error if a node that is on top, and that a new handle holds, has been made so."""
    cdef fg_id i = (<fg_handle *>handle).id, bad
    if is_watched():
        bad = strange(begin_of(i), i + 1)
        if bad != 0:
            raise_made(bad, "forward", True)
    return 0


cdef int look_at_nodes(fg_id first, fg_id end, str phase) except -1:
    """The same of nodes that are held, or while ids are."""
    cdef fg_id bad
    if is_watched():
        bad = strange(first, end)
        if bad != 0:
            raise_made(bad, phase, phase == "forward")
    return 0


cdef fg_id looked_at(fg_id n, fg_id npool, fg_id node, fg_handle *handle) except 0:
    """What comes of a new instruction, from slot n up to its node, which nobody holds yet: under no_grad() leaves. An
    error if it has made such a number; then it is gone, and so is the handle that was meant for it."""
    cdef bint watched = is_watched()
    cdef fg_id bad, line = 0
    try:
        if watched:
            bad = strange(n, node + 1)
            if bad != 0:
                raise_made(bad, "forward", True)
        if fg_is_unrecorded():
            node = fg_tape_forget(&tape, n, npool)
        if handle != NULL:   # fg_give notes the line
            return node
        tape.busy += 1   # ids stay; and what nobody holds stays, too
        try:
            line = line_here() if watched else 0
        finally:
            tape.busy -= 1
    except:
        fg_tape_pop(&tape)
        if handle != NULL:
            Py_DECREF(<PyObject *>handle)
        raise
    note(n, node + 1, line)
    return node


cdef int look_at_made(Value self, double number, list children) except -1:
    """An error if a user's operation, whose node is still to be made, has computed such a number."""
    cdef bint finite = True
    if isfinite(number) or not children or not is_watched():
        return 0
    for child in children:
        finite = finite and isfinite(tape.data[(<Value>child).id])
    if isnan(number) or finite:
        return 1
    return 0


cdef int raise_given(double number, list children, str op) except -1:
    """That error."""
    cdef list origins = [], numbers = [tape.data[(<Value>child).id] for child in children]
    for child in children:
        if not isfinite(tape.data[(<Value>child).id]):
            origins.append((tape.data[(<Value>child).id],
                            bool(fg_op_is_leaf(fg_tape_op(&tape, (<Value>child).id))),
                            place_of_node((<Value>child).id)))
            break
    line = line_here()
    raise anomaly().made("forward", {"operation": op, "operands": tuple(numbers), "result": number, "element": None,
                                     "place": noted[line], "origins": origins})
