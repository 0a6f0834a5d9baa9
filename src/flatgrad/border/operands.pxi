# operands.pxi: What users pass to instructions, as Operands: numbers, Values, Tensors, arrays, and lists of these.
#
# An instruction is made in four steps, for the sake of the three rules. Every operand is looked at and what can run
# Python code is converted (take). Room is made for all of it. The operands' ids are written into the pool and
# constants onto the tape, which runs no Python code (fill). Then the core computes and appends. The first and the
# third are here, the others in instructions.pxi. A list that has changed between take and fill is refused unread.
#
# Uses handles, messages, numbers, python, tape.

cdef enum:
    TENSOR, VALUE, NUMBER, LIST, ROWS, ARRAY, PICK, JOIN


cdef struct Operand:
    int kind
    PyObject *o            # TENSOR, VALUE, LIST, ROWS: the object; whoever calls take() keeps it alive. JOIN: a
                           # list of Tensors that nobody else has
    fg_id rows, cols
    int ndim               # 0, 1 or 2; one dimension is a row
    bint flat              # a list of elements: it makes a list of a result of one dimension
    bint exact             # its Values are of no subclass
    bint turned            # the operand is the transpose of what it says here
    bint lost              # a derivative as a number is in it; take() alone tells
    double number          # NUMBER
    const double *array    # ARRAY: rows * cols numbers, row by row
    const int64_t *pick    # PICK: which elements of the Tensor, counted row by row. JOIN: for each element which
                           # Tensor, times 2**32, and which of its elements


cdef bint is_row(object x):
    if type(x) is Value or type(x) is float:
        return False
    return isinstance(x, (list, tuple, Tensor)) or (is_ndarray(x) and x.ndim > 0)


cdef tuple checked_elements(str name, object x, bint *numbers, bint *exact, bint *lost):
    """A row as a list or tuple of Values and floats, and its length. numbers: no Value is in it; exact: none
    of a subclass; lost: a derivative of lost.py is."""
    cdef Py_ssize_t k, count
    cdef bint plain = True
    cdef PyObject **items
    if not isinstance(x, (list, tuple)):
        lost[0] = lost[0] or is_lost(x)
        x = x.tolist() if is_ndarray(x) else x
    x = plain_sequence(x)
    count = PySequence_Fast_GET_SIZE(x)
    items = PySequence_Fast_ITEMS(x)
    numbers[0] = True
    for k in range(count):
        if Py_TYPE(items[k]) == <PyTypeObject *>Value:
            numbers[0] = False
        elif Py_TYPE(items[k]) == &PyFloat_Type:
            pass
        elif is_value(items[k]):
            numbers[0] = exact[0] = False
        elif not is_float(items[k]):
            plain = False
        elif is_lost(<object>items[k]):
            lost[0] = True
    if plain:
        return x, count
    numbers[0] = True
    row = []
    for k, item in enumerate(list(x)):
        listen(k)
        if isinstance(item, Value):
            numbers[0] = False
            row.append(item)
        else:
            lost[0] = lost[0] or is_lost(item)
            row.append(float(to_data(f"{name}[{k}]", item)))
    return row, len(row)


cdef bint take_plain(object x, Operand *a) noexcept:
    """Look at an operand that is most often seen and needs no conversion: a Value, a Tensor, a flat list of
    Values and floats. No Python code; 0 for any other."""
    cdef Py_ssize_t k, count
    cdef PyObject **items
    cdef PyTypeObject *value = <PyTypeObject *>Value
    cdef bint numbers = True
    a.turned = False
    a.exact = True
    a.o = <PyObject *>x
    a.ndim = 0
    a.flat = False
    a.rows = a.cols = 1
    if type(x) is Value:
        a.kind = VALUE
        return True
    if type(x) is Tensor:
        a.kind = TENSOR   # once made it keeps its numbers and its shape
        a.rows, a.cols, a.ndim = (<Tensor>x).rows, (<Tensor>x).cols, (<Tensor>x).ndim
        return a.rows > 0
    if type(x) is not list and type(x) is not tuple:
        return False
    count = PySequence_Fast_GET_SIZE(x)
    if count >= MOST_NODES:
        return False
    items = PySequence_Fast_ITEMS(x)
    for k in range(count):
        if Py_TYPE(items[k]) == value:
            numbers = False
        elif Py_TYPE(items[k]) != &PyFloat_Type:
            return False
    a.kind = LIST
    a.flat = True
    a.cols, a.ndim = <fg_id>count, 1
    return not numbers   # numbers alone are an array


