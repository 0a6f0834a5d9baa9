# packing.pxi: From entries to bytes: which nodes a saved graph has, and what is written of each.
#
# Ids are held from the first look to the last byte. Objects and their attributes are the matter of graphs.pxi.
#
# Uses addresses, callees, entries, handles, python, tape.

cdef struct Part:
    fg_id *ids            # [capacity] the entries that are saved
    fg_id count
    size_t capacity
    Addresses numbers     # of an entry, by key_of(): the position of its first number; of an end, from -2 down
    fg_id *stack          # [stack_capacity] entries whose operands are still to be seen
    Py_ssize_t depth
    size_t stack_capacity
    Py_ssize_t end_numbers
    Py_ssize_t steps


cdef inline void *key_of(fg_id i) noexcept:
    return <void *>((<size_t>i + 1) << 4)


cdef void free_part(Part *p) noexcept:
    PyMem_Free(p.ids)
    PyMem_Free(p.stack)
    free_addresses(&p.numbers)


cdef int room_for_one(fg_id **ids, size_t count, size_t *capacity) except -1:
    cdef fg_id *larger
    if count == capacity[0]:
        larger = <fg_id *>PyMem_Realloc(ids[0], (2 * count + 64) * sizeof(fg_id))
        if larger == NULL:
            raise MemoryError()
        ids[0] = larger
        capacity[0] = 2 * count + 64
    return 0


cdef int add_entry(Part *p, fg_id i) except -1:
    """Entry i is saved, and what it depends on is to be seen."""
    room_for_one(&p.ids, p.count, &p.capacity)
    room_for_one(&p.stack, <size_t>p.depth, &p.stack_capacity)
    if not enter(&p.numbers, key_of(i), 0):
        raise MemoryError()
    p.ids[p.count] = i
    p.count += 1
    p.stack[p.depth] = i
    p.depth += 1
    return 0


cdef inline int pause(Part *p) except -1:
    p.steps += 1
    if p.steps & SIGNALS_EVERY == 0:
        PyErr_CheckSignals()   # ids are held
    return 0


cdef int find_part(Part *p, list members, list ends, _Graph graph, object memo, int purpose) except -1:
    """Find the entries of a saved graph from its members. Precondition: ids are held.

    COPYING: all that is held is an end. Else leaves and Values of classes with ways of their own are ends, and the
    others that are held are members. DEEP: also what has been copied is an end: `memo` is (memo, done).
    PICKLING: also what is in another _Graph than this one. PACKING, LOOKING: likewise, and there are no more members.
    """
    cdef fg_id first = 0, end = 0, i, v, row, col, entry, last
    cdef fg_operands operands
    for o in members:
        add_entry(p, (<fg_handle *>o).id)
    while p.depth > 0:
        p.depth -= 1
        i = p.stack[p.depth]
        last = 0
        fg_tape_views(&tape, i, &operands)
        for v in range(operands.count):
            for row in range(operands.view[v].rows):
                for col in range(operands.view[v].cols):
                    entry = entry_near(fg_view_slot(operands.words, &operands.view[v], row, col), &first, &end)
                    if entry != last:
                        see_entry(p, entry, members, ends, graph, memo, purpose)
                        last = entry
                    pause(p)
                    fg_tape_views(&tape, i, &operands)   # what ran may have moved the pool
    return 0


cdef int see_entry(Part *p, fg_id i, list members, list ends, _Graph graph, object memo, int purpose) except -1:
    """An entry is an operand: it is saved as well, or it is an end."""
    cdef _Graph other
    cdef bint is_end
    cdef int found
    if number_of(&p.numbers, key_of(i)) != -1:
        return 0
    found = owned(i)
    if found:
        o = entry_object(i)
        if purpose == COPYING:
            is_end = found & HELD
        elif is_leaf(i):
            is_end = True
        elif purpose == DEEP:
            is_end = is_copied(o, memo) or has_own_ways(type(o), purpose)
        else:
            other = graph_with(o)
            is_end = (other is not None and other is not graph) or has_own_ways(type(o), purpose)
        if is_end:
            if not enter(&p.numbers, key_of(i), -2 - p.end_numbers):
                raise MemoryError()
            p.end_numbers += tape.args[i].b if has_parts(i) else 1
            ends.append(o)
            return 0
        if purpose != PACKING and purpose != LOOKING:
            members.append(o)
    return add_entry(p, i)


cdef bint is_copied(object o, object memo):
    place = PyLong_FromVoidPtr(<PyObject *>o)
    return place in (<tuple>memo)[0] or place in (<dict>(<tuple>memo)[1])


