# _saving.pxi: part of _core.pyx. Copies and pickles: what two Values share is shared by their copies, and a graph of
# any length is saved without recursion, whoever holds what of it.
#
# The first Value of a graph that is saved makes a _Graph: the objects of all nodes that it depends on and that
# somebody holds, or has hung something on, and through them the nodes between. The _Graph is saved once, by the memo
# that copy and pickle keep, as a few strings of bytes; each Value is saved as its place in there. While it is alive
# the Values in it know of it. It reads numbers when it is saved itself, not before. Leaves are saved by themselves,
# and so are Values of classes with ways of their own.
#
# The results of one instruction are one entry of a saved graph, and so are the leaves of a tensor; their object is
# their _Run.

cdef enum:
    FORMAT = 3
    SIGNALS_EVERY = 0xFFFF   # steps between two looks at whether Ctrl-C was pressed


cdef object deepcopy(x, memo):
    """copy.deepcopy. Whoever copies has imported `copy`, and nobody else has to."""
    from copy import deepcopy as copied

    return copied(x, memo)


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
    if fg_tape_op(&tape, i) == FG_PART or fg_op_is_block(fg_tape_op(&tape, i)):
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
    for k in range(i - tape.args[i].b if has_parts(i) else i, i + 1):
        if tape.owner[k] != NULL:
            found |= HUNG if fg_owner_is_box(tape.owner[k]) else 0
            found |= HELD if fg_tape_holder(&tape, k) != NULL else 0
    return found


cdef object entry_object(fg_id i):
    """The object of entry i, made if there is none. Runs no Python code while ids are held."""
    return run_object(i) if has_parts(i) else handle_of(i)


# ---- which nodes a saved graph has ----

cdef struct Part:
    fg_id *ids            # [capacity] the entries that are saved
    fg_id count
    fg_id capacity
    Addresses numbers     # of an entry, by key_of(): the position of its first number; of an end, from -2 down
    fg_id *stack          # [stack_capacity] entries whose operands are still to be seen
    Py_ssize_t depth
    Py_ssize_t stack_capacity
    Py_ssize_t end_numbers
    Py_ssize_t steps


cdef inline void *key_of(fg_id i) noexcept:
    return <void *>((<size_t>i + 1) << 4)


cdef void free_part(Part *p) noexcept:
    PyMem_Free(p.ids)
    PyMem_Free(p.stack)
    free_addresses(&p.numbers)


cdef int add_entry(Part *p, fg_id i) except -1:
    """Entry i is saved, and what it depends on is to be seen."""
    cdef fg_id *ids
    if p.count == p.capacity:
        ids = <fg_id *>PyMem_Realloc(p.ids, (2 * <size_t>p.capacity + 64) * sizeof(fg_id))
        if ids == NULL:
            raise MemoryError()
        p.ids = ids
        p.capacity = 2 * p.capacity + 64
    if p.depth == p.stack_capacity:
        ids = <fg_id *>PyMem_Realloc(p.stack, (2 * p.stack_capacity + 64) * sizeof(fg_id))
        if ids == NULL:
            raise MemoryError()
        p.stack = ids
        p.stack_capacity = 2 * p.stack_capacity + 64
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


cdef enum:
    COPYING, DEEP, PICKLING, PACKING, LOOKING   # what find_part() is for


