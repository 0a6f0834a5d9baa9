# rebuilding.pxi: From bytes to nodes: a saved graph is checked, all of it, and then appended.
#
# Nothing in the bytes is believed: damaged ones are a ValueError, and nothing has changed. Room is made in between,
# and ids are held while objects are made.
#
# Uses callees, entries, handles, messages, packing, python, tape.

# What is left of a saved graph to be read, of each kind: where, and how many items.
cdef struct Rest:
    const char *bytes[BUFFERS]
    Py_ssize_t count[BUFFERS]
    PyObject *programs   # a tuple of _Callees, or NULL


cdef enum:
    MOST_NAMES = 256


cdef struct Entry:
    int op
    fg_id operands           # how many
    const int32_t *places    # [operands]
    const double *partials   # [operands], of FG_LOCAL
    int32_t k                # the exponent
    fg_id numbers            # how many results
    const double *data       # [numbers]
    const double *grad       # [numbers]
    bint parts               # they are below the node
    int param                # of an instruction, and what follows
    fg_callee *callee        # of FG_CALL; its param is the program's place on the tape
    fg_id rows, cols, views, extra
    const int32_t *shapes    # [3 * views]: rows, columns, whether it is constant
    const int32_t *labels    # [extra]


cdef int begin(object saved, Rest *rest, int *names) except -1:
    """Point to what is there. ValueError unless it is a tuple of the right kinds."""
    cdef Py_ssize_t k
    if type(saved) is not tuple or not 11 <= len(saved) <= 12 or type(saved[0]) is not int or saved[0] != FORMAT:
        damaged(f"expected a tuple of format {FORMAT}, got {describe(saved)}")
    if type(saved[1]) is not tuple or not 0 < len(saved[1]) <= MOST_NAMES:
        damaged(f"its operations are {describe(saved[1])}")
    for k, name in enumerate(<tuple>saved[1]):
        if type(name) is not str or name not in opcodes or name in ("PART", "FROZEN"):
            damaged(f"it has the unknown operation {describe(name)}")
        names[k] = opcodes[name]
    for k in range(BUFFERS):
        if type(saved[2 + k]) is not bytes or len(saved[2 + k]) % ITEM_SIZE[k]:
            damaged(f"expected bytes, got {describe(saved[2 + k])}")
        rest.bytes[k], rest.count[k] = <const char *><bytes>saved[2 + k], len(saved[2 + k]) // ITEM_SIZE[k]
    rest.programs = NULL
    if len(saved) == 12:
        if type(saved[11]) is not tuple or not all([isinstance(body, _Callee) and (<_Callee>body).callee != NULL
                                                    for body in saved[11]]):
            damaged(f"expected programs, got {describe(saved[11])}")
        rest.programs = <PyObject *>saved[11]
    if rest.count[OPS] == 0:
        damaged("no nodes")
    if rest.count[DATA] != rest.count[GRAD] or rest.count[DATA] > MOST_NODES or rest.count[PLACES] > MOST_NODES:
        damaged("its data and grad differ in length, or are too long")
    return 0


cdef const void *read(Rest *rest, int kind, int64_t count) except NULL:
    """The next so many items of that kind."""
    cdef const char *found = rest.bytes[kind]
    if not 0 <= count <= rest.count[kind]:
        damaged("it ends too early")
    rest.bytes[kind] += count * ITEM_SIZE[kind]
    rest.count[kind] -= count
    return found


