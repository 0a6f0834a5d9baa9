# draws.pxi: What programs draw at random, by generators of NumPy, in the order in which their functions draw it.
#
# Promises that numbers which are drawn in one go are those of single draws, one after the other, and that nobody else
# draws from their generators meanwhile.
#
# Uses handles, python.

# As numpy/random/bitgen.h declares it: what the capsule of a BitGenerator holds.
cdef struct BitGen:
    void *state
    uint64_t (*next_uint64)(void *state) noexcept nogil
    uint32_t (*next_uint32)(void *state) noexcept nogil
    double (*next_double)(void *state) noexcept nogil
    uint64_t (*next_raw)(void *state) noexcept nogil


_DRAWS = {"uniform": FG_DRAW_UNIFORM, "normal": FG_DRAW_NORMAL, "threshold": FG_DRAW_THRESHOLD}


@cython.final
@cython.auto_pickle(False)
cdef class _Draws:
    """Numbers that are drawn at random, again and again, in an order.

    Parameters
    ----------
    rng : numpy.random.Generator, optional
        The first of them are drawn from it.
    kind : str, optional
        ``"uniform"``: a + b * u, where u is from 0 to before 1; ``"normal"``: a + b * z, where z is of the standard
        normal distribution; ``"threshold"``: b where u < a, and c elsewhere.
    shape : tuple of int, optional
        Of at most two dimensions.
    a, b, c : float, optional

    Attributes
    ----------
    shapes : list of tuple
        Of each array, () for a number.
    size : int
        How many numbers it draws.

    Examples
    --------
    >>> import numpy as np
    >>> from flatgrad._core import _Draws
    >>> rng = np.random.default_rng(0)
    >>> draws = _Draws(rng, "uniform", (2,), 0.0, 1.0)
    >>> draws.extend(_Draws(rng, "threshold", (), 0.5, 1.0, 0.0).repeated(3))
    >>> draws.shapes
    [(2,), (3,)]
    >>> [x.round(3).tolist() for x in draws.draw()]
    [[0.637, 0.27], [1.0, 1.0, 0.0]]
    """
    cdef fg_draw *entries
    cdef size_t count, room
    cdef readonly list shapes
    cdef readonly Py_ssize_t size
    cdef list sources   # the BitGenerators, each once

    def __cinit__(self, *args, **kwargs):
        self.shapes, self.sources = [], []

    def __dealloc__(self):
        PyMem_Free(self.entries)

    def __init__(self, rng=None, kind="uniform", shape=(), double a=0.0, double b=1.0, double c=0.0):
        cdef fg_draw entry
        cdef BitGen *bits
        if self.count > 0:
            raise RuntimeError("draws are made once")
        if rng is None:
            return
        memset(&entry, 0, sizeof(entry))
        entry.kind = _DRAWS[one_of("kind", kind, tuple(_DRAWS))]
        entry.count, entry.a, entry.b, entry.c = checked_size("shape", tuple(shape)), a, b, c
        source = rng.bit_generator
        bits = bits_of(source)
        entry.state, entry.uniform, entry.bits = bits.state, bits.next_double, bits.next_uint64
        self.append(&entry)
        self.sources.append(source)
        self.shapes.append(tuple(shape))
        self.size = <Py_ssize_t>entry.count

    cdef int append(self, fg_draw *entry) except -1:
        cdef size_t room
        cdef fg_draw *entries
        if self.count == self.room:
            room = 2 * self.room + 1
            entries = <fg_draw *>PyMem_Realloc(self.entries, room * sizeof(fg_draw))
            if entries == NULL:
                raise MemoryError()
            self.entries, self.room = entries, room
        self.entries[self.count] = entry[0]
        self.count += 1
        return 0

    cdef int hold(self, list sources) except -1:
        """Keep generators, which are drawn from."""
        for source in sources:
            if not any([source is x for x in self.sources]):
                self.sources.append(source)
        return 0

    def extend(self, _Draws other not None):
        """Draw what the other draws, after this."""
        cdef size_t k, before = self.count
        cdef fg_draw entry
        self.hold(other.sources)
        try:
            for k in range(other.count):
                entry = other.entries[k]
                entry.at += <size_t>self.size
                self.append(&entry)
        except:
            self.count = before
            raise
        self.size += other.size
        self.shapes += other.shapes

    def repeated(self, times, backwards=False, in_rows=False):
        """Draws of the same, so many times: each array has one more dimension, along which they lie.

        Parameters
        ----------
        times : int
        backwards : bool, optional
            Whether the first time is the last along that dimension.
        in_rows : bool, optional
            Whether all arrays have two dimensions, a row for each time.

        Returns
        -------
        _Draws
        """
        cdef _Draws made = _Draws()
        cdef fg_draw entry
        cdef size_t k
        memset(&entry, 0, sizeof(entry))
        entry.kind, entry.backwards = FG_DRAW_TIMES, bool(backwards)
        entry.times, entry.members = times, self.count
        shapes = [(int(times), checked_size("shape", shape)) if in_rows else (int(times), *shape)
                  for shape in self.shapes]
        for shape in shapes:
            checked_size("shape", shape)
        made.append(&entry)
        for k in range(self.count):
            entry = self.entries[k]
            entry.at *= <size_t>times
            made.append(&entry)
        made.shapes, made.size, made.sources = shapes, self.size * times, list(self.sources)
        return made

    def states(self):
        """(BitGenerator, its state) of all generators."""
        return [(source, source.state) for source in self.sources]

    cdef int lock(self, list held) except -1:
        """Lock the generators, always in the same order; `held` gets what unlocks them, so that nothing has to be made
        in between. It may wait."""
        for source in sorted(self.sources, key=id):
            release = source.lock.release
            acquire = source.lock.acquire
            held.append(None)
            acquire()
            held[-1] = release
        return 0

    def draw(self, aside=None):
        """Draw the numbers.

        Parameters
        ----------
        aside : dict, optional
            Draw from copies of the generators, and keep them there by ids.

        Returns
        -------
        list of float and ndarray
            For each of `shapes`.
        """
        cdef double[::1] numbers
        cdef fg_draw *entries = self.entries
        cdef BitGen *bits
        cdef BitGen *own
        cdef size_t k
        cdef list held = [], found = []
        import copy
        import numpy

        if self.count == 0:
            return found
        array = numpy.empty(self.size)
        numbers = array
        if aside is None:
            try:
                self.lock(held)
                fg_draws_take(entries, self.count, &numbers[0])
            finally:
                release_all(held)
        else:
            scratch = bytearray(self.count * sizeof(fg_draw))
            entries = <fg_draw *><char *>scratch
            memcpy(entries, self.entries, self.count * sizeof(fg_draw))
            for source in self.sources:
                if id(source) not in aside:
                    aside[id(source)] = source, copy.deepcopy(source)
                bits, own = bits_of(source), bits_of(aside[id(source)][1])
                for k in range(self.count):
                    if self.entries[k].state == bits.state:
                        entries[k].state = own.state
            fg_draws_take(entries, self.count, &numbers[0])
        at = 0
        for shape in self.shapes:
            if len(shape) == 0:
                found.append(numbers[at])
                at += 1
            else:
                size = shape[0] if len(shape) == 1 else shape[0] * shape[1]
                found.append(array[at:at + size].reshape(shape))
                at += size
        return found


cdef Py_ssize_t checked_size(str name, tuple shape) except -1:
    """How many numbers an array of that shape has."""
    cdef Py_ssize_t size = 1
    if len(shape) > 2:
        raise ShapeError(f"{name}: expected at most two dimensions, got {shape}")
    for n in shape:
        if n <= 0:
            raise ShapeError(f"{name}: expected at least one element in each dimension, got {shape}")
        size = size * <Py_ssize_t>n if size < MOST_NODES and n < MOST_NODES else MOST_NODES
    if size >= MOST_NODES:
        raise MemoryError(f"flatgrad: random numbers of the shape {shape} do not fit on the tape")
    return size


cdef BitGen *bits_of(object source) except NULL:
    """The functions of a BitGenerator."""
    return <BitGen *>PyCapsule_GetPointer(source.capsule, "BitGenerator")


cdef int release_all(list held) except -1:
    cdef Py_ssize_t k
    for k in range(len(held)):
        release, held[k] = held[k], None   # once, whoever comes here again
        if release is not None:
            release()
    held.clear()
    return 0