cdef int find_part(Part *p, list members, list ends, _Graph graph, object memo, int purpose) except -1:
    """Find the entries of a saved graph from its members. Precondition: ids are held.

    COPYING: all that is held is an end. Else leaves and Values of classes with ways of their own are ends, and the
    others that are held are members. DEEP: also what has been copied is an end: `memo` is (memo, done).
    PICKLING: also what is in another _Graph than this one. PACKING, LOOKING: likewise, and there are no more members.
    """
    cdef fg_id first = 0, end = 0, i, k, v, row, col, count, slot, entry, last
    cdef fg_id[2] pair
    cdef const fg_id *operands
    cdef fg_record *r
    cdef fg_view *view
    for o in members:
        add_entry(p, (<fg_handle *>o).id)
    while p.depth > 0:
        p.depth -= 1
        i = p.stack[p.depth]
        last = 0
        if fg_op_is_block(fg_tape_op(&tape, i)):
            r = fg_tape_record(&tape, i)
            for v in range(r.views):
                view = fg_record_view(r, v)
                for row in range(view.rows):
                    for col in range(view.cols):
                        entry = entry_near(fg_record_slot(r, view, row, col), &first, &end)
                        if entry != last:
                            see_entry(p, entry, members, ends, graph, memo, purpose)
                            last = entry
                        pause(p)
                        r = fg_tape_record(&tape, i)   # what ran may have moved the pool
                        view = fg_record_view(r, v)
        elif fg_tape_op(&tape, i) != FG_RUN:
            count = fg_tape_operands(&tape, i, pair, &operands)
            for k in range(count):
                see_entry(p, entry_near(operands[k], &first, &end), members, ends, graph, memo, purpose)
                pause(p)
                fg_tape_operands(&tape, i, pair, &operands)
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


# ---- a saved graph ----
#
# (FORMAT, names, ops, places, lengths, integers, partials, data, grad, members, frozen), all bytes but the first two.
# `ops` has
# for each entry, in order, which of `names` it is. The others have one after the other what entries have of them: each
# operand in `places`, the position of a number, counted over all entries, or -1 - the position of one of the ends';
# in `lengths` how many there are, of operations that do not say it themselves; in `integers` the exponent, the length
# of a run, or what an instruction has; in `partials` those that the user gave. `members`: which entries have objects; `frozen`: which numbers take no gradient.
# So whatever is made of it is there: bytes that are short make little.

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


cdef bytes taken(Buffer *b):
    return b.bytes[:b.size] if b.size > 0 else b""


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


cdef tuple pack(Part *p, list members):
    """The entries as bytes. Precondition: ids are held, and the part has been found in the same time."""
    cdef Buffer[BUFFERS] b
    cdef dict names = {}
    cdef int op, code
    cdef fg_id n, i, k, v, row, col, count, first = 0, end = 0
    cdef Py_ssize_t numbers = 0, position
    cdef fg_id[2] pair
    cdef const fg_id *operands
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
                for v in range(r.views):
                    view = fg_record_view(r, v)
                    for row in range(view.rows):
                        for col in range(view.cols):
                            put_place(&b[PLACES], p, fg_record_slot(r, view, row, col), &first, &end)
                            pause(p)
                            r = fg_tape_record(&tape, i)
                            view = fg_record_view(r, v)
            else:
                count = fg_tape_operands(&tape, i, pair, &operands)
                if fg_op_table[op].arity < 0:
                    put_integer(&b[LENGTHS], <int32_t>count)
                for k in range(count):
                    put_place(&b[PLACES], p, operands[k], &first, &end)
                if op == FG_POWI:
                    put_integer(&b[INTEGERS], <int32_t>tape.args[i].b)
                if op == FG_LOCAL:
                    put(&b[PARTIALS], operands + count, count * sizeof(double))
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
        return (FORMAT, tuple(names), taken(&b[OPS]), taken(&b[PLACES]), taken(&b[LENGTHS]), taken(&b[INTEGERS]),
                taken(&b[PARTIALS]), taken(&b[DATA]), taken(&b[GRAD]), taken(&b[MEMBERS]), taken(&b[FROZEN]))
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


# ---- what hangs on the members ----

cdef tuple own_state(object o):
    """(attributes of the node, attributes of the instance) of a Value, each a dict or None."""
    cdef dict own = dict(getattr(o, "__dict__", ()))
    for name in copyreg._slotnames(type(o)):
        if hasattr(o, name):
            own[name] = getattr(o, name)
    extra = extra_of(o)
    return None if extra is None else dict(extra), own


