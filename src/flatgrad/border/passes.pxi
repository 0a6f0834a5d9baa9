# passes.pxi: For the classes of programs whose `backward` does more: what a backward pass reaches, and what it left
# there.
#
# Uses handles, python, tape.

cdef fg_id *reached_from(Value output, fg_id *count) except NULL:
    """The nodes that a backward pass reaches, from the output down, and how many; to be freed. No Python code."""
    cdef size_t words = (<size_t>tape.n + 63) // 64
    cdef fg_id slot = output.id, k, n, found = 0
    cdef int hooked = 0
    cdef uint64_t mask
    cdef fg_id *ids = <fg_id *>PyMem_Malloc((<size_t>tape.n + words) * sizeof(fg_id))
    cdef uint64_t *masks = <uint64_t *>PyMem_Malloc(words * sizeof(uint64_t))
    if ids == NULL or masks == NULL:
        PyMem_Free(ids)
        PyMem_Free(masks)
        raise MemoryError()
    n = fg_sweep_reach(&tape, &slot, 1, FG_ALL, ids + tape.n, masks, &hooked)
    for k in range(n):
        mask = masks[k]
        while mask:
            ids[found] = ids[tape.n + k] * 64 + <fg_id>fg_bits_low(mask)
            found += 1
            mask &= mask - 1
    PyMem_Free(masks)
    count[0] = found
    return ids


def _clear_gradients(Value output not None, leaves=True):
    """Set the gradients of all nodes that a backward pass from `output` reaches to 0, its own as well.

    leaves: also those of leaves.
    """
    cdef bint of_leaves = leaves
    cdef fg_id count = 0, k, i, block
    cdef fg_id *ids = reached_from(output, &count)
    cdef int op
    for k in range(count):
        i = ids[k]
        op = fg_tape_op(&tape, i)
        if of_leaves or not fg_op_is_leaf(op):
            fg_tape_gradient(&tape, i)[0] = 0.0
        if is_result(op):   # one of its results stands for all
            block = block_of(i)
            i = block
            while fg_tape_op(&tape, i - 1) == FG_PART and block_of(i - 1) == block:   # node 0 is no part
                i -= 1
                tape.grad[i] = 0.0
    PyMem_Free(ids)


def _sign_zeros(Value output not None):
    """Make the gradients of 0 that a backward pass from `output` reaches -0.0: so they differ from those that no pass
    has reached."""
    cdef fg_id count = 0, k, i
    cdef fg_id *ids = reached_from(output, &count)
    for k in range(count):
        i = ids[k]
        if tape.grad[i] == 0.0:
            tape.grad[i] = -0.0
    PyMem_Free(ids)


def _changed_since(Value output not None):
    """Whether an operand of an operation that a backward pass from `output` reaches has other data than when that was
    done: what the operation gives now is not what it gave."""
    cdef fg_id count = 0, k, i, n
    cdef fg_id *ids = reached_from(output, &count)
    cdef int op, status
    cdef double z = 0.0
    cdef const fg_id *operands
    cdef bint found = False
    for k in range(count):
        i = ids[k]
        op = fg_tape_op(&tape, i)
        if not FG_LEAF < op < FG_CUSTOM:
            continue
        operands = fg_tape_operands(&tape, i, &n)
        if fg_op_table[op].arity == 1:
            status = fg_op_unary(op, tape.data[operands[0]], <int32_t>tape.args[i].b, &z)
        elif fg_op_table[op].arity == 2:
            status = fg_op_binary(op, tape.data[operands[0]], tape.data[operands[1]], &z)
        else:
            status = fg_op_ternary(op, tape.data[operands[0]], tape.data[operands[1]], tape.data[operands[2]], &z)
        found = status < 0 or not (z == tape.data[i] or (z != z and tape.data[i] != tape.data[i]))
        if found:
            break
    PyMem_Free(ids)
    return found


def _second_pass(Value output not None):
    """Whether a backward pass from `output` would meet a node of `-`, `/` or a negation, below it, that has a gradient
    already: where several nodes stand for one of these, they would compound it."""
    cdef fg_id count = 0, k, i
    cdef fg_id *ids = reached_from(output, &count)
    cdef int op
    cdef bint found = False
    for k in range(count):
        i = ids[k]
        op = fg_tape_op(&tape, i)
        found = (op == FG_SUB or op == FG_DIV or op == FG_NEG) and tape.grad[i] != 0.0
        if found:
            break
    PyMem_Free(ids)
    return found
