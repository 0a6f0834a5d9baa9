# scalars.pxi: What an instruction does, as micrograd's graph of single nodes: within scalar_graph().
#
# The definitions are in scalar.py; here its operands are given as rows of Values and floats. Values are those of the
# instruction, up to rounding.
#
# Uses operands, views.

# The rows of ops.def that are losses of a prediction and a target.
cdef dict PAIRWISE = {fg_op_table[op].name.decode(): op for op in range(FG_OPS) if fg_op_table[op].kind == FG_LOSS}


cdef list rows_in(const Operand *a):
    """The elements of an operand as Values and floats, a list for each row."""
    cdef fg_id i, j
    cdef list rows
    if a.kind == TENSOR:
        rows = [[element(<Tensor>a.o, i, j) for j in range(a.cols)] for i in range(a.rows)]
    elif a.kind == ARRAY:
        rows = [[a.array[<size_t>i * a.cols + j] for j in range(a.cols)] for i in range(a.rows)]
    elif a.kind == ROWS:
        rows = [[item for item in row] for row in <list>a.o]
    elif a.kind == LIST:
        rows = [[item for item in <object>a.o]]
    else:
        rows = [[a.number if a.kind == NUMBER else <object>a.o]]
    if len(rows) != <Py_ssize_t>a.rows or any([len(row) != <Py_ssize_t>a.cols for row in rows]):
        raise RuntimeError("a list changed while it was read")
    return [list(column) for column in zip(*rows)] if a.turned else rows


cdef list scalar_rows(int op, fg_id param, int32_t k, const Operand *operands, fg_id count, fg_id rows, fg_id cols,
                      const int64_t *labels, fg_id label_count):
    """The results of an instruction, a list of Values for each row."""
    cdef fg_id v
    from flatgrad import scalar
    return scalar.instruction(fg_op_table[op].name.decode(), [rows_in(&operands[v]) for v in range(count)], rows, cols,
                              None if param == FG_LEAF else fg_op_table[param].name.decode(), k,
                              [labels[v] for v in range(label_count)])