cdef list hung_on(list members):
    """(which member, which of its numbers or -1, attributes, attributes of the instance) where there is something."""
    cdef fg_id k, first
    cdef Py_ssize_t n
    cdef list found = []
    cdef _Run run
    for n in range(len(members)):
        o = members[n]
        if n & SIGNALS_EVERY == SIGNALS_EVERY:
            PyErr_CheckSignals()
        if type(o) is not _Run:
            if type(o) is not Value or fg_owner_is_box(tape.owner[(<Value>o).id]):
                extra, own = own_state(o)
                if extra or own:
                    found.append((n, -1, extra, own))
        elif tape.boxes > 0:
            run = <_Run>o
            for k in range(run.count):   # ids may move
                first = run.id - run.count
                if fg_owner_is_box(tape.owner[first + k]) and fg_owner_box(tape.owner[first + k]).extra != NULL:
                    extra = dict(<dict>fg_owner_box(tape.owner[first + k]).extra)
                    found.append((n, k, extra, {}))
    return found


cdef int hang(list members, object state) except -1:
    """Give members what hung_on() says."""
    cdef _Run run
    cdef Py_ssize_t number
    if type(state) is not list:
        damaged(f"expected a list of attributes, got {describe(state)}")
    for entry in tuple(state):
        if type(entry) is not tuple or len(entry) != 4:
            damaged(f"its attributes are {describe(entry)}")
        which, number_, extra, own = entry
        if type(which) is not int or not 0 <= which < len(members) or type(number_) is not int:
            damaged(f"its attributes are of {describe(which)}")
        o = members[which]
        if type(o) is not _Run:
            o.__setstate__((extra, own))
            continue
        run = <_Run>o
        if not 0 <= number_ < run.count or type(extra) is not dict:
            damaged(f"its attributes are of {describe(number_)}")
        number = number_
        extra = checked_attributes(extra)
        attach(run.id - run.count + <fg_id>number, extra)
    return 0


cdef dict saved_in = {}   # address of a member -> address of the _Graph that is alive and has it


cdef _Graph graph_with(object o):
    """The _Graph that is alive and has o, or None."""
    cdef PyObject *found = PyDict_GetItemWithError(saved_in, PyLong_FromVoidPtr(<PyObject *>o))
    if found == NULL:
        return None
    return <_Graph>PyLong_AsVoidPtr(<object>found)


@cython.final
@cython.no_gc
@cython.auto_pickle(False)
cdef class _Graph:
    """Values and _Runs that are saved as one with what lies between them."""
    cdef list members
    cdef Addresses places     # of a member: its position
    cdef Py_ssize_t pickled   # how often

    def __dealloc__(self):
        if self.members is not None and self.places.size > 0:
            mine = PyLong_FromVoidPtr(<PyObject *>self)
            for o in self.members:
                address = PyLong_FromVoidPtr(<PyObject *>o)
                if saved_in.get(address) == mine:
                    del saved_in[address]
        free_addresses(&self.places)

    def __reduce__(self):
        cdef list ends = []
        if self.members is None:
            damaged("no nodes")
        self.pickled += 1
        packed = packed_part(list(self.members), ends, self, None, PACKING)
        return (_restore_graph, (graphs_below(self, ends), packed, tuple(ends), classes_of(self.members)),
                hung_on(self.members) or None)

    def __setstate__(self, state):
        if self.members is None:
            damaged("no nodes")
        hang(self.members, state)


cdef list graphs_below(_Graph graph, list ends):
    """Those that the graph needs and that have been pickled less often, each before those that need it.

    It needs others if its Values have been pickled one by one, in order. By this Pickler, and then they have been
    pickled as often as it; or by one that lives on, and then each would wait for the one that it needs.
    """
    cdef list found = [], stack = []
    cdef _Graph g
    cdef dict seen = {}
    push_graphs(graph, ends, stack, seen)
    while stack:
        g = stack[len(stack) - 1]
        if g in seen:
            stack.pop()
            if not seen[g]:
                seen[g] = True
                found.append(g)
            continue
        seen[g] = False
        ends = []
        packed_part(list(g.members), ends, g, None, LOOKING)
        push_graphs(graph, ends, stack, seen)
    return found


