# custom.pxi: Nodes of operations that flatgrad does not know, and the rule of a node as an object.
#
# check_made() converts, become_made() makes room and then reads ids. A new node is appended when nothing after it can
# fail.
#
# Uses anomaly, contexts, handles, messages, numbers, python, sweeps, tape.

cdef int check_made(list children, list partials, double *values) except -1:
    """An error unless the children are Values, and the partials, if there are any, a number for each, which
    are written to `values`."""
    cdef Py_ssize_t k
    for k, child in enumerate(children):
        listen(k)
        if not isinstance(child, Value):
            raise TypeError(f"_children[{k}]: expected a Value, got {describe(child)}")
    if partials is not None:
        if len(partials) != len(children):
            raise ValueError(f"local_grads: expected {len(children)} numbers, one for each child, "
                             f"got {len(partials)}")
        for k in range(len(partials)):
            listen(k)
            values[k] = to_data(f"local_grads[{k}]", partials[k])
    return 0


cdef int become_made(Value self, double number, list children, list partials, str op) except -1:
    """Make self the handle of a new node with these operands, and of its old one no more.

    partials: the derivatives by the operands, or None if the node has no rule (of ours).
    """
    cdef fg_id count = <fg_id>len(children)
    cdef int opcode = FG_CUSTOM if partials is None else FG_LOCAL
    cdef bint fresh
    cdef Py_ssize_t k
    cdef fg_id i
    cdef fg_id *ids
    cdef fg_id *owner
    cdef double *values
    cdef fg_box *box
    cdef dict extra = {"_op": op}
    global handle_moves
    if len(children) > <fg_id>FG_MAX_ID // 4:
        raise MemoryError(f"_children: {len(children)} Values do not fit on the tape")
    scratch = bytearray((count + 1) * (sizeof(fg_id) + sizeof(double)))
    values = <double *><char *>scratch
    ids = <fg_id *>(values + count)
    check_made(children, partials, values)
    if FG_UNLIKELY(fg_no_grads != 0) and look_at_made(self, number, children):
        raise_given(number, children, op)
    reserve(1, count if partials is None else 3 * count)
    # A leaf that __new__ has just made, on top and used by none, gives its place to the new node.
    fresh = (self.id + 1 == tape.n and tape.op[self.id] == FG_LEAF and tape.owner[self.id] == &self.id
             and not tape.busy)
    for k in range(count):
        ids[k] = (<Value>children[k]).id
        fresh = fresh and ids[k] != self.id
    if fresh:
        box = fg_tape_box(&tape, self.id)
        if box == NULL:
            raise_status(FG_E_MEMORY)
        owner = tape.owner[self.id]
        tape.n -= 1
        i = fg_tape_push_pooled(&tape, opcode, ids, count, values, number)
        tape.owner[i] = owner
    else:
        i = fg_tape_push_pooled(&tape, opcode, ids, count, values, number)
        box = fg_tape_box(&tape, i)
        if box == NULL:
            fg_tape_pop(&tape)   # nobody holds the new node
            raise_status(FG_E_MEMORY)
        box.holder = &self.id
        if fg_tape_holder(&tape, self.id) == &self.id:
            fg_tape_hold(&tape, self.id, NULL)
        self.id = i
        handle_moves += 1
    Py_INCREF(<PyObject *>extra)
    box.extra = <void *>extra
    if FG_UNLIKELY(fg_no_grads != 0):
        note_node(<PyObject *>self)
    return 0


# The methods that make the nodes of rows without a public function.
cdef dict RULE_NAMES = {"ADD": "__add__", "SUB": "__sub__", "MUL": "__mul__", "DIV": "__truediv__", "NEG": "__neg__",
                        "POW": "__pow__", "POWI": "__pow__", "POWC": "__pow__", "LOCAL": "__init__"}


@cython.final
@cython.auto_pickle(False)
cdef class _Rule:
    """The `_backward` of a node that has not been given one: the rule of its operation."""
    cdef Value node

    def __cinit__(self, Value node not None):   # not __init__, which __new__ alone would leave out
        self.node = node

    def __reduce__(self):
        return _Rule, (self.node,)

    @property
    def __name__(self):
        """As the function has it that micrograd would have made."""
        return self.__qualname__.rpartition(".")[2]

    @property
    def __qualname__(self):
        cdef int op = fg_tape_op(&tape, self.node.id)
        cdef str name
        if fg_op_is_leaf(op) or op == FG_CUSTOM:
            return "Value.__init__.<locals>.<lambda>"
        if is_result(op):
            return f"{block_symbol(block_of(self.node.id))}.<locals>._backward"
        name = fg_op_table[op].name.decode() if fg_op_is_public(op) else (
            RULE_NAMES.get(fg_op_table[op].id.decode(), fg_op_table[op].name.decode()))
        return f"{'Value.' if hasattr(Value, name) else ''}{name}.<locals>._backward"

    @property
    def __signature__(self):
        from inspect import Signature
        return Signature()

    def __call__(self):
        cdef size_t done = 0
        if FG_UNLIKELY(recordings != 0):
            refuse_recording("_backward()")
        if run_callback_of(self.node.id):
            return
        while fg_sweep_apply(&tape, self.node.id, &done) < 0:   # it was interrupted
            PyErr_CheckSignals()
