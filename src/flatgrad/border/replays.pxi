# replays.pxi: A call of a compiled function that is like an earlier one: its program, found without a key.
#
# A key describes arguments but for their numbers; flatgrad.program makes it, and says what belongs in it. Here the
# arguments are held against the keys of the programs that were used last. Promises to say yes only where the key of the
# arguments would be that very key, and then to have the same leaves; whoever gets a no makes the key. The walk over
# arguments runs no Python code, so that lists and dicts stay as they are; what can run some, attributes and arrays,
# comes before and after it.
#
# Uses callees, contexts, handles, messages, numbers, places, programs, python, tape, views.

# What stands in a key: for leaves, in front of the parts of others, and for objects that only they are equal to.
cdef str NUMBER_LEAF = "number", VALUE_LEAF = "Value", FROZEN_LEAF = "frozen Value"
cdef str TENSOR_LEAF = "Tensor", ARRAY_LEAF = "array"


class _Static:
    """Marks static arguments in a key."""


class _Keywords:
    """Marks the arguments by keyword in a key: pairs of a name and a part follow, in order."""


_LEAVES = NUMBER_LEAF, VALUE_LEAF, FROZEN_LEAF, TENSOR_LEAF, ARRAY_LEAF
cdef object STATIC = _Static, KEYWORDS = _Keywords

cdef PyTypeObject *np_double = NULL   # numpy.float64, once there is a key

cdef enum:
    MOST_RECENT = 4    # programs of a function that are tried before there is a key
    DEEPEST = 200      # lists within lists


@cython.final
@cython.auto_pickle(False)
cdef class _Same:
    """An object in a key that only itself is equal to; the key keeps it alive."""
    cdef readonly object x

    def __init__(self, x):
        self.x = x

    def __hash__(self):
        return hash(<size_t><PyObject *>self.x >> 4)

    def __eq__(self, other):
        return type(other) is _Same and (<_Same>other).x is self.x

    def __repr__(self):
        return shortened(self.x)


@cython.final
@cython.auto_pickle(False)
cdef class _Hole:
    """Where in the structure of a result a Value or Tensor goes, and which."""
    cdef readonly Py_ssize_t number

    def __init__(self, Py_ssize_t number):
        self.number = number


# ---- arguments and keys ----

cdef int is_static(object part, object x) except -1:
    """Whether a static argument would have that part in a key. 0 also for kinds that are seldom seen. No Python code of
    others."""
    cdef tuple parts = <tuple>part
    cdef PyObject **items
    cdef Py_ssize_t k, count
    kind = type(x)
    if kind is not parts[1]:
        return False
    if len(parts) == 3:
        noted = parts[2]
        if type(noted) is _Same:
            return (<_Same>noted).x is x
        if x is noted:
            return kind is bool or kind is int or kind is str or kind is bytes or x is None or x is ...
        if kind is int or kind is str or kind is bytes:
            return type(noted) is kind and x == noted
        if kind is float:
            return float.hex(x) == noted
    if kind is tuple:
        count = PySequence_Fast_GET_SIZE(x)
        items = PySequence_Fast_ITEMS(x)
        if len(parts) != count + 2:
            return False
        for k in range(count):
            if not is_static(parts[k + 2], <object>items[k]):
                return False
        return True
    return False


cdef inline bint is_number_leaf(PyObject *x) noexcept:
    """Whether it is a number that a key does not tell from others: an int only if a float holds it."""
    cdef double number
    if Py_TYPE(x) == &PyFloat_Type or Py_TYPE(x) == np_double:
        return True
    return Py_TYPE(x) == &PyLong_Type and small_int(<object>x, &number)


cdef int all_fit(PyObject **parts, Py_ssize_t count, object x, list leaves, int depth) except -1:
    """fits() for the items of a list or tuple."""
    cdef PyObject **items = PySequence_Fast_ITEMS(x)
    cdef Py_ssize_t k
    if PySequence_Fast_GET_SIZE(x) != count:
        return False
    for k in range(count):
        if parts[k] == <PyObject *>NUMBER_LEAF:   # most often
            if not is_number_leaf(items[k]):
                return False
            leaves.append(<object>items[k])
        elif not fits(parts[k], items[k], leaves, depth):
            return False
    return True


