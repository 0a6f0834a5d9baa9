# scalars.pxi: What an instruction does, as micrograd's graph of single nodes: within scalar_graph(), and for
# subclasses.
#
# The definitions are in scalar.py; here they are given rows and columns. Values are those of the instruction, up to
# rounding.
#
# Uses custom, numbers, operands.

# The rows of ops.def that are losses of a prediction and a target.
cdef dict PAIRWISE = {fg_op_table[op].name.decode(): op for op in range(FG_OPS) if fg_op_table[op].kind == FG_LOSS}


cdef object scalar(str name):
    """The definition by operators of what an instruction does."""
    from flatgrad import scalar as definitions
    return getattr(definitions, name)


cdef object nested(object x):
    """A list of Values and numbers, or of lists of them."""
    x = unpacked(x)
    return [unpacked(row) if is_row(row) else row for row in x] if x and is_row(x[0]) else x


cdef object unpacked(object x):
    """The list of its items."""
    if isinstance(x, (list, tuple)):
        return list(plain_sequence(x))
    return x.tolist() if not isinstance(x, (Tensor, type)) and hasattr(x, "tolist") else list(x)


cdef object packed(object x):
    """A Tensor of what scalar definitions return, copied by one instruction."""
    return Tensor(x)


cdef list turned_rows(list rows):
    return [list(column) for column in zip(*rows)]


cdef object scalar_reduce(str name, object x, int along, int ndim):
    function = scalar(name)
    x = nested(x)
    if ndim == 1:
        return function(x)
    if along < 0:
        return function([item for row in x for item in row])
    return packed([function(row) for row in (turned_rows(x) if along == 0 else x)])


cdef object scalar_softmax(str name, object x, int along, int ndim):
    function = scalar(name)
    flat = is_flat_list(x)
    x = nested(x)
    if ndim == 1:
        return function(x) if flat else packed(function(x))
    if along == 1:
        return packed([function(row) for row in x])
    return packed(turned_rows([function(row) for row in turned_rows(x)]))


cdef object scalar_linear(object x, object W, object b, int activation, bint lists):
    neuron = scalar("neuron")
    function = None if activation == FG_LEAF else fg_op_table[activation].name.decode()
    x, W = nested(x), nested(W)
    bs = [None] * len(W) if b is None else nested(b)
    def outputs(row):
        return [neuron(w, row, bias, function) for w, bias in zip(W, bs)]
    if x and is_row(x[0]):
        return packed([outputs(row) for row in x])
    return outputs(x) if lists else packed(outputs(x))


cdef object scalar_pairwise(str name, object prediction, object target, str reduction, object parameter):
    cdef Py_ssize_t cols
    function = scalar(name)
    xs, ys = [flattened(x) for x in (prediction, target)]
    if len(xs) != len(ys):
        raise ShapeError(f"prediction and target: {len(xs)} and {len(ys)} elements do not fit each other")
    if parameter is None:
        losses = [function(x, y) for x, y in zip(xs, ys)]
    else:   # one Value for a number that all have in common
        parameters = [Value(x) for x in flattened(parameter)]
        losses = [function(x, y, parameters[k % len(parameters)]) for k, (x, y) in enumerate(zip(xs, ys))]
    if reduction != "none":
        return scalar(reduction)(losses)
    if not (isinstance(prediction, (list, tuple)) and is_row(prediction[0]) or getattr(prediction, "ndim", 1) == 2):
        return packed(losses)
    cols = len(losses) // len(prediction)
    return packed([losses[k:k + cols] for k in range(0, len(losses), cols)])


cdef object scalar_matmul(object left, object right, int left_ndim, int right_ndim):
    dot_ = scalar("dot")
    rows = nested(left) if left_ndim == 2 else [nested(left)]
    columns = turned_rows(nested(right)) if right_ndim == 2 else [nested(right)]
    out = [[dot_(row, column) for column in columns] for row in rows]
    if left_ndim == 1 and right_ndim == 1:
        return out[0][0]
    if left_ndim == 1:
        return packed(out[0])
    return packed(out if right_ndim == 2 else [row[0] for row in out])


cdef list flattened(object x):
    if isinstance(x, Value) or not (is_matrix(x) or is_array(x)) or getattr(x, "ndim", 1) == 0:
        return [x]
    x = nested(x)
    return [item for row in x for item in row] if x and is_row(x[0]) else x


cdef object scalar_map(int op, int32_t k, tuple xs):
    """An elementwise operation, made of scalar ones."""
    import numpy as np
    arrays = []
    for x in xs:
        values = nested(x) if is_matrix(x) else x
        array = np.empty(np_shape(values), dtype=object)
        array[...] = values
        arrays.append(array)
    broadcast = np.broadcast_arrays(*arrays)
    flat = [apply_scalars(op, k, items) for items in zip(*[a.ravel().tolist() for a in broadcast])]
    shape = broadcast[0].shape
    if shape == ():
        return flat[0]
    if len(shape) == 1:
        return packed(flat)
    return packed([flat[i * shape[1]:(i + 1) * shape[1]] for i in range(shape[0])])


cdef tuple np_shape(object values):
    if not isinstance(values, list):
        return ()
    if values and is_row(values[0]):
        return len(values), len(values[0])
    return (len(values),)


cdef object apply_scalars(int op, int32_t k, tuple items):
    if op == FG_COPY:
        return items[0]
    if op == FG_POWI:
        return items[0] ** k
    if fg_op_table[op].kind == FG_OPERATOR:
        return getattr(operator, RULE_NAMES[fg_op_table[op].id.decode()])(*items)
    name = fg_op_table[op].name.decode()
    return (scalar(name) if fg_op_table[op].kind == FG_LOSS else globals()[name])(*items)