cdef int push_graphs(_Graph graph, list ends, list stack, dict seen) except -1:
    cdef _Graph other
    for o in ends:
        other = graph_with(o)
        if other is not None and other.pickled < graph.pickled and other not in seen:
            stack.append(other)
    return 0


cdef tuple place_in_graph(object o):
    """(_Graph, position there) of a Value or _Run that is to be pickled."""
    cdef _Graph graph = graph_with(o)
    cdef Py_ssize_t n
    cdef list members
    if graph is None:
        graph = _Graph.__new__(_Graph)
        members = [o]
        packed_part(members, [], graph, None, PICKLING)
        graph.places.factor = SPREAD
        for n in range(len(members)):
            if not enter(&graph.places, <PyObject *>members[n], n):
                raise MemoryError()
        graph.members = members
        mine = PyLong_FromVoidPtr(<PyObject *>graph)
        for member in members:
            saved_in[PyLong_FromVoidPtr(<PyObject *>member)] = mine
    return graph, number_of(&graph.places, <PyObject *>o)


cdef object deep_copy(object o, object memo):
    """The copy of a Value or _Run, and of all that it depends on."""
    cdef list members, ends, found
    cdef dict done = {}   # of ends: (itself, its copy), by address
    cdef Py_ssize_t n
    address = PyLong_FromVoidPtr(<PyObject *>o)
    while True:
        if address in memo:
            return memo[address]
        members, ends = [o], []
        packed = packed_part(members, ends, None, (memo, done), DEEP)
        if packed is not None:
            break
        for end in ends:
            if not is_copied(end, (memo, done)):
                copied = deepcopy(end, memo)
                done[PyLong_FromVoidPtr(<PyObject *>end)] = (end, copied)
    copies = []
    for end in ends:
        place = PyLong_FromVoidPtr(<PyObject *>end)
        copies.append(memo[place] if place in memo else (<tuple>done[place])[1])
    found = rebuild(packed, tuple(copies), classes_of(members))
    memo.setdefault(id(memo), []).extend(members)   # as copy does: their addresses must stay theirs
    for n in range(len(members)):
        memo[PyLong_FromVoidPtr(<PyObject *>members[n])] = found[n]
    state = []
    for which, number, extra, own in hung_on(members):
        if extra is not None:
            extra = deep_attributes(extra, memo)
        state.append((which, number, extra, deepcopy(own, memo)))
    hang(found, state)
    return found[0]


cdef dict deep_attributes(dict extra, object memo):
    return {name: copy_rule(x, memo) if name == "_backward" else deepcopy(x, memo) for name, x in extra.items()}


cdef object shallow_copy(object o):
    """The copy of a Value or _Run with the same operands; of those that nobody holds there are copies as well."""
    cdef list members = [o], ends = []
    packed = packed_part(members, ends, None, None, COPYING)
    found = rebuild(packed, tuple(ends), classes_of(members))
    hang(found, hung_on(members))
    return found[0]


cdef dict classes_of(list members):
    """The classes of the members that are not exactly a Value, by position."""
    return {n: type(o) for n, o in enumerate(members) if type(o) is not Value and type(o) is not _Run}


def _member(_Graph graph not None, index):
    """The Value or _Run at a position of a restored graph."""
    if graph.members is None or type(index) is not int or not 0 <= index < len(graph.members):
        damaged(f"expected a position in a graph, got {describe(index)}")
    return graph.members[index]


# ---- reading a saved graph ----