cdef int take(str name, object x, Operand *a, list keep) except -1:
    """Look at an operand and convert it as far as that can run Python code. `keep` keeps alive what *a
    points to, until the instruction has been made, but for x."""
    if take_plain(x, a) or np is not None and type(x) is np_array and take_doubles(x, a, keep):
        return 0
    a.lost = is_lost(x)
    take_converted(name, x, a, keep)
    if a.lost:
        raise_lost(name, repr(x))
    return 0


cdef int take_converted(str name, object x, Operand *a, list keep) except -1:
    """Any operand, with a.lost as it was or True."""
    cdef double number = 0.0
    cdef bint numbers = False
    cdef Py_ssize_t count
    if take_plain(x, a) or np is not None and type(x) is np_array and take_doubles(x, a, keep):
        return 0
    if is_other_array(x):
        refuse_masked(name, x)
    a.o = NULL
    a.ndim = 0
    a.flat = False
    a.rows = a.cols = 1
    if isinstance(x, Value):
        a.kind = VALUE
        a.exact = False
        a.o = <PyObject *>x
        return 0
    if type(x) is Tensor:
        raise TypeError(f"{name}: expected a Tensor with numbers, got one that __init__ has not made")
    if isinstance(x, (list, tuple)):
        x = plain_sequence(x)
        if len(x) > 0 and is_row(x[0]):
            return take_rows(name, x, a, keep)
        elements, count = checked_elements(name, x, &numbers, &a.exact, &a.lost)
        if count >= MOST_NODES:
            raise MemoryError(f"{name}: {count} elements do not fit on the tape")
        a.rows, a.cols, a.ndim, a.flat = 1, <fg_id>count, 1, True
        if numbers:
            return take_floats(name, elements, count, a, keep)
        a.kind = LIST
        a.o = <PyObject *>elements
        keep.append(elements)
        return 0
    try:
        if to_double(x, &number):
            a.kind = NUMBER
            a.number = number
            return 0
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if has_array(x):
        try:
            array = np_asarray(x)
            if array.dtype != object:
                return take_array(name, array, a, keep)
            keep.append(array.tolist())
            if array.ndim > 0 or not has_array(keep[-1]):   # else it may have made an array of itself
                take_converted(name, keep[-1], a, keep)
                a.flat = False
                return 0
        except TypeError:
            check_columns(name, x)   # of a table: the columns' names
            raise
    if isinstance(x, (str, bytes, bytearray, dict, set, frozenset, type)) or has_array(x) or not hasattr(x, "__iter__"):
        raise TypeError(f"{name}: expected a Value, a number, a Tensor, an array or a list of them, got "
                        f"{describe(x)}")
    keep.append(list(x))
    return take_converted(name, keep[-1], a, keep)


cdef object array_of_rows(object rows, Py_ssize_t width):
    """np.asarray of a list of numbers, or of rows of so many, by parts: in between, Ctrl-C is heard."""
    cdef Py_ssize_t step = (1 << 16) // (width if width > 0 else 1) + 1, k
    cdef list parts = []
    if len(rows) <= step:
        return np_asarray(rows)
    for k in range(0, len(rows), step):
        PyErr_CheckSignals()
        parts.append(np_asarray(rows[k:k + step]))
    return np.concatenate(parts)


cdef bint take_doubles(object array, Operand *a, list keep) except -1:
    """Look at an array of NumPy's own class that is as instructions read it: of one or two dimensions, its numbers
    in order. 0 for any other."""
    cdef Py_buffer buffer
    cdef bint found
    if PyObject_GetBuffer_(array, &buffer, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) < 0:
        PyErr_Clear()
        return False
    found = (0 < buffer.ndim <= 2 and 0 < buffer.len < MOST_NODES * <Py_ssize_t>sizeof(double)
             and buffer.format[0] == b"d" and buffer.format[1] == 0)
    if found:
        a.kind, a.o, a.array, a.ndim = ARRAY, NULL, <const double *>buffer.buf, buffer.ndim
        a.rows = <fg_id>buffer.shape[0] if buffer.ndim == 2 else 1
        a.cols = <fg_id>buffer.shape[buffer.ndim - 1]
    PyBuffer_Release(&buffer)
    if found:
        keep.append(array)
    return found


cdef int take_array(str name, object array, Operand *a, list keep) except -1:
    """An array of numbers."""
    cdef const double[::1] flat
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected real numbers, got an array of dtype {array.dtype}")
    if array.ndim > 2:
        raise ShapeError(f"{name}: expected at most 2 dimensions, got shape {array.shape}")
    if array.size >= MOST_NODES:
        raise MemoryError(f"{name}: {array.size} elements do not fit on the tape")
    if array.ndim == 0:
        a.kind = NUMBER
        a.number = array[()]
        return 0
    array = np.ascontiguousarray(array, dtype=np.float64)
    a.ndim = array.ndim
    a.rows = array.shape[0] if a.ndim == 2 else 1
    a.cols = array.shape[a.ndim - 1]
    a.kind = ARRAY
    a.array = NULL
    if array.size:
        flat = array.reshape(-1)
        a.array = &flat[0]
    keep.append(array)
    return 0


