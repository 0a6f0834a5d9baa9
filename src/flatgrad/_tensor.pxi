# _tensor.pxi: part of _core.pyx. Block instructions: their operands as Python has them, and Tensor.
#
# An instruction is made in four steps, for the sake of the three rules at the top of _core.pyx. Every
# operand is looked at and what can run Python code is converted (take). Room is made for all of it. The
# operands' ids are written into the pool and constants onto the tape, which runs no Python code (fill).
# Then the core computes and appends.

# ---- runs ----

cdef Py_ssize_t live_runs = 0   # how many _Runs keep leaves: while there are none, no leaf has to be
                                # asked whether it belongs to one


cdef fg_id block_of(fg_id i):
    """The block instruction of a part; any other node is its own."""
    return i + tape.args[i].a if fg_tape_op(&tape, i) == FG_PART else i


cdef str block_symbol(fg_id i):
    """What _op says for a result of block instruction i."""
    cdef fg_record *r = fg_tape_record(&tape, i)
    if fg_tape_op(&tape, i) != FG_MAP:
        return fg_op_table[fg_tape_op(&tape, i)].symbol.decode()
    if r.param == FG_POWI:
        return f"**{<int32_t>r.k}"
    if r.param == FG_POWC and fg_record_view(r, 1).rows * fg_record_view(r, 1).cols == 1:
        return f"**{tape.data[fg_record_slot(r, fg_record_view(r, 1), 0, 0)]}"
    return fg_op_table[r.param].symbol.decode()


cdef void tie_run(_Run run, fg_id i) noexcept:
    """From now on the new run keeps the numbers below node i."""
    run.id = i
    run.count = tape.args[i].b
    fg_tape_hold(&tape, i, &run.id)
    run_made(run)


cdef void run_made(_Run run) noexcept:
    global live_runs
    run.leaves = fg_tape_op(&tape, run.id) == FG_RUN
    live_runs += run.leaves


cdef int run_gone(_Run run) noexcept:
    """Lets go of the nodes first: what runs later must not find this object."""
    global live_runs
    live_runs -= run.leaves
    if run.id != 0 and fg_tape_holder(&tape, run.id) == &run.id:
        fg_tape_hold(&tape, run.id, NULL)
        if run.id + 1 == tape.n:
            fg_tape_pop(&tape)
        else:
            fg_tape_pass(&tape, run.id)
    if tape.dead != NULL:
        drain()
    return 0


cdef _Run run_object(fg_id i):
    """The one _Run of node i, made if there is none. Runs no Python code."""
    cdef fg_id *holder = fg_tape_holder(&tape, i)
    cdef PyObject *o
    cdef _Run run
    if holder != NULL:
        o = <PyObject *>(<char *>holder - sizeof(PyObject))   # `id` follows the object's head
        if Py_REFCNT(o) > 0:
            return <_Run>o
        holder[0] = 0
    run = _Run.__new__(_Run)
    tie_run(run, i)
    return run


# ---- operands ----

cdef enum:
    TENSOR, VALUE, NUMBER, LIST, ROWS, ARRAY, PICK, JOIN


cdef struct Operand:
    int kind
    PyObject *o            # TENSOR, VALUE, LIST, ROWS: the object; whoever calls take() keeps it alive. JOIN: a
                           # list of Tensors that nobody else has
    fg_id rows, cols
    int ndim               # 0, 1 or 2; one dimension is a row
    bint exact             # its Values are of no subclass
    bint turned            # the operand is the transpose of what it says here
    double number          # NUMBER
    const double *array    # ARRAY: rows * cols numbers, row by row
    const int64_t *pick    # PICK: which elements of the Tensor, counted row by row. JOIN: for each element which
                           # Tensor, times 2**32, and which of its elements


cdef bint is_matrix(object x):
    """Whether an operand makes a Tensor of the result of an elementwise function."""
    return isinstance(x, (Tensor, list, tuple)) or (numpy_is_there() and isinstance(x, np_array)
                                                    and x.ndim > 0 and x.size != 1)


cdef inline bint is_float(PyObject *o) noexcept:
    return PyObject_TypeCheck(o, &PyFloat_Type)


cdef tuple checked_elements(str name, object x, bint *numbers, bint *exact):
    """A row as a list or tuple of Values and floats, and its length. numbers: no Value is in it; exact: none
    of a subclass."""
    cdef Py_ssize_t k, count
    cdef bint plain = True
    cdef PyObject **items
    if not isinstance(x, (list, tuple)):
        x = x.tolist() if numpy_is_there() and isinstance(x, np_array) else x
    x = plain_sequence(x)
    count = PySequence_Fast_GET_SIZE(x)
    items = PySequence_Fast_ITEMS(x)
    numbers[0] = True
    for k in range(count):
        if Py_TYPE(items[k]) == <PyTypeObject *>Value:
            numbers[0] = False
        elif is_value(items[k]):
            numbers[0] = exact[0] = False
        elif not is_float(items[k]):
            plain = False
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
    a.cols, a.ndim = <fg_id>count, 1
    return not numbers   # numbers alone are an array


cdef int take(str name, object x, Operand *a, list keep) except -1:
    """Look at an operand and convert it as far as that can run Python code. `keep` keeps alive what *a
    points to, until the instruction has been made, but for x."""
    cdef double number = 0.0
    cdef bint numbers = False
    cdef Py_ssize_t count
    if take_plain(x, a):
        return 0
    a.o = NULL
    a.ndim = 0
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
        elements, count = checked_elements(name, x, &numbers, &a.exact)
        if count >= MOST_NODES:
            raise MemoryError(f"{name}: {count} elements do not fit on the tape")
        a.rows, a.cols, a.ndim = 1, <fg_id>count, 1
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
        array = np_asarray(x)
        if array.dtype != object:
            return take_array(name, array, a, keep)
        keep.append(array.tolist())
        if array.ndim > 0 or not has_array(keep[-1]):   # else it may have made an array of itself
            return take(name, keep[-1], a, keep)
    if isinstance(x, (str, bytes, dict, type)) or has_array(x) or not hasattr(x, "__iter__"):
        raise TypeError(f"{name}: expected a Value, a number, a Tensor, an array or a list of them, got "
                        f"{describe(x)}")
    keep.append(list(x))
    return take(name, keep[-1], a, keep)


cdef object np_asarray(object x):
    if np is None:
        import numpy  # noqa: F401
        numpy_is_there()
    return np.asarray(x)


cdef bint has_array(object x):
    """Whether NumPy can make an array of it: a class has the method for its instances."""
    return not isinstance(x, type) and getattr(x, "__array__", None) is not None


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


cdef bint is_row(object x):
    if type(x) is Value or type(x) is float:
        return False
    return isinstance(x, (list, tuple, Tensor)) or (numpy_is_there() and isinstance(x, np_array)
                                                    and x.ndim > 0)


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
        elements, count = checked_elements(f"{name}[{k}]", row, &numbers, &a.exact)
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


cdef inline fg_id pick_slot(const fg_view *source, int64_t place) noexcept:
    """The slot of the element at a place, counted row by row."""
    if source.col_step == 1 and (source.rows == 1 or source.row_step == <int64_t>source.cols):
        return <fg_id>(source.base + place)
    return <fg_id>(<int64_t>source.base + place // source.cols * source.row_step
                   + place % source.cols * source.col_step)


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
                ids[k] = pick_slot(&source, a.pick[k] & 0xFFFFFFFF)
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


# ---- instructions ----

cdef enum:
    GIVE_VALUE, GIVE_LIST, GIVE_TENSOR


cdef object instruction_(int op, fg_id param, int32_t k, Operand *operands, fg_id count, fg_id rows, fg_id cols,
                         int give_what, int ndim, bint turned=False, const int64_t *labels=NULL,
                         fg_id label_count=0):
    """Make a block instruction; its results as a Value, a list of Values or a Tensor."""
    cdef uint64_t nodes = <uint64_t>rows * cols + 1, words = fg_block_words(count, label_count)
    cdef fg_id v, n, npool, node = 0
    cdef fg_handle *handle = NULL
    cdef fg_record *r
    cdef Tensor tensor = None
    cdef list values
    cdef int status = 0
    cdef bint constant = True
    for v in range(count):
        if operands[v].kind != TENSOR and operands[v].kind != VALUE:
            nodes += elements_of(&operands[v])
            if operands[v].kind != NUMBER and operands[v].kind != ARRAY:
                words += elements_of(&operands[v])
        constant = constant and is_constant(&operands[v])
    if nodes > MOST_NODES or words > MOST_NODES:
        raise MemoryError(f"flatgrad: an instruction of {nodes} nodes and {words} operands does not fit on "
                          "the tape")
    if give_what == GIVE_TENSOR:
        tensor = new_tensor(rows, cols, ndim, turned, constant or unrecorded())
    elif give_what == GIVE_LIST:
        values = [None] * <Py_ssize_t>(rows * cols)
    while True:
        if tape.n + nodes > tape.room or tape.npool + words > tape.pool_capacity:
            reserve(<fg_id>nodes, <fg_id>words)
        if give_what == GIVE_VALUE:
            handle = new_handle()
            handle.id = 0

        # From here on no Python code is run.
        n, npool = tape.n, tape.npool
        r = fg_block_begin(&tape, param, count, label_count)
        r.k = <fg_id>k
        for v in range(label_count):
            fg_record_extra(r)[v] = <fg_id>labels[v]
        for v in range(count):
            if status == 0:
                status = fill(r, v, &operands[v])
        if status < 0:
            undo(n, npool, handle)
            raise RuntimeError("a list changed while it was read")
        status = fg_block_push(&tape, op, rows, cols, give_what != GIVE_VALUE, NULL, &node)
        if status >= 0:
            break
        if status != FG_E_INTERRUPTED:
            failed(op, param, r, status, node, cols, n, npool, handle)
        undo(n, npool, handle)
        PyErr_CheckSignals()   # and if that does not raise, once more from the start
        status = 0
    if unrecorded():
        node = fg_tape_forget(&tape, n, npool)
    if give_what == GIVE_VALUE:
        return FG_GIVE(fg_give(&tape, handle, node))
    if give_what == GIVE_TENSOR:
        tie_run(tensor.run, node)
        return tensor
    return with_handles(values, node)