# What is left of a saved graph to be read: a pointer and how many there are, of each kind.
cdef struct Rest:
    const uint8_t *ops
    const int32_t *places
    const fg_id *lengths
    const int32_t *integers
    const double *partials
    const double *data
    const double *grad
    Py_ssize_t n_ops, n_places, n_lengths, n_integers, n_partials, n_numbers


cdef enum:
    MOST_NAMES = 256

cdef struct Entry:
    int op
    fg_id operands           # how many
    const int32_t *places    # [operands]
    const double *partials   # [operands], of FG_LOCAL
    int32_t k                # the exponent
    fg_id numbers            # how many results
    bint parts               # they are below the node
    int param                # of an instruction, and what follows
    fg_id rows, cols, views, extra
    const int32_t *shapes    # [3 * views]: rows, columns, whether it is constant
    const int32_t *labels    # [extra]


cdef int damaged(str what) except -1:
    raise ValueError(f"a saved Value is damaged: {what}")


cdef tuple begin(object saved, Rest *rest, int *names):
    """Point to what is there; the kept objects. ValueError unless it is a tuple of the right kinds."""
    cdef Py_ssize_t k
    if type(saved) is not tuple or len(saved) != 11 or type(saved[0]) is not int or saved[0] != FORMAT:
        damaged(f"expected a tuple of format {FORMAT}, got {describe(saved)}")
    if type(saved[1]) is not tuple or not 0 < len(saved[1]) <= MOST_NAMES:
        damaged(f"its operations are {describe(saved[1])}")
    for k, name in enumerate(<tuple>saved[1]):
        if type(name) is not str or name not in opcodes or name in ("PART", "FROZEN"):
            damaged(f"it has the unknown operation {describe(name)}")
        names[k] = opcodes[name]
    for k in range(2, 11):
        if type(saved[k]) is not bytes or len(saved[k]) % (8 if 6 <= k <= 8 else 1 if k == 2 else 4):
            damaged(f"expected bytes, got {describe(saved[k])}")
    rest.ops = <const uint8_t *><const char *><bytes>saved[2]
    rest.places = <const int32_t *><const char *><bytes>saved[3]
    rest.lengths = <const fg_id *><const char *><bytes>saved[4]
    rest.integers = <const int32_t *><const char *><bytes>saved[5]
    rest.partials = <const double *><const char *><bytes>saved[6]
    rest.data = <const double *><const char *><bytes>saved[7]
    rest.grad = <const double *><const char *><bytes>saved[8]
    rest.n_ops, rest.n_places, rest.n_lengths = len(saved[2]), len(saved[3]) // 4, len(saved[4]) // 4
    rest.n_integers, rest.n_partials, rest.n_numbers = len(saved[5]) // 4, len(saved[6]) // 8, len(saved[7]) // 8
    if rest.n_ops == 0:
        damaged("no nodes")
    if len(saved[7]) != len(saved[8]) or rest.n_numbers > MOST_NODES or rest.n_places > MOST_NODES:
        damaged("its data and grad differ in length, or are too long")
    return saved


cdef const int32_t *next_integers(Rest *rest, Py_ssize_t count) except NULL:
    cdef const int32_t *found = rest.integers
    if not 0 <= count <= rest.n_integers:
        damaged("it ends too early")
    rest.integers += count
    rest.n_integers -= count
    return found