cdef int take_floats(str name, object row, Py_ssize_t count, Operand *a, list keep) except -1:
    """A list or tuple of floats: their numbers, without NumPy, which a program in micrograd's style does not load."""
    cdef bytearray numbers = PyByteArray_FromStringAndSize(NULL, count * <Py_ssize_t>sizeof(double))
    cdef double *array = <double *>PyByteArray_AS_STRING(numbers)
    cdef Py_ssize_t k
    for k in range(count):
        listen(k)
        if PySequence_Fast_GET_SIZE(row) != count or not is_float(PySequence_Fast_ITEMS(row)[k]):
            raise RuntimeError(f"{name}: the list changed while it was read")
        array[k] = PyFloat_AS_DOUBLE(<object>PySequence_Fast_ITEMS(row)[k])
    a.kind = ARRAY
    a.array = array if count > 0 else NULL
    keep.append(numbers)
    return 0


cdef int take_rows(str name, object x, Operand *a, list keep) except -1:
    """A list of rows."""
    cdef bint numbers, all_numbers = True
    cdef Py_ssize_t width = -1, count, k, elements_seen = 0
    cdef list rows = []
    cdef Operand plain
    for k, row in enumerate(plain_sequence(x)):
        elements_seen += width if width > 0 else 1
        if elements_seen > 0xFFFF:
            elements_seen = 0
            PyErr_CheckSignals()
        if type(row) is list and take_plain(row, &plain):   # most often
            if width >= 0 and <Py_ssize_t>plain.cols != width:
                raise ShapeError(f"{name}: expected rows of one length, got {width} in row 0 and {plain.cols} "
                                 f"in row {k}")
            width = plain.cols
            all_numbers = False
            rows.append(row)
            continue
        if not is_row(row):
            raise TypeError(f"{name}[{k}]: expected a row like the first, got {describe(row)}")
        elements, count = checked_elements(f"{name}[{k}]", row, &numbers, &a.exact, &a.lost)
        if width >= 0 and count != width:
            raise ShapeError(f"{name}: expected rows of one length, got {width} in row 0 and {count} in "
                             f"row {k}")
        width = count
        all_numbers = all_numbers and numbers
        rows.append(elements)
    if len(rows) * (width if width > 0 else 1) >= MOST_NODES:
        raise MemoryError(f"{name}: {len(rows)} x {width} elements do not fit on the tape")
    if all_numbers:
        return take_array(name, array_of_rows(rows, width), a, keep)
    a.kind = ROWS
    a.o = <PyObject *>rows
    a.rows, a.cols, a.ndim = <fg_id>len(rows), <fg_id>width, 2
    keep.append(rows)
    return 0


cdef fg_id rows_of(const Operand *a) noexcept:
    return a.cols if a.turned else a.rows


cdef fg_id cols_of(const Operand *a) noexcept:
    return a.rows if a.turned else a.cols


cdef tuple shape_of(const Operand *a):
    if a.ndim == 2:
        return rows_of(a), cols_of(a)
    return (a.cols,) if a.ndim else ()


cdef bint is_constant(const Operand *a) noexcept:
    return (a.kind == NUMBER or a.kind == ARRAY
            or (a.kind == TENSOR or a.kind == PICK) and (<Tensor>a.o).constant)


cdef fg_view view_of(Tensor t) noexcept:
    cdef fg_view view
    view.flags = FG_VIEW_CONSTANT if t.constant else 0
    view.base = t.run.id - t.run.count + t.offset
    view.rows, view.cols, view.row_step, view.col_step = t.rows, t.cols, t.row_step, t.col_step
    return view


cdef inline fg_id slot_in(const fg_view *view, fg_id row, fg_id col) noexcept:
    """The slot of element (row, col) of a view that is no list."""
    return <fg_id>(<int64_t>view.base + <int64_t>row * view.row_step + <int64_t>col * view.col_step)


cdef inline fg_id first_slot(object first) noexcept:
    """Where a stretch begins. Runs no Python code."""
    if type(first) is Tensor:
        return (<Tensor>first).run.id - (<Tensor>first).run.count + (<Tensor>first).offset
    return (<Value>first).id


cdef bint lies_dense(Tensor t) noexcept:
    """Whether its elements are one stretch of slots, row by row."""
    return t.col_step == 1 and (t.rows == 1 or t.row_step == <int64_t>t.cols)


