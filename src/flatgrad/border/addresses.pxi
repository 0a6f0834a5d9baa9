# addresses.pxi: A set of addresses, each with a number: no Python object is touched, and no reference counted.
#
# Uses python.

cdef struct Addresses:
    void **keys          # [size], NULL: an empty place
    Py_ssize_t *numbers  # [size]
    size_t size          # a power of two, or 0
    size_t count
    size_t factor        # numbers that follow each other are found at places that do, with 0; objects lie apart


cdef enum:
    SPREAD = 0x1E3779B1


cdef size_t place_in(const Addresses *a, const void *key) noexcept:
    """Where the address is, or would be. Precondition: a.size > 0."""
    cdef size_t place = ((<size_t>key >> 4) * (a.factor | 1)) & (a.size - 1)
    while a.keys[place] != NULL and a.keys[place] != key:
        place = (place + 1) & (a.size - 1)
    return place


cdef Py_ssize_t number_of(const Addresses *a, const void *key) noexcept:
    """The number of the address; -1 if it is not there."""
    cdef size_t place
    if a.size == 0:
        return -1
    place = place_in(a, key)
    return a.numbers[place] if a.keys[place] != NULL else -1


cdef bint make_place(Addresses *a) noexcept:
    """Make room for one more; False if memory is short, and then nothing has changed."""
    cdef Addresses larger
    cdef size_t k, place
    if 2 * a.count < a.size:
        return True
    larger.size = 2 * a.size if a.size > 0 else 256
    larger.count = a.count
    larger.factor = a.factor
    larger.keys = <void **>PyMem_Calloc(larger.size, sizeof(void *))
    larger.numbers = <Py_ssize_t *>PyMem_Malloc(larger.size * sizeof(Py_ssize_t))
    if larger.keys == NULL or larger.numbers == NULL:
        PyMem_Free(larger.keys)
        PyMem_Free(larger.numbers)
        return False
    for k in range(a.size):
        if a.keys[k] != NULL:
            place = place_in(&larger, a.keys[k])
            larger.keys[place] = a.keys[k]
            larger.numbers[place] = a.numbers[k]
    free_addresses(a)
    a[0] = larger
    return True


cdef bint enter(Addresses *a, void *key, Py_ssize_t number) noexcept:
    """Give the address that number; False if memory is short."""
    cdef size_t place
    if not make_place(a):
        return False
    place = place_in(a, key)
    a.count += a.keys[place] == NULL
    a.keys[place] = key
    a.numbers[place] = number
    return True


cdef void free_addresses(Addresses *a) noexcept:
    PyMem_Free(a.keys)
    PyMem_Free(a.numbers)
    a[0] = Addresses(NULL, NULL, 0, 0, a.factor)
