# tracing.pxi: Numbers that must not leave the graph: those that a transform, such as flatgrad.grad, differentiates by,
# and those that a program is recorded from; and whether a gradient flows at all.
#
# Plain Python asks for a float without a word, and a gradient is lost there; so these are not given as one. While a
# program is recorded, no number is given that depends on what the program will be called with.
#
# Uses contexts, draws, handles, messages, numbers, operands, python, tape.

cdef Py_ssize_t tracings = 0   # transforms under way, in all threads: while there are none, float(v) costs no more
cdef list traced = []          # of each of them, the tuple of its leaves


class tracing:
    """A context in which `float` and its like refuse what is computed from some leaves.

    Parameters
    ----------
    leaves : iterable of Value and Tensor
        Tensors have to be whole leaves.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad._core import tracing
    >>> x, w = Value(2.0), Value(3.0)
    >>> with tracing([x]):
    ...     float(w), (x * w).data
    (3.0, 6.0)
    """

    def __init__(self, leaves):
        self.leaves = tuple(to_list("leaves", "Values and Tensors", leaves))
        count_numbers("leaves", self.leaves)

    def __enter__(self):
        global tracings
        traced.append(self.leaves)
        tracings += 1
        return self

    def __exit__(self, *exception):
        global tracings
        cdef Py_ssize_t k
        for k in range(len(traced) - 1, -1, -1):
            if traced[k] is self.leaves:
                del traced[k]
                tracings -= 1
                break


cdef inline fg_id first_leaf(object leaf, fg_id *count) noexcept:
    """The first slot of a Value or a Tensor, and how many there are."""
    if type(leaf) is Tensor:
        count[0] = (<Tensor>leaf).rows * (<Tensor>leaf).cols
        return first_slot(leaf)
    count[0] = 1
    return (<Value>leaf).id


# ---- recording programs ----

@cython.no_gc_clear   # until its end it can take itself out of its block
cdef class _Recorder:
    """A context in which operations are recorded, to become a program, and what they depend on is not read."""
    cdef tuple inputs        # leaves that the program will be called with
    cdef Value floor         # a leaf: nodes below it were there before, and are captured
    cdef list blocks
    cdef double seconds      # how long it took
    cdef list signs          # ids of inputs, as handles, that have to be -1 or 1
    cdef readonly list watched   # (object, attribute): what else the function has read, which may change
    cdef readonly str refused    # what the last error of refuse_recorded() said; None if there was none
    cdef readonly list buffers   # (object, attribute) of arrays that are further inputs
    cdef readonly _Draws draws   # what it draws at random at each call, or None
    cdef list drawn          # leaves, one for each array of `draws`: further inputs, before those of buffers
    cdef dict aside          # generators of the recording's own
    cdef _Recorder outer     # the one that it was entered within, or None
    cdef bint single         # the program's numbers will be floats of 32 bits
    cdef Py_ssize_t entered

    def __cinit__(self, *args):
        self.blocks, self.signs, self.watched, self.buffers, self.drawn = [], [], [], [], []
        self.aside = {}

    def __dealloc__(self):
        global recordings
        if self.blocks is not None:
            for block in self.blocks:
                (<_Block>block).recorder = NULL
                close_block(<_Block>block)
        recordings -= self.entered

    def __enter__(self):
        global recordings
        cdef PyObject *outer
        if self.floor is not None:
            raise RuntimeError("a recording cannot be entered twice")
        self.floor = Value(0.0)
        outer = current_recorder()
        self.outer = None if outer == NULL else <_Recorder>outer
        enter_block(gradient_block, RECORDING, self.blocks)
        (<_Block>self.blocks[0]).recorder = <PyObject *>self
        self.entered = 1
        recordings += 1
        self.seconds = -perf_counter()
        return self

    def __exit__(self, *exception):
        global recordings
        self.seconds += perf_counter()
        if self.blocks:
            (<_Block>self.blocks[0]).recorder = NULL
        leave_block(gradient_block, self.blocks)
        recordings -= self.entered
        self.entered = 0