cdef int read_entry(Rest *rest, const int *names, int n_names, Entry *e) except -1:
    """Read the next entry. ValueError unless pack() makes such a one, but for its places."""
    cdef const int32_t *head
    cdef fg_id v
    cdef int64_t operands = 0, size
    cdef _Callee body
    cdef uint8_t name = (<const uint8_t *>read(rest, OPS, 1))[0]
    if name >= n_names:
        damaged("it has an unknown operation")
    memset(e, 0, sizeof(Entry))
    e.op = names[name]
    e.numbers = 1
    if e.op == FG_RUN:
        head = <const int32_t *>read(rest, INTEGERS, 1)
        if not 0 < head[0] < MOST_NODES:
            damaged(f"a run has the length {head[0]}")
        e.numbers, e.parts = <fg_id>head[0], True
    elif fg_op_is_block(e.op):
        head = <const int32_t *>read(rest, INTEGERS, 7)
        if e.op == FG_CALL:
            n_names = 0 if rest.programs == NULL else <int>len(<tuple>rest.programs)
        if not 0 <= head[0] < n_names or head[2] < 1 or head[3] < 1 or not 0 <= head[4] <= 1 \
                or <int64_t>head[2] * head[3] >= MOST_NODES or not (head[4] or head[2] == head[3] == 1) \
                or not 0 <= head[5] <= (rest.count[INTEGERS] // 3 if e.op == FG_CALL else FG_MAX_ARITY) \
                or not 0 <= head[6] <= rest.count[INTEGERS]:
            damaged("an instruction has a shape that there is not")
        e.k, e.rows, e.cols, e.parts = head[1], <fg_id>head[2], <fg_id>head[3], head[4]
        if e.op == FG_CALL:
            body = <_Callee>(<tuple>rest.programs)[head[0]]
            e.callee, e.param = body.callee, <int>body.place
        else:
            e.param = names[head[0]]
        e.views, e.extra, e.numbers = <fg_id>head[5], <fg_id>head[6], <fg_id>(head[2] * head[3])
        e.shapes = <const int32_t *>read(rest, INTEGERS, 3 * <int64_t>e.views)
        e.labels = <const int32_t *>read(rest, INTEGERS, e.extra)
        for v in range(e.views):
            size = <int64_t>e.shapes[3 * v] * e.shapes[3 * v + 1]
            if (e.shapes[3 * v] < 0 or e.shapes[3 * v + 1] < 0 or not 0 <= e.shapes[3 * v + 2] <= 1
                    or size > rest.count[PLACES]):
                damaged("an operand has a shape that there is not")
            operands += size
        if not block_fits(e):
            damaged(f"{fg_op_table[e.op].id.decode()} of {e.rows} x {e.cols} has operands of other shapes")
    elif fg_op_table[e.op].arity >= 0:
        operands = fg_op_table[e.op].arity
        if e.op == FG_POWI:
            e.k = (<const int32_t *>read(rest, INTEGERS, 1))[0]
    else:
        operands = (<const fg_id *>read(rest, LENGTHS, 1))[0]
        if e.op == FG_LOCAL:
            e.partials = <const double *>read(rest, PARTIALS, operands)
    e.operands, e.places = <fg_id>operands, <const int32_t *>read(rest, PLACES, operands)
    e.data, e.grad = <const double *>read(rest, DATA, e.numbers), <const double *>read(rest, GRAD, e.numbers)
    return 0


cdef bint block_fits(const Entry *e) noexcept:
    """Whether the operands of an instruction have the shapes that it needs."""
    cdef fg_id[32] words   # a record without slots
    cdef fg_record *r = <fg_record *>words
    cdef fg_id k
    cdef int32_t labels   # how many different ones there may be
    if e.op == FG_CALL:
        for k in range(e.views):
            if (k >= e.callee.n_segments
                    or <fg_id>(e.shapes[3 * k] * e.shapes[3 * k + 1]) != e.callee.segments[k].count):
                return False
        return (e.parts and e.rows == 1 and e.cols == e.callee.n_results and e.views == e.callee.n_segments
                and e.extra == 0)
    if e.views > FG_MAX_ARITY:
        return False
    memset(words, 0, sizeof(words))
    r.k = <fg_id>e.k
    r.param, r.rows, r.cols, r.extra, r.views = <fg_id>e.param, e.rows, e.cols, e.extra, e.views
    for k in range(e.views):
        fg_block_view(r, k, fg_view(0, 0, <fg_id>e.shapes[3 * k], <fg_id>e.shapes[3 * k + 1], 1, 1))
    if not fg_block_fits(e.op, r):
        return False
    labels = e.shapes[0] if e.op == FG_TAKE and e.k == FG_TAKE_ROWS else e.shapes[1]
    for k in range(e.extra):
        if e.labels[k] < 0 or e.labels[k] >= labels:
            return False
    return e.op != FG_LAYER or fg_op_table[e.param].fused


# The ends of a saved graph: end j has the numbers from first[j] on.
cdef struct Ends:
    Py_ssize_t count
    Py_ssize_t *first   # [count + 1]
    fg_id *slot         # [count] of its first number, while ids are held


cdef Py_ssize_t end_with(const Ends *ends, Py_ssize_t number) noexcept:
    """Which of the ends has the number. Precondition: one has."""
    cdef Py_ssize_t low = 0, high = ends.count, middle
    if ends.first[ends.count] == ends.count:   # mostly each is one number
        return number
    while high - low > 1:
        middle = (low + high) // 2
        if ends.first[middle] <= number:
            low = middle
        else:
            high = middle
    return low


cdef inline fg_id slot_of(int32_t place, const Ends *ends, const fg_id *ids) noexcept:
    cdef Py_ssize_t number, j
    if place >= 0:
        return ids[place]
    number = -1 - <Py_ssize_t>place
    j = end_with(ends, number)
    return ends.slot[j] + <fg_id>(number - ends.first[j])


cdef int push_entry(const Entry *e, fg_id *ids, fg_id *list_ids, fg_id *node) except -1:
    """Append a checked entry; the ids of its numbers are entered into ids[0] on; list_ids: room for its operands.
    Runs no Python code."""
    cdef fg_id k, v, at = 0, first
    cdef fg_id *slots
    cdef fg_record *r
    cdef int status
    if e.op == FG_RUN:
        fg_tape_push_leaves(&tape, e.numbers)
        node[0] = fg_tape_push_run(&tape, e.numbers)
    elif fg_op_is_block(e.op):
        r = fg_block_begin(&tape, e.param, e.views, e.extra)
        r.k = 1 if e.op == FG_CALL else <fg_id>e.k   # then nobody looks for slots that are an operand twice
        for k in range(e.extra):
            fg_record_extra(r)[k] = <fg_id>e.labels[k]
        for v in range(e.views):
            slots = fg_block_ids(r)
            for k in range(<fg_id>e.shapes[3 * v] * <fg_id>e.shapes[3 * v + 1]):
                slots[k] = list_ids[at]
                at += 1
            fg_block_list(r, v, <fg_id>e.shapes[3 * v], <fg_id>e.shapes[3 * v + 1])
            if e.shapes[3 * v + 2]:
                fg_record_view(r, v).flags |= FG_VIEW_CONSTANT
        status = fg_block_push(&tape, e.op, e.rows, e.cols, e.parts, e.data, node)
        if status < 0:
            raise_status(status)
    elif fg_op_is_pooled(e.op):
        node[0] = fg_tape_push_pooled(&tape, e.op, list_ids, e.operands, e.partials, e.data[0])
    else:
        node[0] = fg_tape_push(&tape, e.op, list_ids[0] if e.operands > 0 else 0,
                               <fg_id>e.k if e.op == FG_POWI else list_ids[1] if e.operands > 1 else 0, e.data[0])
    first = node[0] - e.numbers if e.parts else node[0]
    memcpy(tape.data + first, e.data, e.numbers * sizeof(double))
    memcpy(tape.grad + first, e.grad, e.numbers * sizeof(double))
    for k in range(e.numbers):
        ids[k] = first + k
    return 0


cdef int check_class(object cls, bint wanted=True) except -1:
    """An error unless a Value of that class is wanted and there can be one."""
    if not (wanted and isinstance(cls, type) and issubclass(cls, Value)):
        damaged(f"expected a subclass of Value, got {describe(cls)}")
    return 0


cdef list rebuild(object saved, object ends, object classes):
    """Append a saved graph; the objects of its members. ValueError unless pack() made it, for such ends."""
    cdef int names[MOST_NAMES]
    cdef int n_names
    cdef Rest rest, again
    cdef Entry e
    cdef Ends e_
    cdef fg_id *ids = NULL
    cdef fg_id *nodes = NULL
    cdef fg_id *operands = NULL
    cdef const int32_t *members
    cdef const int32_t *frozen
    cdef Py_ssize_t count, n, k, j, numbers = 0, room = 1, pool = 0, at = 0, place, most = 2
    cdef fg_id node = 0
    cdef Value value
    cdef list made = []
    saved = turned(saved)
    begin(saved, &rest, names)
    n_names = <int>len(<tuple>saved[1])
    members, count = <const int32_t *>rest.bytes[MEMBERS], rest.count[MEMBERS]
    frozen = <const int32_t *>rest.bytes[FROZEN]
    if type(ends) is not tuple or not all([isinstance(end, Value) or type(end) is _Run for end in ends]):
        damaged(f"expected Values, got {describe(ends)}")
    if classes is not None and type(classes) is not dict:
        damaged(f"expected classes, got {describe(classes)}")
    e_.count = len(<tuple>ends)
    e_.first = <Py_ssize_t *>PyMem_Malloc((e_.count + 1) * sizeof(Py_ssize_t))
    e_.slot = <fg_id *>PyMem_Malloc((e_.count + 1) * sizeof(fg_id))
    nodes = <fg_id *>PyMem_Calloc(rest.count[OPS] + 1, sizeof(fg_id))
    ids = <fg_id *>PyMem_Malloc((rest.count[DATA] + 1) * sizeof(fg_id))
    try:
        if e_.first == NULL or e_.slot == NULL or nodes == NULL or ids == NULL:
            raise MemoryError()
        e_.first[0] = 0
        for j in range(e_.count):
            end = (<tuple>ends)[j]
            e_.first[j + 1] = e_.first[j] + ((<_Run>end).count if type(end) is _Run else 1)
            if e_.first[j + 1] >= MOST_NODES:
                damaged("it has too many operands")
        again = rest
        for n in range(rest.count[OPS]):
            if n & SIGNALS_EVERY == SIGNALS_EVERY:
                PyErr_CheckSignals()
            read_entry(&again, names, n_names, &e)
            for k in range(e.operands):
                place = e.places[k]
                if place >= numbers or -place > e_.first[e_.count]:
                    damaged(f"node {n} has the operand {place}")
            nodes[n] = e.parts
            numbers += e.numbers
            room += e.numbers + e.parts
            most = e.operands if e.operands > <fg_id>most else most
            pool += e.operands
            if fg_op_is_block(e.op):
                pool += fg_block_words(e.views, e.extra)
            elif fg_op_is_pooled(e.op):
                pool += fg_op_pool_size(e.op, e.operands)
        for k in range(MEMBERS):
            if again.count[k]:
                damaged("something is left over")
        if room > MOST_NODES or pool > MOST_NODES:
            raise MemoryError(f"a saved graph of {room} nodes does not fit on the tape")
        for k in range(rest.count[FROZEN]):
            if not 0 <= frozen[k] < numbers:
                damaged(f"it has the frozen number {frozen[k]}")
        seen = bytearray(rest.count[OPS])
        for k in range(count):
            if not 0 <= members[k] < rest.count[OPS] or seen[members[k]]:
                damaged(f"it has the member {members[k]}")
            seen[members[k]] = 1
            made.append(None)
        if classes:
            for k_, cls in dict(classes).items():
                check_class(cls, type(k_) is int and 0 <= k_ < count and not nodes[members[<Py_ssize_t>k_]])
                made[k_] = Value.__new__(cls)
        operands = <fg_id *>PyMem_Malloc(most * sizeof(fg_id))
        if operands == NULL:
            raise MemoryError()
        reserve(<fg_id>room, <fg_id>pool)
        hold_ids()   # making objects on the way may run Python's collector
        try:
            for j in range(e_.count):
                end = (<tuple>ends)[j]
                e_.slot[j] = (<_Run>end).id - (<_Run>end).count if type(end) is _Run else (<Value>end).id
            numbers = 0
            again = rest
            for n in range(rest.count[OPS]):
                read_entry(&again, names, n_names, &e)
                for k in range(e.operands):
                    operands[k] = slot_of(e.places[k], &e_, ids)
                push_entry(&e, ids + numbers, operands, &node)
                numbers += e.numbers
                nodes[n] = node
            for k in range(rest.count[FROZEN]):
                if fg_op_is_leaf(fg_tape_op(&tape, ids[frozen[k]])):
                    freeze(ids[frozen[k]], True)
            for k in range(count):
                node = nodes[members[k]]
                if made[k] is None:
                    made[k] = entry_object(node)
                else:
                    value = <Value>made[k]
                    if fg_tape_holder(&tape, value.id) == &value.id:
                        fg_tape_hold(&tape, value.id, NULL)
                    value.id = node
                    fg_tape_hold(&tape, node, &value.id)
        finally:
            release_ids()   # nodes that nobody holds go
    finally:
        PyMem_Free(e_.first)
        PyMem_Free(e_.slot)
        PyMem_Free(nodes)
        PyMem_Free(ids)
        PyMem_Free(operands)
    return made


def _restore(cls, data, grad, requires_grad=True):
    """The leaf with these numbers, as a `cls`. Raises ValueError for anything else."""
    cdef Value value
    check_class(cls)
    if type(data) is not float or type(grad) is not float:
        damaged(f"expected two floats, got {describe(data)} and {describe(grad)}")
    if type(requires_grad) is not bool:
        damaged(f"expected a bool, got {describe(requires_grad)}")
    value = Value.__new__(cls)   # a leaf already. So parameters that lay in order do again
    assign_data(value.id, data)
    tape.grad[value.id] = grad
    if not requires_grad:
        freeze(value.id, True)
    return value


def _restore_part(cls, _Run run not None, index):
    """Number `index` of a restored run as a `cls`."""
    cdef Value value
    cdef fg_id i
    check_class(cls)
    if type(index) is not int or not 0 <= index < run.count:
        damaged(f"expected a position below {run.count}, got {describe(index)}")
    i = run.id - run.count + <fg_id>index
    if fg_tape_holder(&tape, i) != NULL:
        return handle_of(i)
    value = Value.__new__(cls)
    i = run.id - run.count + <fg_id>index
    if fg_tape_holder(&tape, i) != NULL:   # since making room for the new one has run Python code
        return handle_of(i)
    fg_tape_hold(&tape, value.id, NULL)
    value.id = i
    fg_tape_hold(&tape, i, &value.id)
    return value