cdef int read_entry(Rest *rest, const int *names, int n_names, Entry *e) except -1:
    """Read the next entry. ValueError unless pack() makes such a one, but for its places."""
    cdef const int32_t *head
    cdef fg_id v
    cdef int64_t operands = 0, size
    if rest.n_ops == 0 or rest.ops[0] >= n_names:
        damaged("it has an unknown operation")
    memset(e, 0, sizeof(Entry))
    e.op = names[rest.ops[0]]
    rest.ops += 1
    rest.n_ops -= 1
    e.numbers = 1
    if e.op == FG_RUN:
        head = next_integers(rest, 1)
        if not 0 < head[0] < MOST_NODES:
            damaged(f"a run has the length {head[0]}")
        e.numbers, e.parts = <fg_id>head[0], True
    elif fg_op_is_block(e.op):
        head = next_integers(rest, 7)
        if not 0 <= head[0] < n_names or head[2] < 1 or head[3] < 1 or not 0 <= head[4] <= 1 \
                or <int64_t>head[2] * head[3] >= MOST_NODES or not (head[4] or head[2] == head[3] == 1) \
                or not 0 <= head[5] <= FG_MAX_VIEWS or not 0 <= head[6] <= rest.n_integers:
            damaged("an instruction has a shape that there is not")
        e.param, e.k, e.rows, e.cols, e.parts = names[head[0]], head[1], <fg_id>head[2], <fg_id>head[3], head[4]
        e.views, e.extra, e.numbers = <fg_id>head[5], <fg_id>head[6], <fg_id>(head[2] * head[3])
        e.shapes = next_integers(rest, 3 * <Py_ssize_t>e.views)
        e.labels = next_integers(rest, e.extra)
        for v in range(e.views):
            size = <int64_t>e.shapes[3 * v] * e.shapes[3 * v + 1]
            if (e.shapes[3 * v] < 0 or e.shapes[3 * v + 1] < 0 or not 0 <= e.shapes[3 * v + 2] <= 1
                    or size > rest.n_places):
                damaged("an operand has a shape that there is not")
            operands += size
        if not block_fits(e):
            damaged(f"{fg_op_table[e.op].id.decode()} of {e.rows} x {e.cols} has operands of other shapes")
    elif fg_op_table[e.op].arity >= 0:
        operands = fg_op_table[e.op].arity
        if e.op == FG_POWI:
            e.k = next_integers(rest, 1)[0]
    else:
        if rest.n_lengths == 0:
            damaged("it ends too early")
        operands = rest.lengths[0]
        rest.lengths += 1
        rest.n_lengths -= 1
        if e.op == FG_LOCAL:
            if operands > rest.n_partials:
                damaged("a node has too few partial derivatives")
            e.partials = rest.partials
            rest.partials += operands
            rest.n_partials -= operands
    if operands > rest.n_places or e.numbers > rest.n_numbers:
        damaged("it ends too early")
    e.operands, e.places = <fg_id>operands, rest.places
    rest.places += operands
    rest.n_places -= operands
    rest.data += e.numbers
    rest.grad += e.numbers
    rest.n_numbers -= e.numbers
    return 0


cdef bint block_fits(const Entry *e) noexcept:
    """Whether the operands of an instruction have the shapes that it needs."""
    cdef const int32_t *s = e.shapes
    cdef int arity = fg_op_table[e.param].arity
    cdef fg_id k, rows = e.rows, cols = e.cols, n = e.views
    for k in range(e.extra):
        if e.op != FG_CROSS_ENTROPY or e.labels[k] < 0 or n < 1 or e.labels[k] >= s[1]:
            return False
    if e.op == FG_LAYER:
        return (2 <= n <= 3 and <fg_id>s[0] == rows and <fg_id>s[3] == cols and s[4] == s[1]
                and (n == 2 or (s[6] == 1 and <fg_id>s[7] == cols)) and is_fused(e.param))
    if e.op == FG_MAP:
        for k in range(n):
            if not ((s[3 * k] == 1 or <fg_id>s[3 * k] == rows) and (s[3 * k + 1] == 1 or <fg_id>s[3 * k + 1] == cols)):
                return False
        return 0 < arity == <int>n and e.param < FG_CUSTOM
    if e.op == FG_SOFTMAX or e.op == FG_LOG_SOFTMAX:
        return n == 1 and <fg_id>s[0] == rows and <fg_id>s[1] == cols
    if e.op == FG_CROSS_ENTROPY:
        return n == 1 and rows == cols == 1 and s[0] > 0 and <fg_id>s[0] == e.extra
    return n == 1 and s[0] > 0 and s[1] > 0 and (rows * cols == 1 or rows * cols == <fg_id>s[0])


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