cdef list with_handles(list values, fg_id node):
    """The list with the results of a new block instruction in it."""
    cdef fg_id k, count = <fg_id>len(values)
    hold_ids()   # until all have their handles
    try:
        for k in range(count):
            values[k] = handle_of(node - count + k)
    finally:
        release_ids()
    return values


cdef void undo(fg_id n, fg_id npool, fg_handle *handle) noexcept:
    tape.n = n
    tape.npool = npool
    if handle != NULL:
        Py_DECREF(<PyObject *>handle)


cdef int failed(int op, fg_id param, fg_record *r, int status, fg_id element, fg_id cols, fg_id n, fg_id npool,
                fg_handle *handle) except -1:
    """The exception for an instruction that could not be computed; constants made for it go."""
    cdef double[3] x = [0.0, 0.0, 0.0]
    cdef double z = 0.0
    cdef fg_view *view
    cdef fg_id v, views = r.views, row = element // cols, col = element % cols
    cdef int32_t k = <int32_t>r.k
    cdef bint single = r.rows == 1
    if op == FG_MAP and status == FG_E_DOMAIN:
        for v in range(views):
            view = fg_record_view(r, v)
            x[v] = tape.data[fg_record_slot(r, view, row if view.rows > 1 else 0, col if view.cols > 1 else 0)]
        status = (fg_op_unary(<int>param, x[0], k, &z) if views == 1
                  else fg_op_binary(<int>param, x[0], x[1], &z) if views == 2
                  else fg_op_ternary(<int>param, x[0], x[1], x[2], &z))
        undo(n, npool, handle)
        numbers = [x[v] for v in range(views)]
        if param == FG_POWI:
            numbers.append(k)
        place = f"[{col}]" if single else f"[{row}, {col}]"
        raise_operation(status, <int>param, tuple(numbers), f" at element {place}")
    undo(n, npool, handle)
    raise_status(status)


cdef int check_shapes(str name, const Operand *operands, fg_id count, fg_id *rows, fg_id *cols,
                      int *ndim) except -1:
    """The shape that operands are broadcast to, by NumPy's rules; ValueError with all shapes."""
    cdef fg_id v
    rows[0] = cols[0] = 1
    ndim[0] = 0
    for v in range(count):
        if (rows[0] != rows_of(&operands[v]) and rows[0] != 1 and rows_of(&operands[v]) != 1
                or cols[0] != cols_of(&operands[v]) and cols[0] != 1 and cols_of(&operands[v]) != 1):
            shapes = [str(shape_of(&operands[k])) for k in range(count)]
            raise ShapeError(f"{name}: shapes {' and '.join(shapes)} do not fit each other")
        if rows_of(&operands[v]) != 1:
            rows[0] = rows_of(&operands[v])
        if cols_of(&operands[v]) != 1:
            cols[0] = cols_of(&operands[v])
        if operands[v].ndim > ndim[0]:
            ndim[0] = operands[v].ndim
    if rows[0] == 0 or cols[0] == 0:
        raise ShapeError(f"{name}: expected at least one element, got shapes "
                         f"{[shape_of(&operands[k]) for k in range(count)]}")
    return 0


cdef object map_tensors(int op, int32_t k, tuple xs, tuple names):
    """A row of ops.def on every element, as one instruction."""
    cdef Operand[3] operands
    cdef fg_id rows = 0, cols = 0, v, count = <fg_id>len(xs)
    cdef int ndim = 0
    cdef list keep = []
    cdef str symbol = fg_op_table[op].symbol.decode()
    for v in range(count):
        take(names[v] if names else f"operand of {symbol}", xs[v], &operands[v], keep)
    check_shapes(symbol, operands, count, &rows, &cols, &ndim)
    if in_scalar_graph():
        return scalar_map(op, k, xs)
    return instruction_(FG_MAP, <fg_id>op, k, operands, count, rows, cols,
                        GIVE_TENSOR if ndim else GIVE_VALUE, ndim)


cdef object tensor_binary(int op, object left, object right):
    """left op right where one is a Tensor."""
    cdef double number = 0.0
    other = right if isinstance(left, Tensor) else left
    if not (isinstance(other, (Tensor, Value, list, tuple))
            or (numpy_is_there() and isinstance(other, np_array))):
        try:
            if not to_double(other, &number):
                return map_tensors(op, 0, (left, right), ()) if has_array(other) else NotImplemented
        except ValueError as error:
            raise ValueError(f"operand of {fg_op_table[op].symbol.decode()}: {error}") from None
        if op == FG_POW and other is right:
            if (fabs(number) < 1 << 31
                    and (PyLong_Check(right) or (numpy_is_there() and isinstance(right, np_integer)))):
                return map_tensors(FG_POWI, <int32_t>number, (left,), ())
            op = FG_POWC
    return map_tensors(op, 0, (left, right), ())


cdef int axis_of(str name, object axis, int ndim) except -2:
    """0, 1, or -1 for None: of an array of 2 dimensions, or the 1 of those with one."""
    if axis is None:
        return -1
    try:
        number = range(axis).stop
    except TypeError:
        raise ArgumentTypeError(f"{name}: axis: expected an int or None, got {describe(axis)}") from None
    if not -ndim <= number < ndim:
        raise ArgumentError(f"{name}: axis: expected {-ndim} to {ndim - 1} or None for {ndim} "
                            f"dimension{'s' if ndim > 1 else ''}, got {axis}")
    number = number % ndim
    return 1 if ndim == 1 else number


cdef int axes_of(str name, object axis, int ndim) except -2:
    """axis_of(), and the same for a tuple of axes."""
    if not isinstance(axis, tuple):
        return axis_of(name, axis, ndim)
    axes = [axis_of(name, one, ndim) if one is not None else None for one in axis]
    if not axes or None in axes or len(set(axes)) < len(axes):
        raise ArgumentError(f"{name}: axis: expected different axes in a tuple, one at least, got {axis}")
    return -1 if len(axes) == ndim else axes[0]


cdef bint kept_dims(str name, object keepdims) except -1:
    if not (isinstance(keepdims, bool) or (numpy_is_there() and isinstance(keepdims, np_bool))):
        raise ArgumentTypeError(f"{name}: keepdims: expected True or False, got {describe(keepdims)}")
    return bool(keepdims)


cdef object reduce_(int op, object x, object axis, object keepdims=False, str name=None):
    """A sum, mean, maximum or logsumexp of all elements or along an axis. name: what messages call it."""
    cdef Operand a
    cdef list keep
    cdef int along
    cdef bint kept, is_scalar
    if (take_plain(x, &a) and a.ndim > 0 and not in_scalar_graph() and axis is None and keepdims is False
            and elements_of(&a) > 0):
        return instruction_(op, FG_LEAF, 0, &a, 1, 1, 1, GIVE_VALUE, 0)
    keep = []
    function = fg_op_table[op].name.decode()
    if name is None:
        name = f"{function}()"
    kept = kept_dims(name, keepdims)
    if in_scalar_graph():
        x = reusable(x)
    take(f"{name}: x", x, &a, keep)
    is_scalar = a.ndim == 0
    if is_scalar:
        a.ndim = 1
    along = axes_of(name, axis, a.ndim)
    if elements_of(&a) == 0:
        if op == FG_SUM and along < 0 and not kept:
            return Value(0.0)
        raise ShapeError(f"{name}: x: expected at least one element, got shape {shape_of(&a)}")
    if in_scalar_graph():
        result = scalar_reduce(function, x, along, a.ndim)
        return with_dims(packed([result]) if isinstance(result, Value) else result, along, a.ndim) if kept else result
    if along < 0 or a.ndim == 1:
        if not kept or is_scalar:
            return instruction_(op, FG_LEAF, 0, &a, 1, 1, 1, GIVE_VALUE, 0)
        return with_dims(instruction_(op, FG_LEAF, 0, &a, 1, 1, 1, GIVE_TENSOR, 1), along, a.ndim)
    a.turned = along == 0   # if that leaves one row, its result alone, and still a Tensor
    result = instruction_(op, FG_LEAF, 0, &a, 1, 1, rows_of(&a), GIVE_TENSOR, 1)
    return with_dims(result, along, a.ndim) if kept else result