# ---- a saved graph ----
#
# (FORMAT, names, ops, places, lengths, integers, partials, data, grad, members, frozen), all bytes but the first two;
# and, if programs are called, a tuple of these.
# `ops` has for each entry, in order, which of `names` it is. The others have one after the other what entries have of
# them: each operand in `places`, the position of a number, counted over all entries, or -1 - the position of one of
# the ends'; in `lengths` how many there are, of operations that do not say it themselves; in `integers` the exponent,
# the length of a run, or what an instruction has; in `partials` those that the user gave. `members`: which entries
# have objects; `frozen`: which numbers take no gradient. So whatever is made of it is there: bytes that are short
# make little. All numbers are little-endian, on every machine.

cdef struct Buffer:
    char *bytes
    size_t size
    size_t capacity


cdef int put(Buffer *b, const void *source, size_t size) except -1:
    cdef char *bytes
    if b.size + size > b.capacity:
        bytes = <char *>PyMem_Realloc(b.bytes, 2 * (b.size + size))
        if bytes == NULL:
            raise MemoryError()
        b.bytes = bytes
        b.capacity = 2 * (b.size + size)
    memcpy(b.bytes + b.size, source, size)
    b.size += size
    return 0


cdef inline int put_integer(Buffer *b, int32_t x) except -1:
    return put(b, &x, sizeof(int32_t))


cdef int compare_ids(const void *a, const void *b) noexcept nogil:
    cdef fg_id i = (<const fg_id *>a)[0], j = (<const fg_id *>b)[0]
    return (i > j) - (i < j)


cdef int put_place(Buffer *places, Part *p, fg_id operand, fg_id *first, fg_id *end) except -1:
    cdef fg_id entry = entry_near(operand, first, end)
    cdef Py_ssize_t place = number_of(&p.numbers, key_of(entry))
    cdef Py_ssize_t number = operand - (entry - tape.args[entry].b) if has_parts(entry) else 0
    return put_integer(places, <int32_t>(place + number if place >= 0 else place + 1 - number))


cdef enum:
    OPS, PLACES, LENGTHS, INTEGERS, PARTIALS, DATA, GRAD, MEMBERS, FROZEN, BUFFERS


cdef Py_ssize_t[BUFFERS] ITEM_SIZE = [1, 4, 4, 4, 8, 8, 8, 4, 4]


