# places.pxi: Where a recorded function has found things, and whether these are there still.
#
# That is asked at each call of a compiled function: it takes some nanoseconds for a place. Lists own what a place
# consists of, for Python to append to and its garbage collector to follow; an array has the same for C to read.
#
# Uses attributes, messages, neurons, python.

_MISSING = MISSING   # in place of an object of _Places: there was none


cdef bint is_same(object now, object x) except -1:
    """Whether two objects are equal numbers or texts of one type."""
    return type(now) is type(x) and type(x) in (int, float, bool, str) and repr(now) == repr(x)


cdef bint has_id(tuple objects, set ids) except -1:
    """Whether the id of one of the objects, mostly of the first, is there."""
    for x in objects:
        if id(x) in ids:
            return True
    return False


cdef bint is_neuron(Weights neuron, tuple noted) except -1:
    """Whether a neuron computes with the weights, the bias and the activation that were noted."""
    cdef Py_ssize_t k
    cdef tuple kept
    if neuron.bias is not noted[2] or neuron.code != <int>noted[3]:
        return False
    if not is_current(neuron):
        if see(neuron) == 0:
            return False
    kept = neuron.kept
    if kept is not noted[1]:
        if len(kept) != len(<tuple>noted[1]):
            return False
        for k in range(len(kept)):
            if kept[k] is not (<tuple>noted[1])[k]:
                return False
    return True


cdef bint are_there(object container, tuple snapshot) except -1:
    """Whether a list or dict has these objects, in this order."""
    cdef Py_ssize_t k
    if isinstance(container, list):
        return PySequence_Fast_GET_SIZE(container) == len(snapshot) and (len(snapshot) == 0 or memcmp(
            PySequence_Fast_ITEMS(container), PySequence_Fast_ITEMS(snapshot), len(snapshot) * sizeof(PyObject *)) == 0)
    if len(container) != len(snapshot):
        return False
    for k, now in enumerate(tuple(container.values())):
        if now is not snapshot[k]:
            return False
    return True


cdef inline bint is_there(PyObject *now, PyObject *x) noexcept:
    """Whether that is x; NULL stands for None."""
    return now == x or now == NULL and x == Py_None


# One place, without references of its own.
cdef struct Place:
    PyObject *of     # a dict, a list, a cell, a neuron or a function
    PyObject *noted  # the tuple that describes the place
    PyObject *a      # dict: the key. list: the tuple. neuron: its weights. function: its code
    PyObject *b      # dict, cell: the object. neuron: its bias. function: its defaults
    PyObject *c      # function: the defaults of keywords
    int code         # neuron: its activation


@cython.final
@cython.auto_pickle(False)
cdef class _Places:
    """Where a recorded function found things: asked at each call whether they are there still.

    Attributes
    ----------
    dicts : list of (dict, key, object)
    lists : list of (list or dict, tuple)
        With all that was in them.
    cells : list of (cell, object)
    neurons : list of (Weights, tuple of its weights, its bias, its activation)
    functions : list of (function, its code, its defaults, those of keywords)
    """
    cdef readonly list dicts, lists, cells, neurons, functions
    cdef Place *places      # [known] the same, in this order
    cdef Py_ssize_t known
    cdef Py_ssize_t[5] ends   # where each kind's places end

    def __cinit__(self):
        self.dicts, self.lists, self.cells, self.neurons, self.functions = [], [], [], [], []

    def __dealloc__(self):
        PyMem_Free(self.places)

    def __bool__(self):
        return self.count() > 0

    cdef Py_ssize_t count(self) except -1:
        return len(self.dicts) + len(self.lists) + len(self.cells) + len(self.neurons) + len(self.functions)

    def note_neuron(self, Weights neuron not None, set captured not None):
        """Note it if it computes with what is among `captured`, ids; whether it does."""
        if not is_current(neuron):
            see(neuron)
        if neuron.kept is None or not (id(neuron.bias) in captured or has_id(neuron.kept, captured)):
            return False
        self.neurons.append((neuron, neuron.kept, neuron.bias, neuron.code))
        return True

    cdef int look(self) except -1:
        """Enter all places into the array."""
        cdef Py_ssize_t k = 0, kind
        cdef Place *place
        cdef PyObject **parts
        self.known = 0
        PyMem_Free(self.places)
        self.places = <Place *>PyMem_Calloc(self.count() + 1, sizeof(Place))
        if self.places == NULL:
            raise MemoryError()
        for kind, places in enumerate((self.dicts, self.lists, self.cells, self.neurons, self.functions)):
            for noted in places:
                if type(noted) is not tuple or len(<tuple>noted) != (3, 2, 2, 4, 4)[kind]:
                    raise TypeError(f"places: got {describe(noted)}")
                parts = PySequence_Fast_ITEMS(<tuple>noted)
                place = &self.places[k]
                place.noted, place.of, place.a = <PyObject *>noted, parts[0], parts[1]
                if kind == 2:
                    place.b = parts[1]
                elif kind != 1:
                    place.b = parts[2]
                if kind == 3:
                    place.code = <int>(<tuple>noted)[3]
                elif kind == 4:
                    place.c = parts[3]
                k += 1
            self.ends[kind] = k
        self.known = k
        return 0

    cpdef bint hold(self) except -1:
        """Whether all are there."""
        cdef Place *place
        cdef Place *end
        cdef PyObject *found
        if self.dicts is None:   # the garbage collector has been here
            return False
        if self.known != self.count():
            self.look()
        place, end = self.places, self.places + self.ends[0]
        while place < end:
            found = PyDict_GetItem_(place.of, place.a)
            found = <PyObject *>MISSING if found == NULL else found
            if found != place.b and not is_same(<object>found, <object>place.b):
                return False
            place += 1
        end = self.places + self.ends[1]
        while place < end:
            if not are_there(<object>place.of, <tuple>place.a):
                return False
            place += 1
        end = self.places + self.ends[2]
        while place < end:
            found = PyCell_GET(place.of)
            if found == NULL or found != place.b and not is_same(<object>found, <object>place.b):
                return False
            place += 1
        end = self.places + self.ends[3]
        while place < end:
            if (<PyObject *>(<Weights>place.of).kept != place.a or <PyObject *>(<Weights>place.of).bias != place.b
                    or (<Weights>place.of).code != place.code
                    or (<Weights>place.of).handed_out is not None) and not self.is_still(place):
                return False
            place += 1
        end = self.places + self.ends[4]
        while place < end:
            if (PyFunction_GetCode(place.of) != place.a
                    or not is_there(PyFunction_GetDefaults(place.of), place.b)
                    or not is_there(PyFunction_GetKwDefaults(place.of), place.c)):
                return False
            place += 1
        return True

    cdef bint is_still(self, Place *place) except -1:
        """Whether a neuron computes with what was noted, in whatever tuples and lists."""
        cdef Weights neuron = <Weights>place.of
        if not is_neuron(neuron, <tuple>place.noted):
            return False
        if <PyObject *>neuron.kept != place.a:   # from now on that is the tuple
            noted = (neuron, neuron.kept, neuron.bias, neuron.code)
            self.neurons[place - self.places - self.ends[2]] = noted
            place.noted, place.a = <PyObject *>noted, <PyObject *>neuron.kept
        return True
