# arrays.pxi: What a Tensor says when NumPy asks.
#
# NumPy asks in three ways. A ufunc asks `__array_ufunc__`; the rows of ops.def are found here, at once, as `array *
# tensor` goes this way. Other functions ask `__array_function__`. Both are answered in array_functions.py. What does
# not know Tensors asks `__array__` for numbers, which would leave the graph without a word: only a constant Tensor
# gives them.
#
# Uses contexts, elementwise, numbers, products, tape, views.

cdef object functions_module = None      # array_functions.py
cdef object data_class = None, grad_class = None
cdef dict known_ufuncs = None


cdef object array_functions():
    global functions_module
    if functions_module is None:
        from flatgrad import array_functions as functions_module
    return functions_module


cdef object array_class(bint data):
    """The class of the array that Tensor.data, or Tensor.grad, gives."""
    global data_class, grad_class
    if grad_class is None:
        from flatgrad import read_only
        data_class, grad_class = read_only.Data, read_only.Grad
    return data_class if data else grad_class


cdef object no_array(str what):
    """The TypeError for a use of a Tensor that its gradient would not survive."""
    return ArgumentTypeError(f"{what} a Tensor that requires a gradient: the gradient would be lost. Take its .data or "
                             ".numpy() for the numbers, or its .detach() for a constant Tensor")


# ---- ufuncs ----

cdef dict ufunc_rows():
    """For each ufunc that a row of ops.def means: (operands, opcode). The products of matrices are those of layers."""
    global known_ufuncs
    if known_ufuncs is None:
        import numpy
        numpy_is_there()
        known_ufuncs = {getattr(numpy, name): (fg_op_table[op].arity, op) for op in range(FG_OPS)
                        for name in fg_op_table[op].ufuncs.decode().split()}
        known_ufuncs[numpy.matmul] = (2, FG_LAYER)
    return known_ufuncs


cdef object apply_ufunc(tuple row, tuple inputs):
    if row[1] == FG_LAYER:
        return matmul_(inputs[0], inputs[1])
    if row[0] == 2:
        return tensor_binary(row[1], inputs[0], inputs[1])
    return map_tensors(row[1], 0, inputs, ())


def _operator(str symbol not None, left, right):
    """left symbol right, at least one a Tensor: for array_functions.py, as NumPy would ask it again."""
    if symbol == "@":
        return matmul_(left, right)
    return tensor_binary({"/": FG_DIV, "*": FG_MUL}[symbol], left, right)


# ---- comparisons ----

cdef object numbers_in(object x, int depth=0):
    """The numbers of an operand, or an array of them; NotImplemented if it has none."""
    if isinstance(x, Tensor):
        return to_numpy(<Tensor>x, True)
    if isinstance(x, Value):
        guard((<Value>x).id, "the number of a Value: read")
        return tape.data[(<Value>x).id]
    if isinstance(x, (list, tuple)):
        if depth == 2:   # what has more dimensions is no operand, and a list may be in itself
            return NotImplemented
        parts = [numbers_in(part, depth + 1) for part in plain_sequence(x)]
        return NotImplemented if any([part is NotImplemented for part in parts]) else np_asarray(parts)
    if isinstance(x, (np_array, np_generic)):
        if is_other_array(x):
            refuse_masked("operand", x)
        if x.dtype == object:   # without dimensions it gives the object, which may be the array
            inner = x.tolist()
            return numbers_in(inner, depth) if x.ndim > 0 or isinstance(inner, (Value, float, int)) else NotImplemented
        return x if x.dtype.kind in "biufc" else NotImplemented
    if isinstance(x, (float, int)) or is_number(x):
        return x
    return numbers_in(np_asarray(x), depth) if has_array(x) else NotImplemented


cdef object compared(str name, Tensor left, object right):
    """What NumPy's comparison of that name says of the numbers, an array of bool; NotImplemented if the right operand
    has none."""
    if np is None:
        import numpy  # noqa: F401
        numpy_is_there()
    numbers, right = numbers_in(left), numbers_in(right)
    if right is NotImplemented:
        return NotImplemented
    try:
        return getattr(np, name)(numbers, right)
    except ValueError:
        raise ShapeError(f"{name}: shapes {left.shape} and {np.shape(right)} do not fit each other") from None
