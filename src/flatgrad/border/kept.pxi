# kept.pxi: Gradients that are Values: where a leaf keeps one, and whether it is its gradient still.
#
# A backward pass with create_graph hangs the Value on the leaf, or one Tensor on all leaves of a run, and writes its
# number to where the number of a gradient is. So what reads and changes numbers knows nothing of it. When the number
# there is another, the Value is the gradient no more. A gradient of 0.0 is written as -0.0, which differs from the 0.0
# of those that set gradients to 0.
#
# Uses attributes, entries, handles, operands, python, tape, views.

cdef bint kept_ever = False   # some leaf has had one: until then nobody has to look for them


cdef object kept_on(fg_id entry):
    """What hangs on that leaf or run as its gradient, or None."""
    cdef fg_id *owner = tape.owner[entry]
    if not fg_owner_is_box(owner) or fg_owner_box(owner).extra == NULL:
        return None
    return (<dict>fg_owner_box(owner).extra).get("grad")


cdef inline double as_kept(double number) noexcept:
    return -0.0 if number == 0.0 else number


cdef bint is_kept(double gradient, double number) noexcept:
    """Whether that gradient has been written as the number of what is kept."""
    number = as_kept(number)
    return memcmp(&gradient, &number, sizeof(double)) == 0


cdef object kept_by(Value x):
    """The Value that is the gradient of a leaf; None if that is a number. Runs no Python code."""
    cdef fg_id entry
    if not fg_op_is_leaf(fg_tape_op(&tape, x.id)):
        return None
    kept = kept_on(x.id)
    if kept is None:
        entry = entry_of(x.id)
        kept = kept_on(entry)
        if kept is None:
            return None
        kept = element(<Tensor>kept, 0, x.id - (entry - tape.args[entry].b))
    return kept if is_kept(fg_tape_gradient(&tape, x.id)[0], tape.data[(<Value>kept).id]) else None


cdef Tensor kept_in(Tensor t):
    """The Tensor of the gradients of a leaf Tensor, or a view of one; None if these are numbers."""
    cdef fg_view view, kept_view
    cdef fg_id k
    cdef Tensor kept
    if fg_tape_op(&tape, t.run.id) != FG_RUN:
        return None
    kept = kept_on(t.run.id)
    if kept is None:
        return None
    kept = tensor_view(kept, kept.offset + t.offset, t.rows, t.cols, t.row_step, t.col_step, t.ndim)
    view, kept_view = view_of(t), view_of(kept)
    for k in range(view.rows * view.cols):
        if not is_kept(fg_tape_gradient(&tape, pick_slot(&view, k))[0], tape.data[pick_slot(&kept_view, k)]):
            return None
    return kept


cdef int forget_kept(object x) except -1:
    """The gradient of a Value, or those of all elements that a Tensor is a view of, are numbers from now on. What was
    kept goes, which may run Python code."""
    cdef fg_id i = (<Tensor>x).run.id if type(x) is Tensor else (<Value>x).id
    cdef list kept = []
    if kept_on(i) is not None:
        kept.append((<dict>fg_owner_box(tape.owner[i]).extra).pop("grad"))
    if type(x) is not Tensor:
        i = entry_of((<Value>x).id)
        if kept_on(i) is not None:
            kept.append((<dict>fg_owner_box(tape.owner[i]).extra).pop("grad"))
    return 0


cdef dict without_kept(dict extra):
    """The attributes of a node for a copy, whose gradients are numbers."""
    if "grad" not in extra:
        return dict(extra)
    return {name: x for name, x in extra.items() if name != "grad"} or None


def _keep(leaves, gradients):
    """From now on the gradients of leaves are Values and Tensors.

    Parameters
    ----------
    leaves : list of Value and Tensor
        Tensors have all leaves of a run, in one dimension.
    gradients : list of Value and Tensor
        Of the same shapes, whose elements lie in order; None leaves a gradient as it is.
    """
    global kept_ever
    cdef list extras = [], before = []
    cdef fg_view view, kept_view
    cdef fg_id k
    cdef _Run run
    cdef fg_box *box
    for x, g in zip(<list?>leaves, <list?>gradients):
        if type(x) is not Tensor:
            extras.append(make_extra(<Value?>x))
            continue
        run = (<Tensor>x).run
        extra = {}
        box = fg_tape_box(&tape, run.id)
        if box == NULL:
            raise_status(FG_E_MEMORY)
        if box.extra == NULL:
            Py_INCREF(<PyObject *>extra)
            box.extra = <void *>extra
        extras.append(<object>box.extra)
        if g is not None and ((<Tensor?>g).rows != 1 or g.size != x.size or not lies_dense(g)):
            raise ShapeError(f"gradients: expected {x.size} elements in order, got the shape {g.shape}")
    kept_ever = True
    for extra, x, g in zip(extras, leaves, gradients):
        if g is None:
            continue
        before.append((<dict>extra).get("grad"))
        (<dict>extra)["grad"] = g
        if type(x) is not Tensor:
            fg_tape_gradient(&tape, (<Value>x).id)[0] = as_kept(tape.data[(<Value?>g).id])
            continue
        view, kept_view = view_of(x), view_of(g)
        for k in range(view.rows * view.cols):
            fg_tape_gradient(&tape, pick_slot(&view, k))[0] = as_kept(tape.data[pick_slot(&kept_view, k)])
    return None
