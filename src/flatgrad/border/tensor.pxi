# tensor.pxi: The class Tensor: what users and Python call, each in a few lines.
#
# The work is done in the rooms before.
#
# Uses arrays, contexts, elementwise, entries, handles, indexing, instructions, kept, messages, numbers, operands,
# products, reductions, sweeps, tape, tracing, views.

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
        take_numbers("data", data, &a, keep)
        if a.kind == NUMBER or a.kind == VALUE:
            raise TypeError(f"data: expected an array or a list, got {describe(data)}")
        if elements_of(&a) == 0:
            raise ShapeError(f"data: expected at least one element, got shape {shape_of(&a)}")
        made = tensor_of(&a, constant)
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
        note_captured(self, first_slot(self), "requires_grad")
        return not self.constant and not is_frozen(self)

    @requires_grad.setter
    def requires_grad(self, value):
        cdef bint on = flag("requires_grad", value)
        cdef fg_id k
        if on == self.requires_grad:
            return
        guard(first_slot(self), "requires_grad: assigned to")
        if fg_op_is_block(fg_tape_op(&tape, self.run.id)):
            raise ArgumentError(f"requires_grad: expected a leaf Tensor, got the result of the operation {self._op!r} "
                                f"of shape {self.shape}; "
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
        if FG_UNLIKELY(kept_ever):
            kept = kept_in(self)
            if kept is not None:
                return kept
        return to_numpy(self, False, array_class(False))

    @grad.setter
    def grad(self, x):
        from_numbers(self, "grad", x, False)
        if FG_UNLIKELY(kept_ever):
            forget_kept(self)

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

    def backward(self, gradient=None, create_graph=False):
        """`Value.backward` of the only element; of several with `gradient`, an array or a Tensor of the same shape.

        Raises ValueError if there are several and no gradient.
        """
        if gradient is None and self.rows * self.cols != 1:
            raise ShapeError(f"backward(): expected a Tensor of one element, got shape {self.shape}; take "
                             "sum() or mean() first, or give a gradient of that shape")
        if self.constant:
            raise_constant()
        if gradient is None and create_graph is False:
            element(self, 0, 0).backward()
            return
        guard(first_slot(self), "backward()")
        refuse_put_aside()
        refuse_constant(first_slot(self))
        autograd().backward(self, gradient, create_graph)

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
        if is_recorded(first_slot(self)):
            return constant_copy(self)
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
        cdef fg_id k, slot
        guard(first_slot(self), "update()")
        if fg_op_is_block(fg_tape_op(&tape, self.run.id)) or self.constant:
            raise ArgumentError(f"update(): expected a leaf Tensor that requires a gradient, got one made by "
                                f"{self._op or 'requires_grad=False'!r} of shape {self.shape}")
        tape.writes += 1
        for k in range(view.rows * view.cols):
            slot = pick_slot(&view, k)
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
        return reshaped(self, shape)

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
        cdef fg_id row = 0
        if type(key) is int:
            position_of(key, self.rows if self.ndim == 2 else self.cols, "row" if self.ndim == 2 else "element",
                        &row)
            return row_view(self, row) if self.ndim == 2 else element(self, 0, row)
        return indexed(self, key)

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
        if is_recorded(first_slot(self)):
            return f"Tensor(traced, shape={self.shape})"
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
        elif frozen_in(self) > 0:
            for own, other in zip(np.ravel(list(self)), np.ravel(list(copy))):
                own.requires_grad or setattr(other, "requires_grad", False)
        return copy