cdef int depends_on_captured(fg_id i, fg_id floor, list drawn) except -1:
    """Whether node i is below the floor or one of the leaves `drawn`, or computed from one. No Python code, and no use
    of the tape's marks."""
    cdef fg_id k, v, w, row, col, slot, first, count = 0, words, last = 0
    cdef uint64_t *marks
    cdef uint64_t *leaves
    cdef bint found = False
    cdef fg_operands o
    if i < floor:
        return True
    for leaf in drawn:
        first = first_leaf(leaf, &count)
        if first <= i < first + count:
            return True
    if is_result(fg_tape_op(&tape, i)):
        i = block_of(i)
    words = ((i - floor) >> 6) + 1
    marks = <uint64_t *>PyMem_Calloc(2 * <size_t>words, sizeof(uint64_t))
    if marks == NULL:
        raise MemoryError()
    leaves = marks + words
    for leaf in drawn:
        first = first_leaf(leaf, &count)
        for k in range(first, first + count):
            if k <= i:
                mark_from(leaves, floor, k)
    mark_from(marks, floor, i)
    for w in range((i - floor) >> 6, -1, -1):
        while marks[w] and not found:
            k = (w << 6) + fg_bits_top(marks[w])
            marks[w] ^= <uint64_t>1 << (k & 63)
            k = block_of(floor + k)
            if k == last:   # the results of one instruction follow each other
                continue
            last = k
            fg_tape_views(&tape, k, &o)
            for v in range(o.count):
                for row in range(o.view[v].rows):
                    for col in range(o.view[v].cols):
                        slot = fg_view_slot(o.words, &o.view[v], row, col)
                        found = found or slot < floor or leaves[(slot - floor) >> 6] >> ((slot - floor) & 63) & 1
                        mark_from(marks, floor, slot)
        if found:
            break
    PyMem_Free(marks)
    return found


cdef bint is_recorded(fg_id i) except -1:
    """Whether a program is recorded in this context, and node i depends on what that will be called with."""
    cdef PyObject *recorder = current_recorder()
    return recorder != NULL and depends_on_captured(i, (<_Recorder>recorder).floor.id, (<_Recorder>recorder).drawn)


cdef int refuse_recorded(fg_id i, object what) except -1:
    """An error for what would make a constant of a number that is another at each call of a program. guard() calls it
    while there are recordings."""
    cdef PyObject *recorder
    cdef _Recorder around
    if watches != 0:
        watched_read(i, what)
    if is_recorded(i):
        recorder = current_recorder()
        message = (
            f"{what} while a compiled function is recorded: that number is another at each call, and the program would "
            "keep the first. Write flatgrad.where, flatgrad.maximum or flatgrad.take in place of a decision by "
            "numbers, give what decides as a static argument, or take it out of the compiled function")
        around = None if recorder == NULL else <_Recorder>recorder
        while around is not None:
            around.refused = message
            around = around.outer
        raise ArgumentTypeError(message)
    return 0


fg_refuse_recorded = refuse_recorded


cdef int refuse_same(Value x, object other) except -1:
    """An error for ``x == other`` where both have numbers: it would be decided by which objects a recording makes."""
    if recordings != 0 and x is not other and hasattr(other, "__float__"):
        what = "== or != (of Values they go by identity; `is` does so as well)"
        refuse_recorded(x.id, what)
        if isinstance(other, Value):
            refuse_recorded((<Value>other).id, what)
    return 0


cdef int refuse_stand_in(fg_id i, object name) except -1:
    """An error for an attribute of an argument that is not its number: it has been made for the recording."""
    cdef PyObject *recorder
    cdef fg_id first, count = 0
    if recordings == 0:
        return 0
    recorder = current_recorder()
    if recorder == NULL:
        return 0
    for leaf in (<_Recorder>recorder).inputs:
        first = first_leaf(leaf, &count)
        if first <= i < first + count:
            raise ArgumentTypeError(
                f"{name} of an argument: read while a compiled function is recorded, in which a new leaf stands for "
                "the argument. Read it outside of the compiled function, and give it as a static argument")
    return 0


fg_refuse_stand_in = refuse_stand_in