cdef Tensor with_dims(Tensor t, int along, int ndim):
    """The results of a reduction, one dimension, with the axis that was reduced as one of length 1."""
    if ndim == 1:
        return t
    if along == 1:
        return tensor_view(t, t.offset, t.cols, 1, t.col_step, 1, 2)
    return tensor_view(t, t.offset, 1, t.cols, <int32_t>t.cols, t.col_step, 2)


cdef object softmax_(int op, object x, object axis):
    """softmax or log_softmax along an axis."""
    cdef Operand a
    cdef str name
    cdef list keep
    cdef int along
    if take_plain(x, &a) and a.ndim == 1 and not in_scalar_graph() and a.cols > 0 and type(axis) is int and axis == -1:
        return instruction_(op, FG_LEAF, 0, &a, 1, 1, a.cols, GIVE_TENSOR if a.kind == TENSOR else GIVE_LIST, 1)
    name, keep = fg_op_table[op].name.decode(), []
    if in_scalar_graph():
        x = reusable(x)
    take(f"{name}(): x", x, &a, keep)
    if a.ndim == 0:
        raise TypeError(f"{name}(): x: expected a Tensor, an array or a list, got {describe(x)}")
    if axis is None:
        raise ArgumentTypeError(f"{name}(): axis: expected an int, got None")
    along = axis_of(f"{name}()", axis, a.ndim)
    if elements_of(&a) == 0:
        raise ShapeError(f"{name}(): x: expected at least one element, got shape {shape_of(&a)}")
    if in_scalar_graph():
        return scalar_softmax(name, x, along, a.ndim)
    a.turned = along == 0
    return instruction_(op, FG_LEAF, 0, &a, 1, rows_of(&a), cols_of(&a),
                        GIVE_TENSOR if a.ndim == 2 or is_array(x) else GIVE_LIST, a.ndim, a.turned)


# What an activation is called, and its row.
cdef dict ACTIVATIONS = {"linear": FG_LEAF, "relu": FG_RELU, "leaky_relu": FG_LEAKY_RELU, "elu": FG_ELU,
                         "gelu": FG_GELU, "gelu_tanh": FG_GELU_TANH, "silu": FG_SILU, "softplus": FG_SOFTPLUS,
                         "tanh": FG_TANH, "sigmoid": FG_SIGMOID}


cdef int activation_of(str name, object activation) except -1:
    """The opcode, FG_LEAF for none."""
    if activation is None:
        return FG_LEAF
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        one_of(name, activation, ACTIVATIONS)
    return ACTIVATIONS[activation]


cdef inline bint is_fused(int activation) noexcept:
    """Whether the activation is part of a layer's instruction: its derivative follows from the result."""
    return (activation == FG_LEAF or activation == FG_RELU or activation == FG_TANH
            or activation == FG_SIGMOID)


cdef inline double default_of(int activation) noexcept:
    """The second operand of the activations that have two."""
    return 0.01 if activation == FG_LEAKY_RELU else 1.0


cdef object activated(int activation, object x):
    """An activation of a Value, of each of a list, or of a Tensor."""
    if isinstance(x, list):
        return [activated(activation, item) for item in x]
    if activation == FG_LEAF:
        return x
    if activation < FG_UNARY_END:
        return apply_method(activation, <PyObject *>x)
    return apply_pair(activation, x, default_of(activation))


cdef int take_layer(str name, object x, object w, object b, Operand *operands, list keep, tuple names) except -1:
    """Look at the operands of a layer; ValueError unless their shapes fit."""
    take(names[0], x, &operands[0], keep)
    take(names[1], w, &operands[1], keep)
    if b is not None:
        take(names[2], b, &operands[2], keep)
    if operands[0].ndim == 0 or operands[1].ndim != 2:
        raise ShapeError(f"{name}: expected {names[0]} of one or two dimensions and {names[1]} of two, got "
                         f"shapes {shape_of(&operands[0])} and {shape_of(&operands[1])}")
    if operands[0].cols != operands[1].cols:
        raise ShapeError(f"{name}: shapes {names[1]} {shape_of(&operands[1])} and {names[0]} "
                         f"{shape_of(&operands[0])} do not fit each other")
    if b is not None and (operands[2].rows != 1 or operands[2].cols != operands[1].rows):
        raise ShapeError(f"{name}: {names[2]}: expected {operands[1].rows} number"
                         f"{'s' if operands[1].rows > 1 else ''}, one for each row of {names[1]}, got shape "
                         f"{shape_of(&operands[2])}")
    if operands[0].rows == 0 or operands[1].rows == 0:
        raise ShapeError(f"{name}: expected at least one row, got shapes {shape_of(&operands[0])} and "
                         f"{shape_of(&operands[1])}")
    return 0


cdef int check_layer(str name, object x, object w, object b) except -1:
    cdef Operand[3] operands
    return take_layer(name, x, w, b, operands, [], ("x", "W", "b"))


cdef object layer_(str name, object x, object w, object b, int activation, tuple names, int give_what):
    """activation(x @ w.T + b): x of one row or several, w of one row for each output."""
    cdef Operand[3] operands
    cdef list keep = []
    cdef fg_id count = 3 if b is not None else 2
    take_layer(name, x, w, b, operands, keep, names)
    out = instruction_(FG_LAYER, <fg_id>activation if is_fused(activation) else FG_LEAF, 0, operands, count,
                       operands[0].rows, operands[1].rows, give_what, operands[0].ndim)
    return out if is_fused(activation) else activated(activation, out)


cdef bint is_flat_list(object x):
    return isinstance(x, (list, tuple)) and not (len(x) > 0 and is_row(x[0]))


cdef bint is_array(object x):
    """What gives a Tensor where a list gives a list."""
    return isinstance(x, Tensor) or has_array(x)


cdef object reusable(object x):
    """An operand that can be read more than once."""
    if isinstance(x, (list, tuple)):
        return plain_sequence(x)
    return x if isinstance(x, (Value, type)) or is_array(x) or not hasattr(x, "__iter__") else list(x)


def sum(x, axis=None, keepdims=False):
    """The sum of all elements, or along an axis, as one instruction.

    Parameters
    ----------
    x : Tensor, array_like, or list of Value and real number; shape (n,) or (n_rows, n_columns)
    axis : {None, 0, 1, -1, -2} or tuple of them, optional
        None: over all elements. 0: over the rows. 1: over the columns. (0, 1): over both, which is all.
    keepdims : bool, optional
        True leaves each axis that is summed over in the shape, with length 1.

    Returns
    -------
    Value, or Tensor of shape (n_columns,) or (n_rows,); with `keepdims` always a Tensor
        The sum of an empty list is 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    The terms are not added one after the other, so the last bits differ from those of ``+``.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Value
    >>> flatgrad.sum([Value(1.0), Value(2.0), 3.0]).data
    6.0
    """
    return reduce_(FG_SUM, x, axis, keepdims)


def mean(x, axis=None, keepdims=False):
    """The mean of all elements, or along an axis, as one instruction.

    Parameters
    ----------
    x, axis, keepdims
        As for `sum`.

    Returns
    -------
    Value, or Tensor of shape (n_columns,) or (n_rows,); with `keepdims` always a Tensor

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or there are no elements.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Value
    >>> flatgrad.mean([Value(1.0), Value(2.0), 3.0]).data
    2.0
    """
    return reduce_(FG_MEAN, x, axis, keepdims)


def max(x, axis=None, keepdims=False):
    """The largest element of all, or along an axis, as one instruction.

    Parameters
    ----------
    x, axis, keepdims
        As for `sum`.

    Returns
    -------
    Value, or Tensor of shape (n_columns,) or (n_rows,); with `keepdims` always a Tensor

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or there are no elements.

    Notes
    -----
    Equal largest elements share the gradient, as in PyTorch's `amax`. nan if any element is nan.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Value
    >>> flatgrad.max([Value(1.0), Value(2.0)]).data
    2.0
    """
    return reduce_(FG_MAX, x, axis, keepdims)


def logsumexp(x, axis=None, keepdims=False):
    """log(sum(exp(x))) of all elements, or along an axis, as one instruction. Never overflows.

    Parameters
    ----------
    x, axis, keepdims
        As for `sum`.

    Returns
    -------
    Value, or Tensor of shape (n_columns,) or (n_rows,); with `keepdims` always a Tensor

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or there are no elements.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Value
    >>> round(flatgrad.logsumexp([Value(1000.0), Value(1000.0)]).data, 6)
    1000.693147
    """
    return reduce_(FG_LOGSUMEXP, x, axis, keepdims)


def softmax(x, axis=-1):
    """exp(x) divided by its sum along an axis, as one instruction. Never overflows.

    Parameters
    ----------
    x : Tensor, array_like, or list of Value and real number; shape (n,) or (n_rows, n_columns)
    axis : int, optional
        Along which the results add up to 1.

    Returns
    -------
    Tensor of the shape of `x`; of a flat list, a list of Value

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or there are no elements.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Value
    >>> [p.data for p in flatgrad.softmax([Value(1000.0), Value(1000.0)])]
    [0.5, 0.5]
    """
    return softmax_(FG_SOFTMAX, x, axis)


