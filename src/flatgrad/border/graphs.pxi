# graphs.pxi: Copies and pickles: what two Values share is shared by their copies, and a graph of any length is saved
# without recursion, whoever holds what of it.
#
# The first Value of a graph that is saved makes a _Graph: the objects of all nodes that it depends on and that
# somebody holds, or has hung something on, and through them the nodes between. The _Graph is saved once, by the memo
# that copy and pickle keep, as a few strings of bytes; each Value is saved as its place in there. While it is alive
# the Values in it know of it. It reads numbers when it is saved itself, not before. Leaves are saved by themselves,
# and so are Values of classes with ways of their own.
#
# Uses addresses, attributes, contexts, entries, handles, kept, messages, packing, python, rebuilding, tape.

cdef tuple own_state(object o):
    """(attributes of the node, attributes of the instance) of a Value, each a dict or None."""
    cdef dict own = dict(getattr(o, "__dict__", ()))
    for name in copyreg._slotnames(type(o)):
        if hasattr(o, name):
            own[name] = getattr(o, name)
    extra = extra_of(o)
    return None if extra is None else without_kept(extra), own


cdef list hung_on(list members):
    """(which member, which of its numbers or -1, attributes, attributes of the instance) where there is something. The
    number after the last is that of an instruction itself."""
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
            for k in range(<fg_id>(run.count + 1)):   # ids may move
                first = run.id - run.count
                if fg_owner_is_box(tape.owner[first + k]) and fg_owner_box(tape.owner[first + k]).extra != NULL:
                    extra = without_kept(<dict>fg_owner_box(tape.owner[first + k]).extra)
                    if extra:
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
        if not 0 <= number_ <= run.count or type(extra) is not dict:
            damaged(f"its attributes are of {describe(number_)}")
        number = number_
        extra = checked_attributes(extra)
        attach(run.id - run.count + <fg_id>number, extra)
    return 0


@cython.final
@cython.no_gc
@cython.auto_pickle(False)
cdef class _Graph:
    """Values and _Runs that are saved as one with what lies between them."""
    cdef list members
    cdef Addresses places     # of a member: its position
    cdef list addresses       # the keys in saved_in, and this graph's value there: to take them out needs no memory
    cdef object mine
    cdef Py_ssize_t pickled   # how often

    def __dealloc__(self):
        if self.addresses is not None:
            for address in self.addresses:
                if saved_in.get(address) == self.mine:
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
    guard((<fg_handle *>o).id, "a copy")
    if graph is None:
        graph = _Graph.__new__(_Graph)
        members = [o]
        packed_part(members, [], graph, None, PICKLING)
        graph.places.factor = SPREAD
        for n in range(len(members)):
            if not enter(&graph.places, <PyObject *>members[n], n):
                raise MemoryError()
        graph.members = members
        graph.mine = PyLong_FromVoidPtr(<PyObject *>graph)
        graph.addresses = [PyLong_FromVoidPtr(<PyObject *>member) for member in members]
        for address in graph.addresses:
            saved_in[address] = graph.mine
    return graph, number_of(&graph.places, <PyObject *>o)


cdef object deepcopy(x, memo):
    """copy.deepcopy. Whoever copies has imported `copy`, and nobody else has to."""
    from copy import deepcopy as copied

    return copied(x, memo)


cdef object deep_copy(object o, object memo):
    """The copy of a Value or _Run, and of all that it depends on."""
    cdef list members, ends, found
    cdef dict done = {}   # of ends: (itself, its copy), by address
    cdef Py_ssize_t n
    guard((<fg_handle *>o).id, "a copy")
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
    if fg_tape_op(&tape, (<fg_handle *>o).id) in (FG_LEAF, FG_FROZEN, FG_RUN):   # which has the number of now
        guard((<fg_handle *>o).id, "a copy")
    packed = packed_part(members, ends, None, None, COPYING)
    found = rebuild(packed, tuple(ends), classes_of(members))
    hang(found, hung_on(members))
    return found[0]


cdef object copied_value(Value self):
    """Value.__copy__."""
    cdef fg_id entry
    if has_own_ways(type(self), COPYING):
        restore, arguments, *state = self.__reduce_ex__(4)
        result = restore(*arguments)
        if state and state[0] is not None:
            result.__setstate__(state[0])
        return result
    entry = entry_of(self.id)
    if not has_parts(entry):
        return shallow_copy(self)
    _, (cls, run, index), state = self.__reduce_ex__(4)
    result = _restore_part(cls, shallow_copy(run), index)
    if state is not None:
        result.__setstate__(state)
    return result


cdef object deep_copied_value(Value self, object memo):
    """Value.__deepcopy__."""
    cdef fg_id entry
    own_ways = has_own_ways(type(self), COPYING)
    entry = entry_of(self.id)
    if not own_ways and not has_parts(entry) and not is_leaf(self.id):
        return deep_copy(self, memo)
    restore, arguments, *state = self.__reduce_ex__(4)
    result = restore(*deepcopy(arguments, memo))
    memo[id(self)] = result
    if state and state[0] is not None:
        extra, own = state[0]
        result.__setstate__((None if extra is None else deep_attributes(extra, memo), deepcopy(own, memo)))
    return result


cdef int set_state(Value self, object state) except -1:
    """Value.__setstate__."""
    if type(state) is not tuple or len(state) != 2:
        damaged(f"expected two dicts, got {describe(state)}")
    extra, own = state
    if extra is not None:
        extra = checked_attributes(extra)
    if type(own) is not dict:
        damaged(f"expected a dict of attributes, got {describe(own)}")
    own = dict(own)
    if extra is not None:
        attach(self.id, extra)
    for name, x in own.items():
        setattr(self, name, x)
    return 0


cdef object copy_rule(object rule, dict memo):
    """A function over copies of what it is a closure over; anything else as deepcopy takes it."""
    from types import CellType, FunctionType

    if not isinstance(rule, FunctionType) or rule.__closure__ is None:
        return deepcopy(rule, memo)
    cells = []
    for cell in rule.__closure__:
        try:
            contents = cell.cell_contents
        except ValueError:   # an empty cell
            cells.append(CellType())
            continue
        cells.append(CellType(deepcopy(contents, memo)))
    result = FunctionType(rule.__code__, rule.__globals__, rule.__name__,
                          deepcopy(rule.__defaults__, memo), tuple(cells))
    result.__kwdefaults__ = deepcopy(rule.__kwdefaults__, memo)
    return result


cdef dict classes_of(list members):
    """The classes of the members that are not exactly a Value, by position."""
    return {n: type(o) for n, o in enumerate(members) if type(o) is not Value and type(o) is not _Run}


def _member(_Graph graph not None, index):
    """The Value or _Run at a position of a restored graph."""
    if graph.members is None or type(index) is not int or not 0 <= index < len(graph.members):
        damaged(f"expected a position in a graph, got {describe(index)}")
    return graph.members[index]


def _restore_graph(below, saved, ends, classes):
    """The graph that _Graph.__reduce__ describes; those below it are only there to be restored first. Raises
    ValueError for anything else."""
    cdef _Graph graph = _Graph.__new__(_Graph)
    graph.members = rebuild(saved, ends, classes)
    return graph
