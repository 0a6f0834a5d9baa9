# vectors.pxi: The numbers of Values and Tensors as one array, and back.
#
# What flatgrad.nn.utils builds on.
#
# Uses contexts, messages, numbers, operands, tape.

def _to_vector(parameters):
    """A new array with the numbers of Values and Tensors, one after the other, those of a Tensor row by row."""
    cdef tuple items = tuple(to_list("parameters", "Values and Tensors", parameters))
    cdef Py_ssize_t count = count_numbers("parameters", items), k = 0
    cdef double[::1] to
    cdef fg_view view
    cdef fg_id i
    import numpy
    result = numpy.empty(count)
    to = result
    for item in items:
        guard(first_slot(item), "the numbers of parameters: read")
    for item in items:   # no Python code
        if type(item) is not Tensor:
            to[k] = tape.data[(<Value>item).id]
            k += 1
            continue
        view = view_of(<Tensor>item)
        for i in range(view.rows * view.cols):
            to[k] = tape.data[slot_in(&view, i // view.cols, i % view.cols)]
            k += 1
    return result


def _from_vector(parameters, const double[::1] vector not None):
    """Set the numbers of Values and Tensors to those of an array, in the order of `_to_vector`."""
    cdef tuple items = tuple(to_list("parameters", "Values and Tensors", parameters))
    cdef Py_ssize_t count = count_numbers("parameters", items), k = 0
    cdef fg_view view
    cdef fg_id i
    if vector.shape[0] != count:
        raise ShapeError(f"vec: expected {count} number{'s' * (count != 1)}, as the parameters have, got "
                         f"{vector.shape[0]}")
    refuse_recording("parameters: set")
    for item in items:
        guard(first_slot(item), "the numbers of parameters: assigned to")
    for item in items:   # no Python code
        if type(item) is not Tensor:
            assign_data((<Value>item).id, vector[k])
            k += 1
            continue
        view = view_of(<Tensor>item)
        for i in range(view.rows * view.cols):
            assign_data(slot_in(&view, i // view.cols, i % view.cols), vector[k])
            k += 1