def log_softmax(x, axis=-1):
    """The logarithm of `softmax`, as one instruction. Never overflows.

    Parameters
    ----------
    x, axis
        As for `softmax`.

    Returns
    -------
    Tensor of the shape of `x`; of a flat list, a list of Value

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or there are no elements.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Value
    >>> [round(p.data, 6) for p in flatgrad.log_softmax([Value(0.0), Value(0.0)])]
    [-0.693147, -0.693147]
    """
    return softmax_(FG_LOG_SOFTMAX, x, axis)


def dot(w, x, b=None):
    """w[0] * x[0] + w[1] * x[1] + ..., plus b, as one instruction.

    Parameters
    ----------
    w, x : list of Value and real number, array_like of shape (n,), or Tensor of shape (n,)
    b : Value or real number, optional

    Returns
    -------
    Value

    Raises
    ------
    TypeError, ValueError
        If `w` and `x` differ in length, or an argument is not as described.

    Notes
    -----
    The products are not added one after the other, so the last bits differ from those of ``+`` and ``*``.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Value
    >>> flatgrad.dot([Value(2.0), Value(3.0)], [10.0, 100.0], Value(1.0)).data
    321.0
    """
    cdef Operand[3] operands
    cdef list keep
    if in_scalar_graph():
        return scalar("dot")(unpacked(w), unpacked(x), b)
    if not (take_plain(x, &operands[0]) and take_plain(w, &operands[1])
            and (b is None or take_plain(b, &operands[2]))):
        keep = []
        take("dot(): x", x, &operands[0], keep)
        take("dot(): w", w, &operands[1], keep)
        if b is not None:
            take("dot(): b", b, &operands[2], keep)
    if (operands[0].ndim != 1 or operands[1].ndim != 1 or operands[0].cols != operands[1].cols
            or (b is not None and elements_of(&operands[2]) != 1)):
        raise ShapeError(f"dot(): expected w and x of one length, and b a scalar, got shapes "
                         f"{shape_of(&operands[1])} and {shape_of(&operands[0])}"
                         + (f", b {shape_of(&operands[2])}" if b is not None else ""))
    return instruction_(FG_LAYER, FG_LEAF, 0, operands, 2 if b is None else 3, 1, 1, GIVE_VALUE, 0)


def matvec(W, x, b=None):
    """W @ x + b for a matrix and a vector, as one instruction.

    Parameters
    ----------
    W : list of rows of Value and real number, array_like or Tensor; shape (n_rows, n)
    x : list of Value and real number, array_like or Tensor; shape (n,)
    b : list, array_like or Tensor, shape (n_rows,), optional

    Returns
    -------
    list of Value; if x is an array, or an operand a Tensor, Tensor of shape (n_rows,)

    Raises
    ------
    TypeError, ValueError
        If the shapes do not fit, or an argument is not as described.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Value
    >>> W = [[Value(1.0), Value(2.0)], [Value(3.0), Value(4.0)]]
    >>> [y.data for y in flatgrad.matvec(W, [10.0, 1.0])]
    [12.0, 34.0]
    """
    x = reusable(x)
    if (not is_flat_list(x) if isinstance(x, (list, tuple))
            else not isinstance(x, type) and getattr(x, "ndim", 1) != 1):
        raise ShapeError(f"matvec(): x: expected one dimension, got {describe(x)}")
    return linear_("matvec()", x, W, b, FG_LEAF)


def linear(x, W, b=None, activation=None):
    """activation(x @ W.T + b), as one instruction: a layer over one sample or a batch.

    Parameters
    ----------
    x : Tensor, array_like or list; shape (n_in,) or (n_samples, n_in)
    W : Tensor, array_like or list of rows; shape (n_out, n_in)
    b : Tensor, array_like or list, shape (n_out,), optional
    activation : {None, 'linear', 'relu', 'leaky_relu', 'elu', 'gelu', 'gelu_tanh', 'silu', 'softplus', \
'tanh', 'sigmoid'}, optional
        relu, tanh and sigmoid are part of the instruction; the others are one of their own.

    Returns
    -------
    Tensor of shape (n_out,) or (n_samples, n_out); of a flat list and no Tensor, a list of Value

    Raises
    ------
    TypeError, ValueError
        If the shapes do not fit, or an argument is not as described.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Tensor
    >>> W, b = Tensor([[1.0, -2.0], [3.0, 4.0]]), Tensor([0.5, 0.5])
    >>> flatgrad.linear([[1.0, 1.0], [2.0, 0.0]], W, b, 'relu').tolist()
    [[0.0, 7.5], [2.5, 6.5]]
    """
    return linear_("linear()", x, W, b, activation_of("activation", activation))


cdef object linear_(str name, object x, object W, object b, int activation):
    cdef bint lists
    x = reusable(x)
    lists = is_flat_list(x) and not (isinstance(W, Tensor) or isinstance(b, Tensor))
    if in_scalar_graph():
        return scalar_linear(name, x, reusable(W), None if b is None else reusable(b), activation, lists)
    return layer_(name, x, W, b, activation, ("x", "W", "b"), GIVE_LIST if lists else GIVE_TENSOR)


# The rows of ops.def that are losses of a prediction and a target.
cdef dict PAIRWISE = {fg_op_table[op].name.decode(): op for op in (
    FG_SQUARED_ERROR, FG_HINGE, FG_ABSOLUTE_ERROR, FG_BINARY_CROSS_ENTROPY, FG_BCE_WITH_LOGITS, FG_KL_DIV,
    FG_KL_DIV_LOG, FG_HUBER, FG_WEIGHTED_BCE_WITH_LOGITS)}


cdef inline bint is_sign(double x, double tolerance) noexcept:
    """Whether it is -1 or 1; nan is not."""
    return fabs(fabs(x) - 1.0) <= tolerance


cdef bint are_signs(PyObject *row) noexcept:
    cdef PyObject **items = PySequence_Fast_ITEMS(<object>row)
    cdef Py_ssize_t k
    for k in range(PySequence_Fast_GET_SIZE(<object>row)):
        if is_value(items[k]):
            if not is_sign(tape.data[(<fg_handle *>items[k]).id], NEAR_SIGN):
                return False
        elif not (is_float(items[k]) and is_sign(PyFloat_AS_DOUBLE(<object>items[k]), 0.0)):
            return False
    return True


cdef double NEAR_SIGN = 1e-3   # so near are Values and Tensors with a gradient, for finite differences


def all_signs(x):
    """Whether all numbers of an operand are -1 or 1: Values, and Tensors that are no constants, nearly."""
    cdef Operand operand
    cdef Operand *a = &operand
    cdef list keep = []
    cdef fg_id i, j
    cdef fg_view view
    cdef size_t k
    cdef double tolerance
    cdef bint wrong = False
    cdef PyObject **rows
    take("target", x, a, keep)
    tolerance = 0.0 if is_constant(a) else NEAR_SIGN
    if a.kind == NUMBER:
        wrong = not is_sign(a.number, tolerance)
    elif a.kind == VALUE:
        wrong = not is_sign(tape.data[(<fg_handle *>a.o).id], tolerance)
    elif a.kind == ARRAY:
        for k in range(<size_t>a.rows * a.cols):
            wrong |= not is_sign(a.array[k], tolerance)
    elif a.kind == TENSOR:
        view = view_of(<Tensor>a.o)
        for i in range(view.rows):
            for j in range(view.cols):
                wrong |= not is_sign(tape.data[slot_in(&view, i, j)], tolerance)
    elif a.kind == LIST:
        wrong = not are_signs(a.o)
    elif a.kind == ROWS:
        rows = PySequence_Fast_ITEMS(<object>a.o)
        for k in range(<size_t>PySequence_Fast_GET_SIZE(<object>a.o)):
            wrong |= not are_signs(rows[k])
    return not wrong


def pairwise(str name not None, prediction, target, str reduction not None, parameter=None):
    """A row of PAIRWISE on two operands with equally many elements, in order.

    reduction: 'mean' and 'sum' give a Value; 'none' gives a Tensor of the shape of the prediction, at least one
    dimension. parameter: the third operand of a row that has one, a number or one for each column.
    """
    cdef Operand[3] operands
    cdef list keep = []
    cdef int op = PAIRWISE[name]
    cdef fg_id v, count = 2 if parameter is None else 3, rows, cols
    if count != <fg_id>fg_op_table[op].arity:
        raise ValueError(f"parameter: {name} has {fg_op_table[op].arity} operands, got {count}")
    prediction, target = reusable(prediction), reusable(target)
    if in_scalar_graph():
        return scalar_pairwise(name, prediction, target, reduction, parameter)
    take("prediction", prediction, &operands[0], keep)
    take("target", target, &operands[1], keep)
    for v in range(2):   # a column and a row of the same length fit: both as a row
        operands[v].turned = operands[v].cols == 1
    rows, cols = rows_of(&operands[0]), cols_of(&operands[0])
    if rows != rows_of(&operands[1]) or cols != cols_of(&operands[1]) or elements_of(&operands[0]) == 0:
        raise ShapeError(f"prediction and target: shapes {shape_of(&operands[0])} and {shape_of(&operands[1])} do "
                         "not fit each other")
    if count == 3:
        take("parameter", parameter, &operands[2], keep)
        if operands[2].rows != 1 or (operands[2].cols != 1 and operands[2].cols != cols):
            raise ShapeError(f"parameter: shape {shape_of(&operands[2])} does not fit {shape_of(&operands[0])}")
    losses = instruction_(FG_MAP, <fg_id>op, 0, operands, count, rows, cols, GIVE_TENSOR, 2)
    if reduction == "mean":
        return reduce_(FG_MEAN, losses, None)
    if reduction == "sum":
        return reduce_(FG_SUM, losses, None)
    if operands[0].ndim < 2:
        return row_view(<Tensor>losses, 0)
    return tensor_view(<Tensor>losses, 0, cols, 1, 1, 1, 2) if operands[0].turned else losses


