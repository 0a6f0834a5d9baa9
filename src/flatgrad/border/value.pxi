# value.pxi: The class Value: what users and Python call, each in a few lines.
#
# The work is done in the rooms before. Its type is finished by hand in value_type.pxi.
#
# Uses anomaly, attributes, contexts, custom, entries, graphs, handles, instructions, kept, messages, numbers,
# operators, python, rebuilding, sweeps, tape, tracing.

@cython.auto_pickle(False)
cdef class Value:
    """A scalar and its gradient: a node of the graph that operations on Values build.

    Parameters
    ----------
    data : real number
        The value, kept as float64: a float, int, bool, NumPy scalar, or an array of one element.
    _children : iterable of Value, optional
        What the value was computed from, for operations that flatgrad does not know. Also called
        `children`.
    _op : str or iterable of real number, optional
        The name of that operation; or the derivatives of the value by each child, also called
        `local_grads`. Without them, set `_backward`.
    label : object, optional
        Becomes the attribute `label`; pictures show it.

    Attributes
    ----------
    data : float
        The value. Assignable.
    grad : float
        The derivative of the last output that `backward` was called on, with respect to this
        value; backward passes add to it. Assignable; 0 at first.
    requires_grad : bool
        Whether backward passes add to its gradient, and optimizers change it. Assignable for leaves; True at
        first, and for results of operations.
    _prev : set of Value
        What the value was computed from.
    _children, _local_grads : tuple
        The same in order and as often as it was used, and the derivatives by each.
    _op : str
        The name of the operation, '' for a leaf. Assignable.
    _backward : callable
        Adds to the gradients of `_prev` from this one's; `backward` calls it. Assignable.
    label : object
        '' until it is set. Any other attribute may be set as well, and stays with the node. A class attribute
        (``Value.color = None``) is what Values show that have none of their own.

    Raises
    ------
    TypeError
        If `data` is not a real number, or a child is not a Value.
    ValueError
        If `data` is an int that float64 cannot hold exactly, or if there are not as many local
        gradients as children.

    Notes
    -----
    Equality and hash are by identity, as in micrograd; ``< <= > >=`` compare the data.

    Examples
    --------
    >>> from flatgrad import Value
    >>> a, b = Value(-4.0), Value(2.0)
    >>> c = a * b + b**3
    >>> c.backward()
    >>> c
    Value(data=0.0, grad=1.0)
    >>> a.grad, b.grad
    (2.0, 8.0)

    An operation of one's own, with its derivative:

    >>> cube = Value(a.data**3, (a,), (3 * a.data**2,))
    >>> cube.backward()
    >>> a.grad
    50.0
    """
    def __cinit__(self):
        # The object exists, so nothing after this can fail; __init__ sets the number.
        reserve_few(1)
        if self.id != 0:   # a finalizer has found it, among the objects of Python's collector, and used it
            return
        self.id = fg_tape_push_leaf(&tape, 0.0)
        tape.owner[self.id] = &self.id

    def __init__(self, data, _children=(), _op="", label=None, *, children=None, local_grads=None):
        cdef double number = to_data("data", data)
        if not isinstance(_op, str):
            if local_grads is not None or not hasattr(_op, "__iter__"):
                raise TypeError(f"_op: expected a str, or the local gradients, got {describe(_op)}")
            _op, local_grads = "", _op
        nodes = to_list("_children", "Values", _children if children is None else children)
        partials = None
        if local_grads is not None:
            partials = to_list("local_grads", "numbers", local_grads)
        if FG_UNLIKELY(fg_no_grads != 0):
            note_node(<PyObject *>self)
        if unrecorded():
            scratch = bytearray((len(nodes) + 1) * sizeof(double))
            check_made(nodes, partials, <double *><char *>scratch)
            nodes, partials = [], None
        if fg_tape_op(&tape, self.id) == FG_FROZEN:
            freeze(self.id, False)
        if nodes or _op or partials or tape.op[self.id] != FG_LEAF:
            become_made(self, number, nodes, partials, str(_op))
        else:
            assign_data(self.id, number)
            tape.grad[self.id] = 0.0
        # What shows as '' anyway takes no memory.
        if label is not None and not (type(label) is str and label == "" and type(self) is Value and self.label == ""):
            self.label = label

    @property
    def data(self):
        guard(self.id, "data: read")
        return tape.data[self.id]

    @data.setter
    def data(self, value):
        cdef double number = to_data("data", value)
        guard(self.id, "data: assigned to")
        assign_data(self.id, number)

    @data.deleter
    def data(self):
        raise AttributeError("data: cannot be deleted")

    @property
    def grad(self):
        guard(self.id, "grad: read")
        if FG_UNLIKELY(kept_ever) and fg_rules == 0:   # a user's rule adds numbers
            kept = kept_by(self)
            if kept is not None:
                return kept
        return fg_tape_gradient(&tape, self.id)[0]

    @grad.setter
    def grad(self, value):
        cdef double number = to_data("grad", value)
        guard(self.id, "grad: assigned to")
        if FG_UNLIKELY(kept_ever):
            forget_kept(self)
        if fg_rules == 0:
            fg_tape_gradient(&tape, self.id)[0] = number
        else:   # a user's rule adds to it, as a sweep does: a frozen leaf keeps its own
            tape.grad[self.id] = number

    @grad.deleter
    def grad(self):
        raise AttributeError("grad: cannot be deleted")

    @property
    def requires_grad(self):
        """Whether backward passes add to the gradient. Assignable for a leaf: with False its gradient stays what
        it is, and optimizers leave it alone. True for the results of operations."""
        note_captured(self, self.id, "requires_grad")
        return fg_tape_op(&tape, self.id) != FG_FROZEN

    @requires_grad.setter
    def requires_grad(self, value):
        cdef bint on = flag("requires_grad", value)
        guard(self.id, "requires_grad: assigned to")
        if fg_op_is_leaf(fg_tape_op(&tape, self.id)):
            freeze(self.id, not on)
        elif not on:
            raise ArgumentError(f"requires_grad: expected a leaf for False, got the result of the operation "
                                f"{self._op!r}; for its number without a gradient take .detach()")

    @requires_grad.deleter
    def requires_grad(self):
        raise AttributeError("requires_grad: cannot be deleted")

    @property
    def _prev(self):
        return set(parents_of(self))

    @property
    def _children(self):
        """The operands in order, as often as they occur."""
        return tuple(parents_of(self))

    @property
    def _local_grads(self):
        """The derivatives by each of `_children`, at their present data."""
        cdef int shown = fg_op_table[fg_tape_op(&tape, self.id)].parents
        guard(self.id, "_local_grads: read")
        hold_ids()
        try:
            partials = partials_of(self.id)
        finally:
            release_ids()
        return partials if shown < 0 else partials[:shown]

    @property
    def _op(self):
        cdef int op = fg_tape_op(&tape, self.id)
        cdef dict extra = extra_of(self)
        if extra is not None and "_op" in extra:
            return extra["_op"]
        refuse_stand_in(self.id, "_op")
        if op == FG_POWI:
            return f"**{<int32_t>tape.args[self.id].b}"
        if fg_op_table[op].parents < fg_op_table[op].arity:   # and a constant
            return f"{fg_op_table[op].symbol.decode()}{tape.data[tape.args[self.id].b]}"
        return block_symbol(block_of(self.id)) if is_result(op) else fg_op_table[op].symbol.decode()

    @_op.setter
    def _op(self, value):
        if not isinstance(value, str):
            raise TypeError(f"_op: expected a str, got {describe(value)}")
        make_extra(self)["_op"] = value

    @property
    def _backward(self):
        """Adds to the operands' gradients from this one's; may be replaced by any callable.

        `del v._backward` takes the replacement away: the operation's own rule is back.
        """
        cdef dict extra = extra_of(self)
        if extra is not None and "_backward" in extra:
            return extra["_backward"]
        return _Rule(self)

    @_backward.setter
    def _backward(self, value):
        if not callable(value):
            raise TypeError(f"_backward: expected a callable, got {describe(value)}")
        cdef dict extra = make_extra(self)
        extra["_backward"] = value
        fg_tape_set_hook(&tape, self.id, True)

    @_backward.deleter
    def _backward(self):
        cdef dict extra = extra_of(self)
        if extra is None or "_backward" not in extra:
            raise AttributeError("_backward: the rule of the operation itself cannot be deleted; none has been put in "
                                 "its place")
        fg_tape_set_hook(&tape, self.id, False)
        rule = extra.pop("_backward")   # let go of at the end: that may run Python

    def __setattr__(self, name, value):
        try:
            PyObject_GenericSetAttr(self, name, <PyObject *>value)
            if type(self) is Value:
                return
        except AttributeError:
            declare_attribute(name)
            if not isinstance(class_attribute(type(self), name), _Attribute):
                raise
            make_extra(self)[name] = value
        warn_of(name)   # when it has been set

    def __delattr__(self, name):
        try:
            PyObject_GenericSetAttr(self, name, NULL)   # from the `__dict__` of a subclass's instance
        except AttributeError:
            if not isinstance(class_attribute(type(self), name), _Attribute):
                raise
            extra = extra_of(self)
            if extra is None or name not in extra:
                raise AttributeError(f"{name}: cannot be deleted: nobody has set this Value's") from None
            del extra[name]

    def backward(self, gradient=None, create_graph=False):
        """Add to the gradients of all that this value depends on.

        Parameters
        ----------
        gradient : real number or Value, optional
            What this value's own gradient is to begin with; 1 by default.
        create_graph : bool, optional
            True: gradients are computed by operations of the graph, and those of leaves become Values and Tensors,
            which can be differentiated again. They are added to the gradients that there are.

        Raises
        ------
        RuntimeError
            If no gradient flows from here: of an instruction whose operands are all constant Tensors, arrays and
            numbers, and of what is computed from leaves without `requires_grad` alone. If another thread is
            within `flatgrad.grad` or its like, in a `_backward` rule of a user's: when that is over, gradients become
            again what they were.
        TypeError, ValueError
            If an argument is not as described. With `create_graph`, if a node has a `_backward` rule or local gradients
            of a user's, whose derivative is not known.
        KeyboardInterrupt
            If interrupted; the gradients added until then stay.

        Notes
        -----
        Sets this value's own gradient to 1, or to `gradient`. Each operand's gradient then grows by the partial
        derivative, evaluated at the operands' present `data`, times the gradient of the result:
        reverse-mode differentiation [1]_. Nothing is set to zero first, here or elsewhere, so a
        second call adds to the gradients of the first, inner ones included, as in micrograd.

        The arguments are those of PyTorch's `Tensor.backward`, and `create_graph` does as it does there: the gradients
        of leaves change, and no others, this value's own among them, for a later pass over the same nodes would add to
        these. Leaves that nobody holds are left out. Where `grad` is a Value, assigning to it, `zero_grad`, clipping
        and a later pass without `create_graph` make a plain number of it again. Optimizers read its number, and copies
        have that alone.

        References
        ----------
        .. [1] S. Linnainmaa, "Taylor expansion of the accumulated rounding error",
           BIT Numerical Mathematics 16 (1976).

        Examples
        --------
        >>> from flatgrad import Value
        >>> x = Value(3.0)
        >>> y = x * x
        >>> y.backward()
        >>> x.grad
        6.0
        """
        guard(self.id, "backward()")
        refuse_put_aside()
        refuse_constant(self.id)
        if gradient is None and create_graph is False:
            sweep_from(self.id)
        else:
            autograd().backward(self, gradient, create_graph)
        if tape.dead != NULL:
            drain()

    def detach(self):
        """A new leaf with the same number, from which no gradient flows back.

        Returns
        -------
        Value

        Examples
        --------
        >>> from flatgrad import Value
        >>> x = Value(3.0)
        >>> y = x * x.detach()
        >>> y.backward()
        >>> x.grad
        3.0
        """
        return constant_copy(self) if is_recorded(self.id) else Value(self.data)

    def update(self, lr):
        """One step of gradient descent: ``data -= lr * grad``.

        Parameters
        ----------
        lr : real number
            Learning rate, finite.

        Raises
        ------
        TypeError, ValueError
            If `lr` is not a finite number.

        Notes
        -----
        As in micrograd-rust, for loops over a few parameters; `flatgrad.optim` has optimizers.

        Examples
        --------
        >>> from flatgrad import Value
        >>> x = Value(3.0)
        >>> (x * x).backward()
        >>> x.update(0.5)
        >>> x.data
        0.0
        """
        cdef double rate = learning_rate(lr)
        guard(self.id, "update()")
        if fg_tape_op(&tape, self.id) != FG_FROZEN:
            assign_data(self.id, tape.data[self.id] - rate * tape.grad[self.id])

    def __repr__(self):
        if is_recorded(self.id):
            return "Value(traced)"
        grad = self.grad
        return f"Value(data={self.data}, grad={grad.data if isinstance(grad, Value) else grad})"

    def __hash__(self):
        return <Py_ssize_t><void *>self >> 4   # by identity; addresses are multiples of 16

    def __eq__(self, other):
        refuse_same(self, other)
        return NotImplemented   # so Python goes by identity

    def __bool__(self):
        guard(self.id, "the truth of a Value (`x is not None` asks whether there is one): read")
        return True if type(self) is Value or not hasattr(type(self), "__len__") else len(self) > 0

    def __add__(left, right):
        return binary(FG_ADD, left, right)

    def __sub__(left, right):
        return binary(FG_SUB, left, right)

    def __mul__(left, right):
        return binary(FG_MUL, left, right)

    def __truediv__(left, right):
        return binary(FG_DIV, left, right)

    def __pow__(left, right, modulus):
        if modulus is not None:
            return NotImplemented
        return binary(FG_POW, left, right)

    def __neg__(self):
        return unary(FG_NEG, self, 0)

    def __pos__(self):
        return self

    def __abs__(self):
        return unary(FG_ABS, self, 0)

    def __lt__(self, other):
        other = compared_number(self.id, other)
        return other if other is NotImplemented else tape.data[self.id] < other

    def __le__(self, other):
        other = compared_number(self.id, other)
        return other if other is NotImplemented else tape.data[self.id] <= other

    def __gt__(self, other):
        other = compared_number(self.id, other)
        return other if other is NotImplemented else tape.data[self.id] > other

    def __ge__(self, other):
        other = compared_number(self.id, other)
        return other if other is NotImplemented else tape.data[self.id] >= other

    def item(self):
        """The number, as a float: `data`, by PyTorch's name."""
        guard(self.id, "item()")
        return tape.data[self.id]

    def __float__(self):
        guard_number(self.id, "float()")
        return tape.data[self.id]

    def __int__(self):
        guard_number(self.id, "int()")
        return int(tape.data[self.id])

    def __trunc__(self):
        guard_number(self.id, "trunc()")
        return int(tape.data[self.id])

    def __round__(self, ndigits=None):
        guard_number(self.id, "round()")
        return round(tape.data[self.id], ndigits)

    def __format__(self, spec):
        return format(self.data, spec) if spec else repr(self)

    def __reduce_ex__(self, protocol):
        """For copy and pickle: the node, its graph, and its attributes."""
        cdef fg_id entry = entry_of(self.id)
        if has_parts(entry):
            run = run_object(entry)   # may move ids
            entry = entry_of(self.id)
            place = (type(self), run, self.id - (entry - tape.args[entry].b))
            _, own = own_state(self)   # the rest is the run's
            return _restore_part, place, (None, own) if own else None
        if is_leaf(self.id):
            state = own_state(self)
            numbers = type(self), self.data, fg_tape_gradient(&tape, self.id)[0]
            if fg_tape_op(&tape, self.id) == FG_FROZEN:
                numbers += (False,)
            return _restore, numbers, state if any(state) else None
        return _member, place_in_graph(self)

    def __copy__(self):
        """A copy of the node, with the same operands; of those that nobody holds a copy as well."""
        return copied_value(self)

    def __deepcopy__(self, memo):
        """A copy whose graph is a copy as well, closures of `_backward` included."""
        return deep_copied_value(self, memo)

    def __setstate__(self, state):
        set_state(self, state)