cdef int fits(PyObject *part, PyObject *x, list leaves, int depth) except -1:
    """Whether an argument would have that part in a key; its leaves are appended. Shapes and types of arrays are not
    looked at. No Python code."""
    cdef PyTypeObject *kind = Py_TYPE(x)
    cdef PyObject **parts
    cdef PyObject **pair
    cdef PyObject *key = NULL
    cdef PyObject *head
    cdef PyObject *item = NULL
    cdef Py_ssize_t count, k = 0, place = 0
    if part == <PyObject *>NUMBER_LEAF:
        if not is_number_leaf(x):
            return False
        leaves.append(<object>x)
        return True
    if part == <PyObject *>VALUE_LEAF or part == <PyObject *>FROZEN_LEAF:
        if kind != <PyTypeObject *>Value or (fg_tape_op(&tape, (<fg_handle *>x).id) == FG_FROZEN) != (
                part == <PyObject *>FROZEN_LEAF):
            return False
        leaves.append(<object>x)
        return True
    parts, count = PySequence_Fast_ITEMS(<tuple>part), PySequence_Fast_GET_SIZE(<tuple>part)
    head = parts[0]
    if head == <PyObject *>&PyList_Type or head == <PyObject *>&PyTuple_Type:
        return kind == <PyTypeObject *>head and depth < DEEPEST and all_fit(parts + 1, count - 1, <object>x, leaves,
                                                                            depth + 1)
    if head == <PyObject *>STATIC:
        return is_static(<object>part, <object>x)
    if head == <PyObject *>TENSOR_LEAF:
        if kind != <PyTypeObject *>Tensor or not is_tensor_of(<Tensor>x, <tuple>parts[1]) or (
                not (<Tensor>x).constant and not is_frozen(<Tensor>x)) != (parts[2] == Py_True):
            return False
        leaves.append(<object>x)
        return True
    if head == <PyObject *>ARRAY_LEAF:
        if kind != <PyTypeObject *>np_array:
            return False
        leaves.append(<object>x)
        return True
    if head == <PyObject *>&PyDict_Type:
        if kind != &PyDict_Type or depth >= DEEPEST or PyDict_Size_(x) != count - 1:
            return False
        while PyDict_Next_(x, &place, &key, &item):
            k += 1
            pair = PySequence_Fast_ITEMS(<tuple>parts[k])
            if key != pair[0]:
                if type(<object>pair[0]) is str:
                    if type(<object>key) is not str or <str>key != <str>pair[0]:
                        return False
                elif not is_static(<object>pair[0], <object>key):
                    return False
            if not fits(pair[1], item, leaves, depth + 1):
                return False
        return True
    if kind == <PyTypeObject *>head and depth < DEEPEST and issubclass(   # a type: find_arrays() has asked
            <object>head, tuple) and kind.tp_iter == PyTuple_Type.tp_iter:   # a namedtuple
        return all_fit(parts + 1, count - 1, <object>x, leaves, depth + 1)
    return False


cdef bint is_tensor_of(Tensor t, tuple shape) except -1:
    """Whether it has that shape."""
    if len(shape) != t.ndim:
        return False
    if t.ndim == 1:
        return <Py_ssize_t>shape[0] == t.cols
    return <Py_ssize_t>shape[0] == t.rows and <Py_ssize_t>shape[1] == t.cols


cdef int check_pair(object pair) except -1:
    if type(pair) is not tuple or len(pair) != 2:
        raise TypeError(f"key: expected pairs, got {describe(pair)}")
    return 0