def cross_entropy(logits, labels):
    """The mean over rows of -log_softmax(row)[label]; labels: int64 array of shape (n_rows,)."""
    cdef Operand a
    cdef list keep = []
    cdef const int64_t[::1] given
    cdef int64_t *numbers
    cdef Py_ssize_t k
    logits = reusable(logits)
    take("logits", logits, &a, keep)
    given = labels
    if a.ndim == 0 or elements_of(&a) == 0 or given.shape[0] != a.rows:
        raise ValueError(f"logits and target: shapes {shape_of(&a)} and ({given.shape[0]},) do not fit "
                         "each other")
    copied = bytearray(given.shape[0] * sizeof(int64_t))   # a finalizer may write to an array that users have
    numbers = <int64_t *><char *>copied
    for k in range(given.shape[0]):
        numbers[k] = given[k]
        if not 0 <= numbers[k] < a.cols:
            raise ValueError(f"target[{k}]: expected 0 to {a.cols - 1}, got {numbers[k]}")
    if in_scalar_graph():
        rows = nested(logits)
        return scalar("cross_entropy")(rows if a.ndim == 2 else [rows], [numbers[k] for k in range(given.shape[0])])
    return instruction_(FG_CROSS_ENTROPY, FG_LEAF, 0, &a, 1, 1, 1, GIVE_VALUE, 0, False, numbers, a.rows)


# ---- scalar graphs instead ----

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


cdef object scalar_linear(str name, object x, object W, object b, int activation, bint lists):
    neuron = scalar("neuron")
    function = None if activation == FG_LEAF else fg_op_table[activation].name.decode()
    check_layer(name, x, W, b)
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
    if fg_op_table[op].name.decode() in PAIRWISE:
        return scalar(fg_op_table[op].name.decode())(*items)
    operators = {FG_ADD: operator.add, FG_SUB: operator.sub, FG_MUL: operator.mul, FG_DIV: operator.truediv,
                 FG_POW: operator.pow, FG_POWC: operator.pow, FG_NEG: operator.neg}
    if op in operators:
        return operators[op](*items)
    return globals()[fg_op_table[op].name.decode()](*items)


def instruction(Value value not None):
    """What a fused Value is made of: (name, operands, parameters), or None for any other Value.

    name and operands: 'layer' (x, w, b), 'map' its operands, 'cross_entropy' (rows,), and reductions and
    softmax (xs,), each a tuple of Values.
    """
    cdef fg_id block = block_of(value.id), v, row, col, at
    cdef int op = fg_tape_op(&tape, block)
    cdef fg_record *r
    if not fg_op_is_block(op):
        return None
    name = fg_op_table[op].name.decode()
    hold_ids()
    try:
        r = fg_tape_record(&tape, block)
        at = value.id - (block - tape.args[block].b)
        row, col = at // r.cols, at % r.cols
        k, param = <int32_t>r.k, <int>r.param
        ids = operand_ids(value.id)
        if op == FG_LAYER:
            bias = handle_of(ids.pop(0)) if r.views > 2 else None
            handles = [handle_of(i) for i in ids]
            activation = None if param == FG_LEAF else fg_op_table[param].name.decode()
            return name, (tuple(handles[1::2]), tuple(handles[0::2]), bias), {"activation": activation}
        handles = [handle_of(i) for i in ids]
        if op == FG_MAP:
            return name, tuple(handles), {"operation": fg_op_table[param].name.decode(), "k": k}
        if op == FG_CROSS_ENTROPY:
            labels = []
            r = fg_tape_record(&tape, block)
            for v in range(r.extra):
                labels.append(fg_record_extra(fg_tape_record(&tape, block))[v])
            width = len(handles) // len(labels)
            rows = tuple([tuple(handles[i * width:(i + 1) * width]) for i in range(len(labels))])
            return name, (rows,), {"labels": tuple(labels)}
        if op == FG_SOFTMAX or op == FG_LOG_SOFTMAX:
            return name, (tuple(handles),), {"index": col}
        return name, (tuple(handles),), {}
    finally:
        release_ids()


# ---- Tensor ----

cdef _Run nothing = _Run.__new__(_Run)   # of a Tensor that __init__ has not made: it has no elements


cdef Tensor new_tensor(fg_id rows, fg_id cols, int ndim, bint turned, bint constant):
    """A Tensor over a run that is still to come; turned: the run has the transpose."""
    cdef Tensor t = Tensor.__new__(Tensor)
    t.run = _Run.__new__(_Run)
    t.offset = 0
    t.ndim = ndim
    t.constant = constant
    t.rows, t.cols, t.row_step, t.col_step = rows, cols, <int32_t>cols, 1
    if turned:
        t.rows, t.cols, t.row_step, t.col_step = cols, rows, 1, <int32_t>cols
    return t


cdef Tensor leaf_tensor(const Operand *a, bint constant):
    """Leaves with the numbers of an array."""
    cdef Tensor t = new_tensor(a.rows, a.cols, a.ndim, False, constant)
    cdef fg_id count = a.rows * a.cols, i
    reserve(count + 1, 0)
    i = fg_tape_push_leaves(&tape, count)
    memcpy(tape.data + i, a.array, count * sizeof(double))
    tie_run(t.run, fg_tape_push_run(&tape, count))
    return t


cdef Tensor tensor_view(Tensor t, fg_id offset, fg_id rows, fg_id cols, int32_t row_step, int32_t col_step,
                        int ndim):
    """Another view of the same run."""
    cdef Tensor view = Tensor.__new__(Tensor)
    view.run = t.run
    view.constant = t.constant
    view.offset, view.rows, view.cols, view.ndim = offset, rows, cols, ndim
    view.row_step, view.col_step = row_step, col_step
    return view


cdef Tensor row_view(Tensor t, fg_id row):
    """Row `row` as one dimension."""
    return tensor_view(t, <fg_id>(<int64_t>t.offset + <int64_t>row * t.row_step), 1, t.cols, 0, t.col_step, 1)


cdef object element(Tensor t, fg_id row, fg_id col):
    """The Value at (row, col)."""
    cdef fg_view view = view_of(t)
    return handle_of(<fg_id>(<int64_t>view.base + <int64_t>row * view.row_step + <int64_t>col * view.col_step))