cdef int note_read(object x, str name) except -1:
    """While a program is recorded in this context: that attribute has been read, and decides which program it is."""
    cdef PyObject *recorder = current_recorder()
    if recorder != NULL:
        for other, known in (<_Recorder>recorder).watched:
            if other is x and known == name:
                return 0
        (<_Recorder>recorder).watched.append((x, name))
    return 0


cdef int note_captured(object x, fg_id i, str name) except -1:
    """note_read() of a leaf that was there before the recording."""
    cdef PyObject *recorder = NULL if recordings == 0 else current_recorder()
    if recorder != NULL and i < (<_Recorder>recorder).floor.id and fg_op_is_leaf(fg_tape_op(&tape, i)):
        note_read(x, name)
    return 0


def _note_read(x, str name not None):
    """For our modules: if a program is recorded in this context, it is one for the present value of ``x.name``."""
    note_read(x, name)


def _buffer_input(x, str name not None, make):
    """For our modules: while a program is recorded in this context, the leaf that stands for the array ``x.name``,
    which the program is called with; None otherwise.

    Parameters
    ----------
    x : object
    name : str
    make : callable
        Makes that leaf, at the first time.
    """
    cdef PyObject *found = current_recorder()
    cdef _Recorder recorder
    if found == NULL:
        return None
    recorder = <_Recorder>found
    for k, (other, known) in enumerate(recorder.buffers):
        if other is x and known == name:
            return recorder.inputs[len(recorder.inputs) - len(recorder.buffers) + k]
    leaf = make()
    recorder.inputs += (leaf,)
    recorder.buffers.append((x, name))
    return leaf


def _draw(_Draws draws not None, make):
    """For our modules: numbers drawn at random. While a program is recorded in this context they are drawn at each of
    its calls.

    Parameters
    ----------
    draws : _Draws
    make : callable
        Makes the leaf that stands for a number, or an array, in a recording.

    Returns
    -------
    list
        Of numbers and arrays; while a program is recorded, of leaves.
    """
    cdef PyObject *found = current_recorder() if recordings != 0 else NULL
    cdef _Recorder recorder
    if found == NULL:
        return draws.draw()
    recorder = <_Recorder>found
    leaves = [make(x) for x in draws.draw(recorder.aside)]
    if recorder.draws is None:
        recorder.draws = _Draws()
    recorder.draws.extend(draws)
    recorder.drawn += leaves
    return leaves


cdef inline int guard_number(fg_id i, str call) except -1:
    """guard(), and an error for what would take a traced number out of the graph."""
    if tracings:
        refuse_traced(i, call)
    return guard(i, call)


cdef inline object compared_number(fg_id i, object other):
    """What the number of node i is compared with."""
    if FG_UNLIKELY(recordings != 0):
        refuse_recorded(i, "a comparison")
        if isinstance(other, Value):
            refuse_recorded((<Value>other).id, "a comparison")
    return comparable(other)


# ---- walking down the graph ----

cdef inline void mark_from(uint64_t *marks, fg_id base, fg_id i) noexcept:
    """Mark node i, unless it is older than every leaf: nothing such is computed from one."""
    if i >= base:
        marks[(i - base) >> 6] |= <uint64_t>1 << ((i - base) & 63)


cdef bint mark_operands(uint64_t *marks, fg_id base, fg_id i, fg_id *last) noexcept:
    """Mark the operands of node i that gradients flow to; *last: the block instruction whose were marked last.
    With base 0, it is enough to find a leaf among them that is not frozen: then 1, and not all are marked."""
    cdef fg_id v, row, col, slot
    cdef fg_operands o
    cdef fg_view *view
    if is_result(fg_tape_op(&tape, i)):
        i = block_of(i)
        if i == last[0]:   # the results of one instruction follow each other
            return False
        last[0] = i
    fg_tape_views(&tape, i, &o)
    for v in range(o.count):
        view = &o.view[v]
        if view.flags & FG_VIEW_CONSTANT:
            continue
        for row in range(view.rows):
            for col in range(view.cols):
                slot = fg_view_slot(o.words, view, row, col)
                if base == 0 and fg_tape_op(&tape, slot) == FG_LEAF:
                    return True
                mark_from(marks, base, slot)
    return False