cdef int fill_list(PyObject *row, fg_id count, fg_id *ids, fg_id step) noexcept:
    """Write a row's ids; numbers become leaves. 0, or -1 if it is not what take() saw. No Python code."""
    cdef PyObject **items
    cdef PyTypeObject *value = <PyTypeObject *>Value
    cdef fg_id k
    if PySequence_Fast_GET_SIZE(<object>row) != count:
        return -1
    items = PySequence_Fast_ITEMS(<object>row)
    for k in range(count):
        if Py_TYPE(items[k]) == value or is_value(items[k]):
            ids[k * step] = (<fg_handle *>items[k]).id
        elif is_float(items[k]) and tape.n < tape.room:
            ids[k * step] = fg_tape_push_leaf(&tape, PyFloat_AS_DOUBLE(<object>items[k]))
        else:
            return -1
    return 0


cdef int pick(Operand *a, int kind, object o, const int64_t[::1] flat, object places) except -1:
    """An operand of elements at places, an array of one or two dimensions: `flat` are the same."""
    a.kind, a.o, a.pick = kind, <PyObject *>o, &flat[0]
    a.turned, a.exact, a.flat, a.ndim = False, True, False, places.ndim
    a.rows = places.shape[0] if a.ndim == 2 else 1
    a.cols = places.shape[a.ndim - 1]
    return 0


cdef inline fg_id pick_slot(const fg_view *source, int64_t place) noexcept:
    """The slot of the element at a place, counted row by row."""
    if source.col_step == 1 and (source.rows == 1 or source.row_step == <int64_t>source.cols):
        return <fg_id>(source.base + place)
    return slot_in(source, <fg_id>(place // source.cols), <fg_id>(place % source.cols))


cdef int fill(fg_record *r, fg_id v, const Operand *a) noexcept:
    """Enter an operand as view v. 0, or -1 if a list has changed since take(); a Tensor cannot. No Python code."""
    cdef fg_view view = fg_view(0, 0, a.rows, a.cols, <int32_t>a.cols, 1)
    cdef fg_id *ids
    cdef fg_id i, k
    cdef fg_view source = view
    cdef PyObject **rows
    if a.kind == TENSOR:
        view = view_of(<Tensor>a.o)
    elif a.kind == VALUE:
        view.base = (<fg_handle *>a.o).id
    elif a.kind == NUMBER:
        view.flags = FG_VIEW_CONSTANT
        view.base = fg_tape_push_leaf(&tape, a.number)
    elif a.kind == ARRAY:
        view.flags = FG_VIEW_CONSTANT
        if a.rows * a.cols > 0:
            view.base = fg_tape_push_leaves(&tape, a.rows * a.cols)
            memcpy(tape.data + view.base, a.array, a.rows * a.cols * sizeof(double))
    else:
        ids = fg_block_ids(r)
        if a.kind == PICK:
            source = view_of(<Tensor>a.o)
            for k in range(a.rows * a.cols):
                ids[k] = pick_slot(&source, a.pick[k])
        elif a.kind == JOIN:
            rows = PySequence_Fast_ITEMS(<object>a.o)
            for k in range(a.rows * a.cols):
                if k == 0 or a.pick[k] >> 32 != a.pick[k - 1] >> 32:
                    source = view_of(<Tensor>rows[a.pick[k] >> 32])
                ids[k] = pick_slot(&source, <uint32_t>a.pick[k])
        elif a.kind == LIST:
            if fill_list(a.o, a.cols, ids, 1) < 0:
                return -1
        else:
            if PySequence_Fast_GET_SIZE(<object>a.o) != a.rows:
                return -1
            rows = PySequence_Fast_ITEMS(<object>a.o)
            for i in range(a.rows):
                if fill_list(rows[i], a.cols, ids + (i if a.turned else i * a.cols),
                             a.rows if a.turned else 1) < 0:
                    return -1
        fg_block_list(r, v, rows_of(a), cols_of(a))
        if is_constant(a):
            fg_record_view(r, v).flags |= FG_VIEW_CONSTANT
        return 0
    if a.turned:
        view.rows, view.cols = view.cols, view.rows
        view.row_step, view.col_step = view.col_step, view.row_step
    fg_block_view(r, v, view)
    return 0


cdef uint64_t elements_of(const Operand *a) noexcept:
    return <uint64_t>a.rows * a.cols


cdef inline bint take_number(object x, Operand *a) noexcept:
    """Look at a float, or an int that a float holds. No Python code; 0 for anything else."""
    if type(x) is float:
        a.number = PyFloat_AS_DOUBLE(x)
    elif type(x) is not int or not small_int(x, &a.number):
        return False
    a.kind = NUMBER
    a.turned = a.flat = False
    a.exact = True
    a.o = NULL
    a.ndim = 0
    a.rows = a.cols = 1
    return True