cdef object to_numpy(Tensor t, bint data, object kind=None):
    """The data, or gradients, of a Tensor as a new array: of the class `kind`, read-only, or a plain one."""
    cdef fg_view view
    cdef Py_buffer buffer
    cdef double *array
    cdef double *out
    cdef fg_id i, j
    if np is None:
        import numpy  # noqa: F401
        numpy_is_there()
    result = (np_array if kind is None else kind)(t.shape)
    PyObject_GetBuffer(result, &buffer, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
    view = view_of(t)   # now: making objects may have moved them
    if buffer.len != <Py_ssize_t>(<size_t>view.rows * view.cols * sizeof(double)):
        PyBuffer_Release(&buffer)
        raise RuntimeError("a Tensor changed while it was read")
    array = tape.data if data else tape.grad
    out = <double *>buffer.buf
    if lies_dense(t):
        memcpy(out, array + view.base, buffer.len)
    else:
        for i in range(view.rows):
            for j in range(view.cols):
                out[<size_t>i * view.cols + j] = array[slot_in(&view, i, j)]
    if frozen_ever and not data:
        for i in range(view.rows):
            for j in range(view.cols):
                out[<size_t>i * view.cols + j] = fg_tape_gradient(&tape, slot_in(&view, i, j))[0]
    PyBuffer_Release(&buffer)
    if kind is not None:
        result.setflags(False)
    return result


cdef inline fg_id slot_in(const fg_view *view, fg_id row, fg_id col) noexcept:
    """The slot of element (row, col) of a view that is no list."""
    return <fg_id>(<int64_t>view.base + <int64_t>row * view.row_step + <int64_t>col * view.col_step)


cdef int from_numbers(Tensor t, str name, object x, bint data) except -1:
    """Write numbers into the data, or gradients, of a Tensor."""
    cdef Operand a
    cdef list keep = []
    cdef fg_view view
    cdef fg_id i, j
    cdef double *array
    take(name, x, &a, keep)
    if a.kind != NUMBER and a.kind != ARRAY:
        if isinstance(x, Tensor):
            if tracings and not (<Tensor>x).constant:
                refuse_traced(first_slot(x), f"{name}: the numbers")
            return from_numbers(t, name, to_numpy(<Tensor>x, True), data)
        raise TypeError(f"{name}: expected numbers, got {describe(x)}")
    if a.kind == ARRAY and shape_of(&a) != t.shape:
        raise ShapeError(f"{name}: expected shape {t.shape} or a number, got shape {shape_of(&a)}")
    view = view_of(t)
    array = tape.data if data else tape.grad
    for i in range(view.rows):
        for j in range(view.cols):
            array[<int64_t>view.base + <int64_t>i * view.row_step + <int64_t>j * view.col_step] = (
                a.number if a.kind == NUMBER else a.array[<size_t>i * view.cols + j])
            if not data and fg_rules == 0:   # of a frozen leaf, elsewhere
                fg_tape_gradient(&tape, slot_in(&view, i, j))[0] = array[slot_in(&view, i, j)]
    return 0


cdef int position_of(object key, fg_id length, str what, fg_id *position) except -1:
    """The row or column that an int means."""
    index = operator.index(key)
    if not -<Py_ssize_t>length <= index < <Py_ssize_t>length:
        raise IndexError(f"{what} {index} is out of range for {length} of them")
    position[0] = <fg_id>(index % length)
    return 0


cdef object ints_of(object index):
    """A list or array of ints as a C-contiguous array of int64, None for anything else."""
    if not isinstance(index, (list, np_array)):
        return None
    try:
        index = np.asarray(index)
    except ValueError:   # rows of different lengths
        return None
    return np.ascontiguousarray(index, np.int64) if index.dtype.kind in "iu" and 0 < index.ndim <= 2 else None


cdef bint count_from_0(int64_t *place, Py_ssize_t length) noexcept:
    """Make a negative index what it stands for; 0 if there is no such element."""
    if place[0] < 0:
        place[0] += length
    return 0 <= place[0] < length


cdef object usual_positions(Tensor t, object key):
    """positions_of() for elements of a vector, rows of a matrix, and as many elements as there are pairs of
    indices; None for anything else, errors among it."""
    cdef const int64_t[::1] rows, cols
    cdef int64_t[::1] out
    cdef int64_t row, col
    cdef Py_ssize_t k, j, width = t.cols
    pair = t.ndim == 2 and isinstance(key, tuple) and len(key) == 2
    first, second = ints_of(key[0] if pair else key), ints_of(key[1]) if pair else None
    if first is None or (pair and (second is None or second.shape != first.shape)):
        return None
    whole_rows = t.ndim == 2 and not pair
    if whole_rows and first.ndim == 2:
        return None
    rows = first.reshape(-1)
    cols = second.reshape(-1) if pair else rows
    positions = np.empty((first.shape[0], width) if whole_rows else first.shape, np.int64)
    out = positions.reshape(-1)
    for k in range(rows.shape[0]):
        row, col = rows[k], cols[k]
        if t.ndim == 1:
            row = 0
        elif not count_from_0(&row, t.rows):
            return None
        if whole_rows:
            for j in range(width):
                out[k * width + j] = row * width + j
        elif count_from_0(&col, width):
            out[k] = row * width + col
        else:
            return None
    return positions


cdef object positions_of(Tensor t, object key):
    """The places, counted row by row, of the elements that an index selects."""
    positions = usual_positions(t, key)
    if positions is not None:
        return positions
    try:
        return np.arange(<Py_ssize_t>t.rows * t.cols, dtype=np.int64).reshape(t.shape)[key]
    except IndexError as error:
        raise IndexError(f"Tensor of shape {t.shape}: {error}") from None


cdef object picked(Tensor t, object key):
    """What an index that is no view selects, copied by one instruction; of a constant Tensor, a constant."""
    cdef Operand a
    cdef const int64_t[::1] flat
    cdef double[::1] numbers
    cdef fg_view source
    cdef Py_ssize_t k
    import numpy  # noqa: F401
    numpy_is_there()
    positions = positions_of(t, key)
    if positions.ndim == 0:
        return element(t, <fg_id>(positions // t.cols), <fg_id>(positions % t.cols))
    if positions.ndim > 2 or positions.size == 0:
        raise IndexError(f"Tensor of shape {t.shape}: expected an index with one or two dimensions and at "
                         f"least one element, got one that selects shape {positions.shape}")
    if positions.size >= MOST_NODES:
        raise MemoryError(f"Tensor of shape {t.shape}: {positions.size} elements do not fit on the tape")
    flat = np.ascontiguousarray(positions).reshape(-1)
    a.turned = False
    a.exact = True
    a.ndim = positions.ndim
    a.rows = positions.shape[0] if a.ndim == 2 else 1
    a.cols = positions.shape[a.ndim - 1]
    if t.constant:
        numbers = np.empty(flat.shape[0])
        source = view_of(t)   # now: making objects may have moved it
        for k in range(flat.shape[0]):
            numbers[k] = tape.data[pick_slot(&source, flat[k])]
        a.kind = ARRAY
        a.array = &numbers[0]
        return leaf_tensor(&a, True)
    a.kind = PICK
    a.o = <PyObject *>t
    a.pick = &flat[0]
    return instruction_(FG_MAP, FG_COPY, 0, &a, 1, a.rows, a.cols, GIVE_TENSOR, a.ndim)


@cython.final
@cython.no_gc
@cython.auto_pickle(False)
cdef class Tensor:
    """A vector or matrix whose numbers are Values, with operations that are one instruction each.

    Parameters
    ----------
    data : array_like of real number, or (nested) list of Value and real number, or Tensor
        Of shape (n,) or (n_rows, n_columns), at least one element. Numbers become leaves. Values, and the
        elements of a Tensor, are copied by an instruction, so that their gradients flow back.
    requires_grad : bool, optional
        False makes it a constant: no instruction computes gradients for it. Good for the samples of a
        data set, whose gradients would take as long to compute as those of the weights.

    Attributes
    ----------
    shape : tuple of int
    ndim : int
        1 or 2.
    size : int
    requires_grad : bool
    data, grad : ndarray of float64
        Copies of the numbers and of their gradients, which cannot be written to: ``W.grad[:] = 0`` raises
        ValueError. Assign an array of the same shape or a number, ``W.grad = 0``, ``W.data -= lr * W.grad``.
    T : Tensor
        The transpose: a view, as slices are.

    Raises
    ------
    TypeError, ValueError
        If `data` is not as described.
    RuntimeError
        If `__init__` is called on a Tensor that has its numbers: it keeps them, and its shape.

    Notes
    -----
    ``+ - * / **`` broadcast as NumPy's do: numbers, Values, rows and columns. Methods: the functions of
    one operand (`relu`, `tanh`, `exp`, ...), `square`, `clip`, `sum`, `mean`, `max`, `min`, `logsumexp`, `softmax`,
    `log_softmax`, `argmax`, `argmin`.

    ``== != < <= > >=`` compare the numbers element by element and give arrays of bool. As keys of dicts, and in
    sets, Tensors are the objects that they are.

    NumPy's functions that mean an operation of flatgrad are that operation: ``np.exp(t)``, ``np.sum(t, axis=0)``,
    ``np.concatenate([t, u])``. The others would lose the gradient, so they raise TypeError, unless
    `requires_grad` is False. See `flatgrad.array_functions`.

    Examples
    --------
    >>> from flatgrad import Tensor
    >>> W = Tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> y = (W @ [10.0, 1.0]).tanh().sum()
    >>> y.backward()
    >>> W.shape, W[1, 0].data, W.grad.shape
    ((2, 2), 3.0, (2, 2))
    """
    cdef _Run run                    # the numbers
    cdef fg_id offset                # of element (0, 0) among them
    cdef fg_id rows, cols            # one dimension is a row
    cdef int32_t row_step, col_step
    cdef int ndim
    cdef bint constant

    def __cinit__(self):
        self.run = nothing
        self.ndim = 1

    def __init__(self, data, requires_grad=True):
        cdef Tensor made
        cdef Operand a
        cdef list keep = []
        cdef bint constant = not requires_grad
        take("data", data, &a, keep)
        if a.kind == NUMBER or a.kind == VALUE:
            raise TypeError(f"data: expected an array or a list, got {describe(data)}")
        if elements_of(&a) == 0:
            raise ShapeError(f"data: expected at least one element, got shape {shape_of(&a)}")
        if a.kind == ARRAY:
            made = leaf_tensor(&a, constant)
        else:
            made = instruction_(FG_MAP, FG_COPY, 0, &a, 1, a.rows, a.cols, GIVE_TENSOR, a.ndim)
            made.constant = constant or (a.kind == TENSOR and (<Tensor>data).constant)
        if self.run is not nothing:   # now: making the numbers may have run Python code
            raise RuntimeError(f"a Tensor of shape {self.shape} keeps its numbers: __init__ cannot be called again; "
                               "assign to its data, or make another Tensor")
        self.run = made.run
        self.offset, self.rows, self.cols, self.ndim = 0, made.rows, made.cols, made.ndim
        self.row_step, self.col_step, self.constant = made.row_step, made.col_step, made.constant

    @property
    def shape(self):
        if self.ndim == 2:
            return self.rows, self.cols
        return (self.cols,)

    @property
    def ndim(self):
        return self.ndim

    @property
    def size(self):
        return <Py_ssize_t>self.rows * self.cols

    @property
    def requires_grad(self):
        return not self.constant and not is_frozen(self)

    @requires_grad.setter
    def requires_grad(self, value):
        cdef bint on = flag("requires_grad", value)
        cdef fg_id k
        if on == self.requires_grad:
            return
        if fg_op_is_block(fg_tape_op(&tape, self.run.id)):
            raise ArgumentError(f"requires_grad: expected a leaf Tensor, got the result of the operation {self._op!r} of "
                                f"shape {self.shape}; "
                                + ("Tensor(t.data) is a leaf of its numbers" if on else
                                   "for its numbers without a gradient take .detach()"))
        if <Py_ssize_t>self.rows * self.cols != <Py_ssize_t>self.run.count:
            raise ArgumentError(f"requires_grad: expected a whole leaf Tensor, got a view of shape {self.shape} of one "
                                f"with {self.run.count} elements")
        if on:
            self.constant = False
        for k in range(self.run.id - self.run.count, self.run.id):
            freeze(k, not on)

    @requires_grad.deleter
    def requires_grad(self):
        raise AttributeError("requires_grad: cannot be deleted")

    @property
    def _is_constant(self):
        """Whether instructions take it for a constant; a parameter that is frozen is none."""
        return self.constant

    @property
    def data(self):
        return to_numpy(self, True, array_class(True))

    @data.setter
    def data(self, x):
        from_numbers(self, "data", x, True)

    @data.deleter
    def data(self):
        raise AttributeError("data: cannot be deleted")

    @property
    def grad(self):
        return to_numpy(self, False, array_class(False))

    @grad.setter
    def grad(self, x):
        from_numbers(self, "grad", x, False)

    @grad.deleter
    def grad(self):
        raise AttributeError("grad: cannot be deleted")

    @property
    def T(self):
        if self.ndim == 1:
            return self
        return tensor_view(self, self.offset, self.cols, self.rows, self.col_step, self.row_step, 2)

    @property
    def _op(self):
        """The name of the operation that made it, '' for leaves."""
        cdef int op = fg_tape_op(&tape, self.run.id)
        return block_symbol(self.run.id) if fg_op_is_block(op) else ""

    def numpy(self):
        """The numbers, as a new ndarray, which can be written to."""
        return to_numpy(self, True)

    def __array__(self, dtype=None, copy=None):
        if not self.constant:
            error = no_array("NumPy cannot make an array of")
            error.traced = tracings != 0 and is_traced(first_slot(self))   # for those of ours that take numbers
            raise error
        if copy is False:
            raise ValueError("copy: the numbers of a Tensor are on the tape; an array is always a copy")
        array = to_numpy(self, True)
        return array if dtype is None else array.astype(dtype)

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if method == "__call__" and not kwargs:
            found = ufunc_rows().get(ufunc)
            if found is not None:
                return apply_ufunc(found, inputs)
        return array_functions().ufunc_of(ufunc, method, inputs, kwargs)

    def __array_function__(self, func, types, args, kwargs):
        return array_functions().function_of(func, types, args, kwargs)

    def tolist(self):
        """The numbers, as a list of floats, or of rows."""
        return to_numpy(self, True).tolist()

    def item(self):
        """The only number, as a float. Raises ValueError if there are several."""
        if self.rows * self.cols != 1:
            raise ShapeError(f"item(): expected a Tensor of one element, got shape {self.shape}")
        return element(self, 0, 0).data

    def backward(self):
        """`Value.backward` of the only element. Raises ValueError if there are several."""
        if self.rows * self.cols != 1:
            raise ShapeError(f"backward(): expected a Tensor of one element, got shape {self.shape}; take "
                             "sum() or mean() first")
        if self.constant:
            raise_constant()
        element(self, 0, 0).backward()

    def detach(self):
        """A new constant Tensor, ``requires_grad=False``, with a copy of the numbers.

        Returns
        -------
        Tensor

        Examples
        --------
        >>> from flatgrad import Tensor
        >>> x = Tensor([1.0, 2.0])
        >>> y = (x * x.detach()).sum()
        >>> y.backward()
        >>> x.grad.tolist(), x.detach().requires_grad
        ([1.0, 2.0], False)
        """
        return Tensor(to_numpy(self, True), requires_grad=False)

    def update(self, lr):
        """One step of gradient descent on a leaf, or a view of one: ``data -= lr * grad``.

        Parameters
        ----------
        lr : real number
            Learning rate, finite.

        Raises
        ------
        TypeError, ValueError
            If `lr` is not a finite number, or the Tensor not a leaf that requires a gradient.

        Examples
        --------
        >>> from flatgrad import Tensor
        >>> x = Tensor([1.0, 2.0])
        >>> (x * x).sum().backward()
        >>> x.update(0.25)
        >>> x.tolist()
        [0.5, 1.0]
        """
        cdef double rate = learning_rate(lr)
        cdef fg_view view = view_of(self)
        cdef fg_id i, j, slot
        if fg_op_is_block(fg_tape_op(&tape, self.run.id)) or self.constant:
            raise ArgumentError(f"update(): expected a leaf Tensor that requires a gradient, got one made by "
                                f"{self._op or 'requires_grad=False'!r} of shape {self.shape}")
        for i in range(view.rows):
            for j in range(view.cols):
                slot = slot_in(&view, i, j)
                if fg_tape_op(&tape, slot) != FG_FROZEN:
                    tape.data[slot] -= rate * tape.grad[slot]

    def reshape(self, *shape):
        """The same elements in another shape, row by row: a view if they lie in order, else a copy.

        Parameters
        ----------
        *shape : int, or one tuple of int
            One of them may be -1, which is what the others leave.

        Returns
        -------
        Tensor

        Raises
        ------
        ValueError
            If the number of elements is another, or there are not one or two dimensions.
        """
        cdef Tensor t = self
        if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
            shape = tuple(shape[0])
        try:
            shape = tuple([operator.index(length) for length in shape])
        except TypeError:
            raise TypeError(f"reshape(): expected ints, got {shape}") from None
        size = <Py_ssize_t>self.rows * self.cols
        known = 1
        for length in shape:
            known *= length if length != -1 else 1
        if list(shape).count(-1) == 1 and known > 0 and size % known == 0:
            shape = tuple([size // known if length == -1 else length for length in shape])
            known = size
        if len(shape) not in (1, 2) or known != size or sorted(shape)[0] < 1:
            raise ShapeError(f"reshape(): expected one or two lengths for the {size} elements of shape "
                             f"{self.shape}, got {shape}")
        if not lies_dense(self):
            t = map_tensors(FG_COPY, 0, (self,), ())
        rows = shape[0] if len(shape) == 2 else 1
        return tensor_view(t, t.offset, rows, shape[-1], shape[-1], 1, <int>len(shape))

    def leaky_relu(self, negative_slope=0.01):
        """Each element if it is above 0, else `negative_slope` times it. See `flatgrad.leaky_relu`."""
        return apply_pair(FG_LEAKY_RELU, self, negative_slope)

    def elu(self, alpha=1.0):
        """Each element if it is above 0, else ``alpha * (exp(element) - 1)``. See `flatgrad.elu`."""
        return apply_pair(FG_ELU, self, alpha)

    def sum(self, axis=None, keepdims=False):
        """The sum of all elements, a Value, or along an axis, a Tensor. See `flatgrad.sum`."""
        return reduce_(FG_SUM, self, axis, keepdims)

    def mean(self, axis=None, keepdims=False):
        """The mean of all elements, a Value, or along an axis, a Tensor. See `flatgrad.mean`."""
        return reduce_(FG_MEAN, self, axis, keepdims)

    def max(self, axis=None, keepdims=False):
        """The largest of all elements, a Value, or along an axis, a Tensor. See `flatgrad.max`."""
        return reduce_(FG_MAX, self, axis, keepdims)

    def min(self, axis=None, keepdims=False):
        """The smallest of all elements, a Value, or along an axis, a Tensor. See `flatgrad.min`."""
        return least(self, axis, keepdims)

    def argmax(self, axis=None):
        """Where the largest element is, an int, or along an axis, an array of int. See `flatgrad.argmax`."""
        return extreme("argmax", self, axis)

    def argmin(self, axis=None):
        """Where the smallest element is, an int, or along an axis, an array of int. See `flatgrad.argmin`."""
        return extreme("argmin", self, axis)

    def square(self):
        """Each element to the power of 2."""
        return map_tensors(FG_POWI, 2, (self,), ())

    def clip(self, min=None, max=None):
        """Each element within bounds, None for none: ``minimum(maximum(element, min), max)``. See `flatgrad.clip`.

        Parameters
        ----------
        min, max : Tensor, array_like, Value or real number, optional

        Returns
        -------
        Tensor

        Examples
        --------
        >>> from flatgrad import Tensor
        >>> Tensor([-2.0, 0.5, 2.0]).clip(max=1.0).tolist()
        [-2.0, 0.5, 1.0]
        """
        low, high = -INFINITY if min is None else min, INFINITY if max is None else max
        return map_tensors(opcodes["CLIP"], 0, (self, low, high), ("x", "clip(): min", "clip(): max"))

    def logsumexp(self, axis=None, keepdims=False):
        """See `flatgrad.logsumexp`."""
        return reduce_(FG_LOGSUMEXP, self, axis, keepdims)

    def softmax(self, axis=-1):
        """See `flatgrad.softmax`."""
        return softmax_(FG_SOFTMAX, self, axis)

    def log_softmax(self, axis=-1):
        """See `flatgrad.log_softmax`."""
        return softmax_(FG_LOG_SOFTMAX, self, axis)

    def __len__(self):
        return self.rows if self.ndim == 2 else self.cols

    def __iter__(self):
        cdef fg_id k
        if self.ndim == 1:
            return iter([element(self, 0, k) for k in range(self.cols)])
        return iter([row_view(self, k) for k in range(self.rows)])

    def __getitem__(self, key):
        cdef fg_id row = 0, col = 0
        if type(key) is int:
            position_of(key, self.rows if self.ndim == 2 else self.cols, "row" if self.ndim == 2 else "element",
                        &row)
            return row_view(self, row) if self.ndim == 2 else element(self, 0, row)
        keys = tuple(key) if isinstance(key, tuple) else (key,)
        if len(keys) > self.ndim:
            raise IndexError(f"Tensor of shape {self.shape}: expected at most {self.ndim} "
                             f"ind{'ices' if self.ndim > 1 else 'ex'}, got {len(keys)}")
        if not all([isinstance(k, slice) or is_index(k) for k in keys]):
            return picked(self, key)
        if self.ndim == 1:
            keys = (0, *keys)
        rows, cols = keys if len(keys) == 2 else (keys[0], slice(None))
        if is_index(rows) and is_index(cols):
            position_of(rows, self.rows, "row", &row)
            position_of(cols, self.cols, "column" if self.ndim == 2 else "element", &col)
            return element(self, row, col)
        first_row, row_count, row_step = selected(rows, self.rows, "row")
        first_col, col_count, col_step = selected(cols, self.cols, "column")
        if row_count == 0 or col_count == 0:
            raise IndexError(f"Tensor of shape {self.shape}: the index selects no element")
        offset = self.offset + first_row * self.row_step + first_col * self.col_step
        row_step, col_step = row_step * self.row_step, col_step * self.col_step
        if is_index(cols):   # a column, as one dimension
            return tensor_view(self, offset, 1, row_count, 0, row_step, 1)
        if is_index(rows):
            return tensor_view(self, offset, 1, col_count, 0, col_step, 1)
        return tensor_view(self, offset, row_count, col_count, row_step, col_step, 2)

    def __setitem__(self, key, x):
        raise TypeError("a Tensor's elements are not assignable; assign to the data of one: "
                        "tensor[i, j].data = number")

    def __delitem__(self, key):
        raise TypeError("a Tensor's elements cannot be deleted")

    def __eq__(self, other):
        return compared("equal", self, other)

    def __ne__(self, other):
        return compared("not_equal", self, other)

    def __lt__(self, other):
        return compared("less", self, other)

    def __le__(self, other):
        return compared("less_equal", self, other)

    def __gt__(self, other):
        return compared("greater", self, other)

    def __ge__(self, other):
        return compared("greater_equal", self, other)

    def __hash__(self):
        return <Py_ssize_t><void *>self >> 4

    def __bool__(self):
        raise TypeError("the truth value of a Tensor is not defined; compare its data")

    def __float__(self):
        return float(element(self, 0, 0)) if self.rows * self.cols == 1 else self.item()

    def __repr__(self):
        import numpy
        text = numpy.array2string(to_numpy(self, True), separator=", ", prefix="Tensor(")
        return f"Tensor({text}{', requires_grad=False' if self.constant else ''})"

    def __add__(left, right):
        return tensor_binary(FG_ADD, left, right)

    def __sub__(left, right):
        return tensor_binary(FG_SUB, left, right)

    def __mul__(left, right):
        return tensor_binary(FG_MUL, left, right)

    def __truediv__(left, right):
        return tensor_binary(FG_DIV, left, right)

    def __pow__(left, right, modulus):
        if modulus is not None:
            return NotImplemented
        return tensor_binary(FG_POW, left, right)

    def __matmul__(left, right):
        return matmul_(left, right)

    def __neg__(self):
        return map_tensors(FG_NEG, 0, (self,), ())

    def __pos__(self):
        return self

    def __abs__(self):
        return map_tensors(FG_ABS, 0, (self,), ())

    def __reduce__(self):
        return _restore_tensor, (self.run, self.offset, self.rows, self.cols, self.row_step, self.col_step,
                                 self.ndim, bool(self.constant))

    def __copy__(self):
        if fg_op_is_block(fg_tape_op(&tape, self.run.id)):
            return map_tensors(FG_COPY, 0, (self,), ())
        copy = Tensor(to_numpy(self, True), requires_grad=not self.constant)
        if is_frozen(self):
            copy.requires_grad = False
        elif has_frozen(self):
            for own, other in zip(np.ravel(list(self)), np.ravel(list(copy))):
                own.requires_grad or setattr(other, "requires_grad", False)
        return copy


cdef bint is_frozen(Tensor t) noexcept:
    """Whether all its elements are frozen leaves."""
    cdef fg_view view
    cdef fg_id i, j
    if not frozen_ever:
        return False
    view = view_of(t)
    for i in range(view.rows):
        for j in range(view.cols):
            if fg_tape_op(&tape, slot_in(&view, i, j)) != FG_FROZEN:
                return False
    return t.rows > 0 and t.cols > 0


cdef bint is_index(object key):
    return not isinstance(key, (bool, type)) and hasattr(key, "__index__") and not (
        hasattr(key, "ndim") and key.ndim > 0)


cdef tuple selected(object key, fg_id length, str what):
    """(first, how many, step) of what an int or a slice selects."""
    cdef fg_id position = 0
    if is_index(key):
        position_of(key, length, what, &position)
        return position, 1, 0
    first, stop, step = key.indices(length)
    count = len(range(first, stop, step))
    return first, count, step if count > 1 else 1   # a step that is not taken may be any int


cdef object matmul_(object left, object right):
    """left @ right of one or two dimensions, one of them a Tensor."""
    cdef Operand[2] operands
    cdef list keep = []
    cdef fg_id rows, cols
    cdef int ndim
    for x in (left, right):
        if not (is_matrix(x) or has_array(x)):
            return NotImplemented
    take("left operand of @", left, &operands[0], keep)
    take("right operand of @", right, &operands[1], keep)
    if operands[0].ndim == 0 or operands[1].ndim == 0:
        raise ShapeError(f"@: shapes {shape_of(&operands[0])} and {shape_of(&operands[1])}: expected one or "
                         "two dimensions on both sides")
    shapes = shape_of(&operands[0]), shape_of(&operands[1])
    if operands[1].ndim == 2:   # a layer's weights are the rows of the transpose
        operands[1].turned = True
    if operands[0].cols != cols_of(&operands[1]):
        raise ShapeError(f"@: shapes {shapes[0]} and {shapes[1]} do not fit each other")
    rows, cols = operands[0].rows, rows_of(&operands[1])
    if rows == 0 or cols == 0:
        raise ShapeError(f"@: expected at least one element, got shapes {shapes[0]} and {shapes[1]}")
    ndim = operands[0].ndim + operands[1].ndim - 2
    if in_scalar_graph():
        return scalar_matmul(left, right, operands[0].ndim, operands[1].ndim)
    result = instruction_(FG_LAYER, FG_LEAF, 0, operands, 2, rows, cols, GIVE_TENSOR if ndim else GIVE_VALUE, ndim)
    if ndim == 1 and rows > 1:   # a matrix times a vector: the column that it made, as one dimension
        return tensor_view(<Tensor>result, 0, 1, rows, 0, 1, 1)
    return result


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


def _restore_tensor(_Run run not None, offset, rows, cols, row_step, col_step, ndim, constant):
    """The Tensor that Tensor.__reduce__ describes. Raises ValueError for anything else."""
    if (not all([type(x) is int and -MOST_NODES < x < MOST_NODES
                 for x in (offset, rows, cols, row_step, col_step)])
            or rows < 1 or cols < 1 or ndim not in (1, 2) or (ndim == 1 and rows != 1)
            or type(constant) is not bool):
        damaged("no Tensor has this shape")
    corners = [offset + i * row_step + j * col_step for i in (0, rows - 1) for j in (0, cols - 1)]
    # The elements lie apart, as those of slices do: so there are no more than numbers.
    (step, length), (far, _) = sorted([(abs_of(row_step) if rows > 1 else 0, rows),
                                       (abs_of(col_step) if cols > 1 else 0, cols)])
    if ((length > 1 and step == 0) or (rows > 1 and cols > 1 and far <= step * (length - 1))
            or (far == 0 and rows * cols > 1)):
        damaged(f"no Tensor of shape ({rows}, {cols}) has these steps")
    if (rows * cols > run.count or sorted(corners)[0] < 0 or sorted(corners)[-1] >= run.count
            or abs_of(row_step) >= 1 << 31 or abs_of(col_step) >= 1 << 31):
        damaged(f"a Tensor of shape ({rows}, {cols}) reaches beyond its {run.count} numbers")
    cdef Tensor t = Tensor.__new__(Tensor)
    t.run, t.offset, t.rows, t.cols, t.row_step, t.col_step = run, offset, rows, cols, row_step, col_step
    t.ndim, t.constant = ndim, constant
    return t


cdef object abs_of(object number):
    return number if number >= 0 else -number