cdef void turn(char *bytes, Py_ssize_t size, Py_ssize_t item) noexcept:
    """On a big-endian machine: the bytes of each item in the order that a saved graph has, or back."""
    cdef Py_ssize_t n, k
    cdef char kept
    if PY_BIG_ENDIAN:
        for n in range(size // item):
            for k in range(item // 2):
                kept = bytes[k]
                bytes[k] = bytes[item - 1 - k]
                bytes[item - 1 - k] = kept
            bytes += item


cdef object turned(object saved):
    """On a big-endian machine: a copy of a saved graph with numbers as this machine has them, as far as it is one."""
    cdef Py_ssize_t k
    cdef bytes copy
    if not PY_BIG_ENDIAN or type(saved) is not tuple or len(saved) < 2 + BUFFERS:
        return saved
    parts = list(saved)
    for k in range(BUFFERS):
        if type(parts[2 + k]) is bytes and ITEM_SIZE[k] > 1 and len(parts[2 + k]) % ITEM_SIZE[k] == 0:
            copy = (<const char *><bytes>parts[2 + k])[:len(parts[2 + k])]
            if len(copy) > 0:   # nobody else has it
                turn(<char *>copy, len(copy), ITEM_SIZE[k])
            parts[2 + k] = copy
    return tuple(parts)


cdef tuple pack(Part *p, list members):
    """The entries as bytes. Precondition: ids are held, and the part has been found in the same time."""
    cdef Buffer[BUFFERS] b
    cdef dict names = {}, programs = {}
    cdef int op, code
    cdef fg_id n, i, k, v, row, col, slot, count, first = 0, end = 0
    cdef Py_ssize_t numbers = 0, position
    cdef fg_operands operands
    cdef fg_record *r
    cdef fg_view *view
    cdef uint8_t short_code
    cdef Addresses entries
    if p.end_numbers >= MOST_NODES:
        raise MemoryError("a graph with so many operands cannot be saved")
    memset(b, 0, sizeof(b))
    memset(&entries, 0, sizeof(Addresses))
    qsort(p.ids, p.count, sizeof(fg_id), compare_ids)
    try:
        for n in range(p.count):
            i = p.ids[n]
            enter(&p.numbers, key_of(i), numbers)
            numbers += tape.args[i].b if has_parts(i) else 1
        if numbers >= MOST_NODES:
            raise MemoryError(f"a graph of {numbers} numbers cannot be saved as one")
        for n in range(p.count):
            pause(p)
            i = p.ids[n]
            op = fg_tape_op(&tape, i)
            short_code = code_of(names, FG_LEAF if op == FG_FROZEN else op)
            put(&b[OPS], &short_code, 1)
            if op == FG_RUN:
                put_integer(&b[INTEGERS], <int32_t>tape.args[i].b)
            elif fg_op_is_block(op):
                if op == FG_CALL:
                    body = callee_object(fg_tape_callee(&tape, fg_tape_record(&tape, i)))
                    code = programs.setdefault(body, len(programs))
                else:
                    code = code_of(names, fg_tape_record(&tape, i).param)
                r = fg_tape_record(&tape, i)
                put_integer(&b[INTEGERS], code)
                put_integer(&b[INTEGERS], <int32_t>r.k)
                put_integer(&b[INTEGERS], <int32_t>r.rows)
                put_integer(&b[INTEGERS], <int32_t>r.cols)
                put_integer(&b[INTEGERS], tape.args[i].b > 0)
                put_integer(&b[INTEGERS], <int32_t>r.views)
                put_integer(&b[INTEGERS], <int32_t>r.extra)
                for v in range(r.views):
                    view = fg_record_view(r, v)
                    put_integer(&b[INTEGERS], <int32_t>view.rows)
                    put_integer(&b[INTEGERS], <int32_t>view.cols)
                    put_integer(&b[INTEGERS], view.flags & FG_VIEW_CONSTANT != 0)
                put(&b[INTEGERS], fg_record_extra(r), r.extra * sizeof(fg_id))
            elif fg_op_table[op].arity < 0:
                put_integer(&b[LENGTHS], <int32_t>tape.args[i].b)
                if op == FG_LOCAL:
                    put(&b[PARTIALS], tape.pool + tape.args[i].a + tape.args[i].b, tape.args[i].b * sizeof(double))
            elif op == FG_POWI:
                put_integer(&b[INTEGERS], <int32_t>tape.args[i].b)
            fg_tape_views(&tape, i, &operands)
            for v in range(operands.count):
                for row in range(operands.view[v].rows):
                    for col in range(operands.view[v].cols):
                        slot = fg_view_slot(operands.words, &operands.view[v], row, col)
                        put_place(&b[PLACES], p, slot, &first, &end)
                        if fg_op_is_block(op):
                            pause(p)
                            fg_tape_views(&tape, i, &operands)
            if has_parts(i):
                k = i - tape.args[i].b
                count = tape.args[i].b
            else:
                k, count = i, 1
            put(&b[DATA], tape.data + k, count * sizeof(double))
            if not frozen_ever:
                put(&b[GRAD], tape.grad + k, count * sizeof(double))
            else:   # those of frozen leaves are elsewhere
                position = number_of(&p.numbers, key_of(i))
                for v in range(count):
                    put(&b[GRAD], fg_tape_gradient(&tape, k + v), sizeof(double))
                    if fg_tape_op(&tape, k + v) == FG_FROZEN:
                        put_integer(&b[FROZEN], <int32_t>(position + v))
            if not enter(&entries, key_of(i), n):
                raise MemoryError()
        for o in members:
            put_integer(&b[MEMBERS], <int32_t>number_of(&entries, key_of((<fg_handle *>o).id)))
        for op in range(BUFFERS):
            turn(b[op].bytes, b[op].size, ITEM_SIZE[op])
        return (FORMAT, tuple(names), *[b[op].bytes[:b[op].size] if b[op].size > 0 else b"" for op in range(BUFFERS)],
                *([tuple(programs)] if programs else []))
    finally:
        free_addresses(&entries)
        for op in range(BUFFERS):
            PyMem_Free(b[op].bytes)


cdef int code_of(dict names, int op) except -1:
    name = fg_op_table[op].id.decode()
    return names.setdefault(name, len(names))


cdef object packed_part(list members, list ends, _Graph graph, object memo, int purpose):
    """The saved graph of these members, which may become more; what it ends at is appended to ends. Runs no Python
    code but for signals. None if DEEP and an end has not been copied yet."""
    cdef Part p
    memset(&p, 0, sizeof(Part))
    hold_ids()
    try:
        find_part(&p, members, ends, graph, memo, purpose)
        if purpose == DEEP:
            for o in ends:
                if not is_copied(o, memo):
                    return None
        if purpose == PICKLING or purpose == LOOKING:
            return None   # the numbers are read when it is saved
        return pack(&p, members)
    finally:
        free_part(&p)
        release_ids()