cdef Py_ssize_t find_arrays(object part, Py_ssize_t place, list arrays) except -1:
    """Append which of the leaves are arrays, and of what shape; `place`: how many come before. Returns how many there
    are afterwards. A TypeError for what is no part of a key."""
    if part is NUMBER_LEAF or part is VALUE_LEAF or part is FROZEN_LEAF:
        return place + 1
    if type(part) is not tuple or len(part) == 0:
        raise TypeError(f"key: expected parts of a key, got {describe(part)}")
    head = part[0]
    if head is TENSOR_LEAF or head is ARRAY_LEAF:
        if len(part) < (3 if head is TENSOR_LEAF else 2) or not are_ints(part[1], -1):
            raise TypeError(f"key: expected a shape, got {describe(part)}")
        if head is ARRAY_LEAF:
            arrays.append((place, part[1]))
        return place + 1
    if head is STATIC:
        check_static(part)
    elif not isinstance(head, type):
        raise TypeError(f"key: expected a type, got {describe(head)}")
    elif head is dict or issubclass(head, (list, tuple)):   # others do not fit anything
        fg_enter_recursion(" in a key")
        try:
            for inner in part[1:]:
                if head is dict:
                    check_pair(inner)
                    if type(inner[0]) is not str:
                        check_static(inner[0])
                    inner = inner[1]
                place = find_arrays(inner, place, arrays)
        finally:
            Py_LeaveRecursiveCall()
    return place


cdef int check_static(object part) except -1:
    """A TypeError for what is_static() could not read."""
    if type(part) is not tuple or len(part) < 2 or part[0] is not STATIC:
        raise TypeError(f"key: expected a static part, got {describe(part)}")
    if part[1] is tuple:
        fg_enter_recursion(" in a key")
        try:
            for inner in part[2:]:
                check_static(inner)
        finally:
            Py_LeaveRecursiveCall()
    return 0


@cython.final
@cython.auto_pickle(False)
cdef class _Replay:
    """A program of a compiled function, and what is asked of a call that is to be one of it.

    Parameters
    ----------
    key : tuple
        The structure of the arguments.
    watched : sequence of (object, str)
        Attributes that decide as well.
    values : sequence
        What these are, as parts of a key.
    places : _Places or None
        Where things have to be.
    found_by : object
        The key under which the function has the program.
    payload : callable
        Called with the leaves, if there is no `core`.
    core : _Program or None
        What computes the results from the leaves.
    template : object
        The structure of the result.
    """
    cdef tuple parts         # of the positional arguments
    cdef tuple keywords      # pairs of a name and a part
    cdef tuple arrays        # pairs: which leaf, and its shape
    cdef tuple watched, values
    cdef _Places places
    cdef _Program core
    cdef object template
    cdef object found_by, payload

    def __init__(self, tuple key not None, watched, values, _Places places, found_by, payload, _Program core=None,
                 template=None):
        cdef list arrays = []
        cdef Py_ssize_t count = 0
        global np_double
        if numpy_is_there():
            np_double = <PyTypeObject *>np.float64
        self.parts, self.keywords = key, ()
        if key and type(key[-1]) is tuple and key[-1] and key[-1][0] is KEYWORDS:
            self.parts, self.keywords = key[:-1], key[-1][1:]
        self.watched, self.values, self.places = tuple(watched), tuple(values), places
        for pair in (*self.keywords, *self.watched):
            check_pair(pair)
        for part in (*self.parts, *[part for _, part in self.keywords]):
            count = find_arrays(part, count, arrays)
        for part in self.values:
            check_static(part)
        if len(self.values) != len(self.watched):
            raise TypeError(f"values: expected {len(self.watched)}, got {len(self.values)}")
        self.arrays = tuple(arrays)
        self.found_by, self.payload, self.core, self.template = found_by, payload, core, template

    cdef int matches(self, tuple args, dict kwargs, list leaves) except -1:
        """Whether a call with these arguments is one of it; the leaves are appended to `leaves`, as far as they were
        looked at."""
        cdef Py_ssize_t k
        cdef PyObject *x
        if len(args) != len(self.parts) or len(kwargs) != len(self.keywords):
            return False
        for k in range(len(self.watched)):
            owner, name = <tuple>self.watched[k]
            if not is_static(self.values[k], getattr(owner, name)):
                return False
        if not all_fit(PySequence_Fast_ITEMS(self.parts), len(self.parts), args, leaves, 0):
            return False
        for pair in self.keywords:
            x = PyDict_GetItemWithError(kwargs, (<tuple>pair)[0])
            if x == NULL or not fits(<PyObject *>(<tuple>pair)[1], x, leaves, 0):
                return False
        for place, shape in self.arrays:
            array = leaves[<Py_ssize_t>place]
            if array.shape != shape or array.dtype.kind != "f":   # whole numbers have to be small
                return False
        return self.places is None or self.places.hold()