cdef int is_traced(fg_id i) except -1:
    """Whether node i is computed from a leaf of a transform under way, or is one. Of the results of one
    instruction all are, if one is. No Python code, and no use of the tape's marks: a sweep may be under way."""
    cdef fg_id base = FG_MAX_ID, count = 0, first, k, w, words, last = 0
    cdef uint64_t *marks
    cdef uint64_t *leaves
    cdef bint found = False
    for several in traced:
        for leaf in <tuple>several:
            first = first_leaf(leaf, &count)
            base = first if first < base else base
    if i < base:
        return False
    words = ((i - base) >> 6) + 1
    marks = <uint64_t *>PyMem_Calloc(2 * <size_t>words, sizeof(uint64_t))
    if marks == NULL:
        raise MemoryError()
    leaves = marks + words
    for several in traced:
        for leaf in <tuple>several:
            first = first_leaf(leaf, &count)
            for k in range(first, first + count):
                if k <= i:
                    mark_from(leaves, base, k)
    mark_from(marks, base, i)
    for w in range(words - 1, -1, -1):   # operands have lower ids, so the highest mark comes first
        while marks[w] and not found:
            if marks[w] & leaves[w]:
                found = True
                break
            k = (w << 6) + fg_bits_top(marks[w])
            marks[w] ^= <uint64_t>1 << (k & 63)
            mark_operands(marks, base, base + k, &last)
        if found:
            break
    PyMem_Free(marks)
    return found


cdef int refuse_traced(fg_id i, str call) except -1:
    """An error for what would take a traced number out of the graph."""
    if is_traced(i):
        raise ArgumentTypeError(
            f"{call} of a Value that a transform (grad, jacobian, ...) differentiates by, or that is computed from "
            f"one: the result would be a constant, and its gradient lost. Write flatgrad.sin(v) or v.sin() in place "
            f"of math.sin(v), and v.data where a constant is meant")
    return 0


cdef int takes_gradient(fg_id i) except -1:
    """Whether a leaf that may take a gradient, or a node with a rule of a user's, is reached from node i, which is no
    leaf. A constant of scalar operations, such as the 2 of x * 2, is such a leaf. No Python code."""
    cdef fg_id w, words = (i >> 6) + 1, last = 0, k
    cdef uint64_t *marks
    cdef int op
    cdef bint found = False
    marks = <uint64_t *>PyMem_Calloc(words, sizeof(uint64_t))
    if marks == NULL:
        raise MemoryError()
    mark_from(marks, 0, i)
    for w in range(words - 1, -1, -1):
        while marks[w] and not found:
            k = (w << 6) + fg_bits_top(marks[w])
            marks[w] ^= <uint64_t>1 << (k & 63)
            op = fg_tape_op(&tape, k)
            found = ((op == FG_CUSTOM or op == FG_LOCAL) and tape.args[k].b == 0
                     or tape.op[k] & FG_HOOK or (op == FG_PART and tape.op[k + tape.args[k].a] & FG_HOOK)
                     or mark_operands(marks, 0, k, &last))
        if found:
            break
    PyMem_Free(marks)
    return found


cdef int refuse_constant(fg_id i) except -1:
    """An error if no gradient can flow from node i. Until a leaf is frozen, only an instruction can tell."""
    cdef int op = fg_tape_op(&tape, i)
    cdef fg_id block, v
    cdef fg_record *r
    cdef bint flows = True
    if op == FG_FROZEN:
        flows = False
    elif not frozen_ever:
        if is_result(op) and not tape.op[i] & FG_HOOK:
            block = block_of(i)
            r = fg_tape_record(&tape, block)
            flows = tape.op[block] & FG_HOOK != 0
            for v in range(r.views):
                flows = flows or not fg_record_view(r, v).flags & FG_VIEW_CONSTANT
    elif op != FG_LEAF:
        flows = takes_gradient(i)
    if not flows:
        raise_constant()
    return 0


cdef int raise_constant() except -1:
    raise RuntimeError("backward(): no gradient flows from here: it is a constant, or computed from constants and from "
                       "leaves whose requires_grad is False alone")