cdef int push_entry(const Entry *e, const double *data, const double *grad, fg_id *ids, fg_id *list_ids,
                    fg_id *node) except -1:
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
        r.k = <fg_id>e.k
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
        status = fg_block_push(&tape, e.op, e.rows, e.cols, e.parts, data, node)
        if status < 0:
            raise_status(status)
    elif fg_op_is_pooled(e.op):
        node[0] = fg_tape_push_pooled(&tape, e.op, list_ids, e.operands, e.partials, data[0])
    else:
        node[0] = fg_tape_push(&tape, e.op, list_ids[0] if e.operands > 0 else 0,
                               <fg_id>e.k if e.op == FG_POWI else list_ids[1] if e.operands > 1 else 0, data[0])
    first = node[0] - e.numbers if e.parts else node[0]
    memcpy(tape.data + first, data, e.numbers * sizeof(double))
    memcpy(tape.grad + first, grad, e.numbers * sizeof(double))
    for k in range(e.numbers):
        ids[k] = first + k
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
    begin(saved, &rest, names)
    n_names = <int>len(<tuple>saved[1])
    members = <const int32_t *><const char *><bytes>saved[9]
    count = len(<bytes>saved[9]) // 4
    frozen = <const int32_t *><const char *><bytes>saved[10]
    if type(ends) is not tuple or not all([isinstance(end, Value) or type(end) is _Run for end in ends]):
        damaged(f"expected Values, got {describe(ends)}")
    if classes is not None and type(classes) is not dict:
        damaged(f"expected classes, got {describe(classes)}")
    memset(&e_, 0, sizeof(Ends))
    e_.count = len(<tuple>ends)
    e_.first = <Py_ssize_t *>PyMem_Malloc((e_.count + 1) * sizeof(Py_ssize_t))
    e_.slot = <fg_id *>PyMem_Malloc((e_.count + 1) * sizeof(fg_id))
    nodes = <fg_id *>PyMem_Calloc(rest.n_ops + 1, sizeof(fg_id))
    ids = <fg_id *>PyMem_Malloc((rest.n_numbers + 1) * sizeof(fg_id))
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
        for n in range(rest.n_ops):
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
        if again.n_places or again.n_lengths or again.n_integers or again.n_partials or again.n_numbers:
            damaged("something is left over")
        if room > MOST_NODES or pool > MOST_NODES:
            raise MemoryError(f"a saved graph of {room} nodes does not fit on the tape")
        for k in range(len(<bytes>saved[10]) // 4):
            if not 0 <= frozen[k] < numbers:
                damaged(f"it has the frozen number {frozen[k]}")
        seen = bytearray(rest.n_ops)
        for k in range(count):
            if not 0 <= members[k] < rest.n_ops or seen[members[k]]:
                damaged(f"it has the member {members[k]}")
            seen[members[k]] = 1
            made.append(None)
        if classes:
            for k_, cls in dict(classes).items():
                if type(k_) is not int or not 0 <= k_ < count or nodes[members[<Py_ssize_t>k_]] \
                        or not (isinstance(cls, type) and issubclass(cls, Value)):
                    damaged(f"expected a subclass of Value, got {describe(cls)}")
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
            for n in range(rest.n_ops):
                read_entry(&again, names, n_names, &e)
                for k in range(e.operands):
                    operands[k] = slot_of(e.places[k], &e_, ids)
                push_entry(&e, rest.data + numbers, rest.grad + numbers, ids + numbers, operands, &node)
                numbers += e.numbers
                nodes[n] = node
            for k in range(len(<bytes>saved[10]) // 4):
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


cdef dict checked_attributes(object extra):
    """A copy, which nobody else changes, of the attributes of a saved node; instances may have them from now on."""
    if type(extra) is not dict:
        damaged(f"its attributes are {describe(extra)}")
    extra = dict(extra)
    if not all([type(name) is str for name in extra]):
        damaged(f"its attributes are {describe(extra)}")
    if not isinstance(extra.get("_op", ""), str):
        damaged(f"its _op is {describe(extra['_op'])}")
    if "_backward" in extra and not callable(extra["_backward"]):
        damaged(f"its _backward is {describe(extra['_backward'])}")
    for name in tuple(extra):
        declare_attribute(name)
    return extra


cdef int attach(fg_id i, dict extra) except -1:
    """Give node i attributes, a dict that is nobody else's. Nothing but memory can fail, and then nothing has
    changed."""
    cdef fg_box *box = fg_tape_box(&tape, i)
    cdef PyObject *old
    if box == NULL:
        raise_status(FG_E_MEMORY)
    old = <PyObject *>box.extra
    Py_INCREF(<PyObject *>extra)
    box.extra = <void *>extra
    fg_tape_set_hook(&tape, i, "_backward" in extra)
    if old != NULL:
        Py_DECREF(old)
    return 0


def _restore(cls, data, grad, requires_grad=True):
    """The leaf with these numbers, as a `cls`. Raises ValueError for anything else."""
    cdef Value value
    if not (isinstance(cls, type) and issubclass(cls, Value)):
        damaged(f"expected a subclass of Value, got {describe(cls)}")
    if type(data) is not float or type(grad) is not float:
        damaged(f"expected two floats, got {describe(data)} and {describe(grad)}")
    if type(requires_grad) is not bool:
        damaged(f"expected a bool, got {describe(requires_grad)}")
    value = Value.__new__(cls)   # a leaf already. So parameters that lay in order do again
    tape.data[value.id], tape.grad[value.id] = data, grad
    if not requires_grad:
        freeze(value.id, True)
    return value


def _restore_graph(below, saved, ends, classes):
    """The graph that _Graph.__reduce__ describes; those below it are only there to be restored first. Raises
    ValueError for anything else."""
    cdef _Graph graph = _Graph.__new__(_Graph)
    graph.members = rebuild(saved, ends, classes)
    return graph


def _restore_part(cls, _Run run not None, index):
    """Number `index` of a restored run as a `cls`."""
    cdef Value value
    cdef fg_id i
    if not (isinstance(cls, type) and issubclass(cls, Value)):
        damaged(f"expected a subclass of Value, got {describe(cls)}")
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


cdef object copy_rule(object rule, dict memo):
    """A function over copies of what it is a closure over; anything else as deepcopy takes it."""
    from types import CellType, FunctionType

    if not isinstance(rule, FunctionType) or rule.__closure__ is None:
        return deepcopy(rule, memo)
    cells = []
    for cell in rule.__closure__:
        try:
            cells.append(CellType(deepcopy(cell.cell_contents, memo)))
        except ValueError:   # an empty cell
            cells.append(CellType())
    result = FunctionType(rule.__code__, rule.__globals__, rule.__name__,
                          deepcopy(rule.__defaults__, memo), tuple(cells))
    result.__kwdefaults__ = deepcopy(rule.__kwdefaults__, memo)
    return result


cdef int is_default(str name, object x) except -1:
    """Whether what the class has under that name is there to be shown by Values that have none of their own: a plain
    object, and no method, property or the like."""
    return (Py_TYPE(<PyObject *>x).tp_descr_get == NULL and Py_TYPE(<PyObject *>x).tp_descr_set == NULL
            and not (name.startswith("__") and name.endswith("__")))


cdef int declare_attribute(str name) except -1:
    """Let instances have an attribute of that name. A plain attribute that the class has under it becomes the default;
    anything else there stays as it is."""
    present = class_attribute(Value, name)
    if present is MISSING:
        if name not in ("_op", "_backward"):
            setattr(Value, name, _Attribute(name))
    elif is_default(name, present):
        setattr(Value, name, _Attribute(name, present))
    return 0