# ---- results ----

cdef object filled(object template, list results):
    if type(template) is _Hole:   # most often
        return results[(<_Hole>template).number]
    if not isinstance(template, (list, tuple, dict)):
        return template.copy() if is_ndarray(template) else template
    fg_enter_recursion(" in the result of a compiled function")
    try:
        if type(template) is dict:
            return {key: filled(x, results) for key, x in template.items()}
        if not isinstance(template, dict):
            parts = [filled(x, results) for x in template]
            if type(template) is list or type(template) is tuple:
                return parts if type(template) is list else tuple(parts)
        from flatgrad.structures import dict_like, like   # here: micrograd's programs do without

        if isinstance(template, dict):
            return dict_like(template, {key: filled(x, results) for key, x in template.items()})
        return like(template, parts)
    finally:
        Py_LeaveRecursiveCall()


def _filled(template, list results not None):
    """The structure of a result, with these Values and Tensors in its holes, and copies of its arrays."""
    return filled(template, results)


# ---- calls ----

@cython.auto_pickle(False)
cdef class _Replays:
    """A function that knows its last calls. Others give it a method `_call(args, kwargs)` for all other calls, and for
    those in a recording.

    Parameters
    ----------
    of : _Replays or None
        Whose programs they are; None: its own.

    Attributes
    ----------
    _programs : OrderedDict
        The programs by their keys, the last used last.
    _hits, _misses : int
        How often a call has found its program, and how often one was recorded.
    """
    cdef tuple recent             # of _Replay, the last used first
    cdef object latest            # the key that was used last
    cdef Py_ssize_t version       # how often forget() has been called; of others' programs: as it was there
    cdef _Replays of              # None: itself
    cdef public object _programs
    cdef public Py_ssize_t _hits, _misses

    def __cinit__(self, *args, **kwargs):
        self.recent = ()

    def replays_of(self, _Replays other not None):
        """Its programs are those of another function."""
        if other is self or other.of is not None:
            raise ValueError("other: expected one with programs of its own")
        self.of, self.version = other, other.version

    def __call__(self, *args, **kwargs):
        cdef _Replays owner = self if self.of is None else self.of
        cdef tuple recent
        cdef _Replay replay
        cdef Py_ssize_t k
        cdef list leaves
        if FG_UNLIKELY(recordings != 0) and current_recorder() != NULL or anomaly_blocks != 0:
            return self._call(args, kwargs)
        if self.version != owner.version:
            self.recent, self.version = (), owner.version
        recent = self.recent
        for k in range(len(recent)):
            replay, leaves = <_Replay>recent[k], []
            if not replay.matches(args, kwargs, leaves):
                continue
            if self.recent is not recent or self.version != owner.version:   # it has run Python code
                break
            if k > 0:
                self.recent = (replay, *recent[:k], *recent[k + 1:])
            owner.use(replay.found_by)
            if replay.core is None:
                return replay.payload(leaves)
            return filled(replay.template, replay.core.run(leaves))
        return self._call(args, kwargs)

    cpdef int use(self, found_by) except -1:
        """Count a call of the program that has this key."""
        self._hits += 1
        if self.latest is not found_by:
            if found_by in self._programs:   # another thread may have put it out
                self._programs.move_to_end(found_by)
            self.latest = found_by
        return 0

    def remember(self, _Replay replay not None):
        """Try it first at the next calls."""
        self.recent = (replay, *[other for other in self.recent if (<_Replay>other).found_by is not replay.found_by])[
            :MOST_RECENT]

    def forget(self):
        """Forget the last calls: programs have come, or gone."""
        self.recent, self.latest = (), None
        self.version += 1
