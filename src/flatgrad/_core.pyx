"""The compiled core: ``Value`` and what works on the tape directly.

The only border between Python and C. Here arguments are checked and converted, Python objects are
tied to nodes, and the core's status codes become exceptions. Everything about the tape itself is in
``csrc/``.

Three rules keep it sound. Convert operands first (that can run Python code), then make room (that
can renumber), then read ids. Nothing that runs Python code comes between reading an id and using it.
And a node is appended only when nothing after it can fail.
"""
cimport cython
from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_Check
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_Check
from cpython.object cimport PyObject
from cpython.weakref cimport PyWeakref_NewRef
from libc.math cimport INFINITY, fabs, isfinite, isnan, sqrt
from libc.stdlib cimport qsort
from libc.string cimport memcpy, memset

import copyreg
import gc
import operator
import os
import sys
from contextvars import ContextVar

from flatgrad.arguments import flag, one_of, shortened
from flatgrad.errors import ArgumentError, ArgumentTypeError, ShapeError


cdef extern from "Python.h":
    ctypedef int (*visitproc)(PyObject *o, void *arg) noexcept
    ctypedef void *destructor
    ctypedef void *vectorcallfunc
    ctypedef struct PyNumberMethods:
        void *nb_add
        void *nb_multiply
    ctypedef struct PyTypeObject:
        destructor tp_dealloc
        void (*tp_free)(PyObject *o)
        void *tp_init
        void *tp_new
        object (*tp_call)(PyObject *tp, object args, object kwargs)
        vectorcallfunc tp_vectorcall
        PyNumberMethods *tp_as_number
        int (*tp_traverse)(PyObject *o, visitproc visit, void *arg) noexcept
        void *tp_finalize
        unsigned long tp_flags
        const char *tp_name
        const char *tp_doc
        void *tp_descr_get
        void *tp_descr_set
    int PyOS_InterruptOccurred()
    void PyErr_SetInterrupt()
    unsigned long PyThread_get_thread_ident()
    PyTypeObject PyType_Type
    PyObject *_PyType_Lookup(PyTypeObject *tp, PyObject *name)
    PyObject *PyType_GenericAlloc(PyTypeObject *tp, Py_ssize_t nitems) except NULL
    void PyObject_ClearWeakRefs(PyObject *o)
    # By pointer: a dying object must not be touched by automatic reference counting.
    PyTypeObject *Py_TYPE(PyObject *o)
    Py_ssize_t Py_REFCNT(PyObject *o)
    void Py_INCREF(PyObject *o)
    void Py_DECREF(PyObject *o)
    void Py_SET_REFCNT(PyObject *o, Py_ssize_t count)
    Py_ssize_t PyVectorcall_NARGS(size_t nargsf)
    ctypedef void *PyCFunction
    ctypedef struct PyMethodDef:
        const char *ml_name
        PyCFunction ml_meth
        int ml_flags
        const char *ml_doc
    ctypedef struct PyMethodDescrObject:
        PyMethodDef *d_method
    bint PyObject_TypeCheck(PyObject *o, PyTypeObject *tp)
    object PyLong_FromVoidPtr(void *pointer)
    void *PyLong_AsVoidPtr(object x) except? NULL
    PyObject *PyDict_GetItemWithError(object d, object key) except? NULL
    PyTypeObject PyFloat_Type, PyDict_Type, PyTuple_Type
    void *PyMem_Malloc(size_t size)
    void *PyMem_Realloc(void *pointer, size_t size)
    void PyMem_Free(void *pointer)
    int PyObject_GenericSetAttr(object o, object name, PyObject *value) except -1
    Py_ssize_t PySequence_Fast_GET_SIZE(object sequence)
    PyObject **PySequence_Fast_ITEMS(object sequence)
    int METH_NOARGS
    int METH_FASTCALL
    int METH_KEYWORDS
    object PyDescr_NewMethod(PyTypeObject *tp, PyMethodDef *definition)
    object PyCFunction_NewEx(PyMethodDef *definition, PyObject *self, object module)
    void *PyMem_Calloc(size_t count, size_t size)


cdef extern from *:
    """
    /* A Python method or function is a C function of its own, so each row of ops.def makes one
     * that only adds its opcode. */
    typedef PyObject *(*fg_apply_method)(int op, PyObject *self);
    typedef PyObject *(*fg_apply_function)(int op, PyObject **args, Py_ssize_t count);
    static fg_apply_method fg_method_hook;
    static fg_apply_function fg_function_hook;

    #define FG_ROW_FUNCTION(ID)                                                              \\
        static PyObject *fg_function_##ID(PyObject *m, PyObject *const *args, Py_ssize_t n)  \\
        {                                                                                    \\
            (void)m;                                                                         \\
            return fg_function_hook(FG_##ID, (PyObject **)args, n);                          \\
        }
    #define FG_UNARY(ID, ...)                                                                \\
        FG_ROW_FUNCTION(ID)                                                                  \\
        static PyObject *fg_method_##ID(PyObject *self, PyObject *unused)                    \\
        {                                                                                    \\
            (void)unused;                                                                    \\
            return fg_method_hook(FG_##ID, self);                                            \\
        }
    #define FG_BINARY(ID, ...) FG_ROW_FUNCTION(ID)
    #define FG_TERNARY(ID, ...) FG_ROW_FUNCTION(ID)
    #include "ops.def"

    static PyCFunction const fg_methods[FG_OPS] = {
    #define FG_UNARY(ID, ...) [FG_##ID] = fg_method_##ID,
    #include "ops.def"
    };
    static PyCFunction const fg_functions[FG_OPS] = {
    #define FG_UNARY(ID, ...) [FG_##ID] = (PyCFunction)(void (*)(void))fg_function_##ID,
    #define FG_BINARY(ID, ...) [FG_##ID] = (PyCFunction)(void (*)(void))fg_function_##ID,
    #define FG_TERNARY(ID, ...) [FG_##ID] = (PyCFunction)(void (*)(void))fg_function_##ID,
    #include "ops.def"
    };

    /* NumPy's ufuncs that are operators, in the order of `operator_ufuncs`, and its scalars; NULL until it has asked
     * for one. */
    enum { FG_UFUNC_ADD, FG_UFUNC_SUB, FG_UFUNC_MUL, FG_UFUNC_DIV, FG_UFUNC_POW, FG_UFUNC_LT, FG_UFUNC_LE,
           FG_UFUNC_GT, FG_UFUNC_GE, FG_UFUNCS };
    static PyObject *fg_ufuncs[FG_UFUNCS];
    static PyTypeObject *fg_np_generic, *fg_np_array;
    typedef PyObject *(*fg_ufunc_function)(PyObject *self, PyObject **args, Py_ssize_t count, PyObject *names);
    static fg_ufunc_function fg_ufunc_hook;

    /* Value.__array_ufunc__(ufunc, method, *inputs, **kwargs). Here NumPy leaves `np.float64(2) * v` to us: it takes
     * the operator itself, by the slot that Python would call had NumPy's scalar declined. */
    static PyObject *fg_array_ufunc(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
    {
        if (count == 4 && names == NULL && fg_np_generic != NULL && PyUnicode_Check(args[1])
            && PyUnicode_CompareWithASCIIString(args[1], "__call__") == 0) { /* NumPy makes it anew each time */
            PyObject *left = args[2], *right = args[3], *other = left == self ? right : left, *z = NULL;
            const PyTypeObject *type = Py_TYPE(self);
            static const int swapped[] = {Py_GT, Py_GE, Py_LT, Py_LE}, straight[] = {Py_LT, Py_LE, Py_GT, Py_GE};
            if (PyObject_TypeCheck(other, fg_np_generic)) {
                if (args[0] == fg_ufuncs[FG_UFUNC_MUL])
                    z = type->tp_as_number->nb_multiply(left, right);
                else if (args[0] == fg_ufuncs[FG_UFUNC_ADD])
                    z = type->tp_as_number->nb_add(left, right);
                else if (args[0] == fg_ufuncs[FG_UFUNC_SUB])
                    z = type->tp_as_number->nb_subtract(left, right);
                else if (args[0] == fg_ufuncs[FG_UFUNC_DIV])
                    z = type->tp_as_number->nb_true_divide(left, right);
                else if (args[0] == fg_ufuncs[FG_UFUNC_POW])
                    z = type->tp_as_number->nb_power(left, right, Py_None);
                else
                    goto compare;
                if (z != Py_NotImplemented)
                    return z;
                Py_DECREF(z);
            } else if (PyObject_TypeCheck(other, fg_np_array)) {
            compare:
                for (int k = 0; k < 4; k++)
                    if (args[0] == fg_ufuncs[FG_UFUNC_LT + k]) {
                        z = type->tp_richcompare(self, other, left == self ? straight[k] : swapped[k]);
                        if (z != Py_NotImplemented)
                            return z;
                        Py_DECREF(z);
                    }
            }
        }
        return fg_ufunc_hook(self, (PyObject **)args, count, names);
    }
    static PyCFunction const fg_array_ufunc_method = (PyCFunction)(void (*)(void))fg_array_ufunc;

    /* The memory of a Value, for code that must not count references. */
    typedef struct fg_handle {
        PyObject_HEAD
        fg_id id;
        PyObject *weak_references;
    } fg_handle;

    /* A pointer that we own, handed to Cython as a reference that it owns from then on. */
    #define FG_GIVE(pointer) (pointer)
    """
    ctypedef object (*fg_apply_method)(int, PyObject *)
    ctypedef object (*fg_apply_function)(int, PyObject **, Py_ssize_t)
    fg_apply_method fg_method_hook
    fg_apply_function fg_function_hook
    const PyCFunction fg_methods[]
    const PyCFunction fg_functions[]
    object FG_GIVE(PyObject *pointer)
    enum:
        FG_UFUNCS
    PyObject *fg_ufuncs[]
    PyTypeObject *fg_np_generic
    PyTypeObject *fg_np_array
    ctypedef object (*fg_ufunc_function)(PyObject *, PyObject **, Py_ssize_t, PyObject *)
    fg_ufunc_function fg_ufunc_hook
    const PyCFunction fg_array_ufunc_method
    ctypedef struct fg_handle:
        fg_id id
        PyObject *weak_references


cdef class _Rule   # defined below


@cython.final
cdef class _Run:
    """Keeps the numbers of a tensor, or the results of an instruction, together on the tape."""
    cdef fg_id id       # of the node above them; the tape renumbers it. First, as in Value
    cdef fg_id count    # how many there are
    cdef bint leaves    # it is counted in live_runs

    def __dealloc__(self):
        run_gone(self)

    def __reduce__(self):
        return _member, place_in_graph(self)

    def __deepcopy__(self, memo):
        return deep_copy(self, memo)


cdef class Tensor   # defined below


cdef class _Graph   # defined below


# ---- the tape, and errors ----

cdef fg_tape tape            # the one live tape; the GIL guards it
cdef bint draining = False   # drain() is under way further up the stack


cdef list kernel_levels():
    cdef list names = []
    while fg_cpu_level(len(names)) != NULL:
        names.append(fg_cpu_level(len(names)).decode())
    return names


cdef const fg_kernels *chosen_kernels() except NULL:
    """The best that this processor can run, or those that FLATGRAD_ISA names."""
    name = os.environ.get("FLATGRAD_ISA", "")
    encoded = name.encode("ascii", "replace")
    cdef const char *isa = encoded
    cdef const fg_kernels *kernels = fg_cpu_kernels(isa if name else NULL)
    if kernels == NULL:
        raise ImportError(f"FLATGRAD_ISA={name!r}: expected one of {', '.join(kernel_levels())}, which "
                          "this build has and this processor can run")
    return kernels


if fg_tape_init(&tape, chosen_kernels()) < 0:
    raise MemoryError("flatgrad: no memory for the tape")


cdef int drain() noexcept:
    """Dispose of what dead nodes had attached. Runs Python code; nested calls leave it to the first,
    so that a long chain of such nodes does not recurse."""
    global draining
    cdef fg_box *box
    cdef PyObject *extra
    if draining:
        return 0
    draining = True
    while tape.dead != NULL:
        box = tape.dead
        tape.dead = box.next
        extra = <PyObject *>box.extra
        fg_tape_box_free(&tape, box)
        if extra != NULL:
            Py_DECREF(extra)
    draining = False
    return 0


cdef int raise_status(int status) except -1:
    """The exception for a status that has nothing to do with numbers."""
    if status == FG_E_FULL:
        raise MemoryError(f"flatgrad: the tape is full: {tape.n - 1} nodes and {tape.npool} "
                          f"operands of at most {tape.limit} each")
    raise MemoryError(f"flatgrad: no memory for more than {tape.capacity} nodes")


cdef int raise_operation(int status, int op, tuple operands, str where="") except -1:
    """The exception for an operation outside its domain. Names the operation and its operands."""
    cdef str symbol = fg_op_table[op].symbol.decode()
    cdef str what
    if fg_op_table[op].is_public:
        what = f"{fg_op_table[op].name.decode()}({', '.join([repr(x) for x in operands])})"
    else:
        what = f" {symbol} ".join([repr(x) for x in operands])
    what += where
    cdef str expected = f"expected {fg_op_table[op].domain.decode()}"
    if status == FG_E_ZERO_DIVISION:
        raise ZeroDivisionError(f"division by zero: {what}; {expected}")
    if status == FG_E_OVERFLOW:
        raise OverflowError(f"result too large: {what}; {expected}")
    raise ValueError(f"math domain error: {what}; {expected}")


cdef int reserve(fg_id nodes, fg_id operands) except -1:
    """Make room on the tape. Ids may change, and Python code may run."""
    cdef int status
    cdef bint boxes = tape.boxes > 0 and (tape.n + <uint64_t>nodes > tape.collect_at
                                          or tape.npool + <uint64_t>operands > tape.pool_collect_at)
    if boxes:
        before_collecting()
    while True:
        status = fg_tape_reserve(&tape, nodes, operands)
        if status < 0:
            raise_status(status)
        if boxes:
            collected()
        if tape.dead == NULL or draining:
            return 0
        drain()


cdef inline int reserve_few(fg_id nodes) except -1:
    """reserve(nodes, 0) for nodes < 16, where the sum cannot wrap: FG_MAX_ID leaves 16 ids."""
    if tape.n + nodes > tape.room:
        reserve(nodes, 0)
    return 0


# ---- handles ----

cdef enum:
    FREE_MAX = 256
    MOST_NODES = 1 << 30   # of one instruction, and of one saved graph

cdef PyObject *free_list[FREE_MAX]   # dead handles of exactly type Value, each with its reference
                                     # to the type, for reuse
cdef int free_count = 0


cdef inline fg_handle *new_handle() except NULL:
    """A new Value that is no node's handle yet. Runs no Python code: Value is not GC-tracked."""
    global free_count
    if free_count > 0:
        free_count -= 1
        Py_SET_REFCNT(free_list[free_count], 1)
        return <fg_handle *>free_list[free_count]
    return <fg_handle *>PyType_GenericAlloc(<PyTypeObject *>Value, 0)


cdef extern from *:
    """
    #if defined(__GNUC__)
    #define FG_COLD __attribute__((cold, noinline, returns_nonnull))
    #define FG_INLINED inline __attribute__((always_inline, returns_nonnull))
    #else
    #define FG_COLD
    #define FG_INLINED inline
    #endif
    #if defined(_MSC_VER)
    static __declspec(thread) Py_ssize_t fg_rules; /* users' backward rules that are running, in this thread */
    static __declspec(thread) Py_ssize_t fg_arrays; /* calls of elementwise() that are, one in the other */
    #else
    static _Thread_local Py_ssize_t fg_rules;
    static _Thread_local Py_ssize_t fg_arrays;
    #endif
    static Py_ssize_t fg_blocks;          /* no_grad() blocks that are open, anywhere: it costs nothing to read */
    static int (*fg_is_unrecorded)(void); /* whether one is around us: see _context.pxi */

    /* fg_give while there are no_grad() blocks: if one is around us, the node becomes a leaf. */
    static FG_COLD PyObject *fg_give_unrecorded(fg_tape *t, fg_handle *handle, fg_id i)
    {
        if (fg_is_unrecorded()) {
            const int op = fg_tape_op(t, i);
            i = fg_tape_forget(t, i, fg_op_is_pooled(op) || fg_op_is_block(op) ? t->args[i].a : t->npool);
        }
        handle->id = i;
        t->owner[i] = &handle->id;
        return (PyObject *)handle;
    }

    /* Tie a new handle to node i, which is on top and has none and no box. In C for the sake of its inlining:
     * every operator ends with it. */
    static FG_INLINED PyObject *fg_give(fg_tape *t, fg_handle *handle, fg_id i)
    {
        if (FG_UNLIKELY(fg_blocks != 0))
            return fg_give_unrecorded(t, handle, i);
        handle->id = i;
        t->owner[i] = &handle->id;
        return (PyObject *)handle;
    }
    """
    Py_ssize_t fg_blocks, fg_rules, fg_arrays
    bint (*fg_is_unrecorded)() noexcept
    PyObject *fg_give(fg_tape *t, fg_handle *handle, fg_id i)


cdef inline bint unrecorded() noexcept:
    """Whether there is a no_grad() block around us."""
    return FG_UNLIKELY(fg_blocks != 0) and fg_is_unrecorded()


cdef object handle_of(fg_id i):
    """The canonical handle of node i, made if there is none."""
    cdef fg_id *holder = fg_tape_holder(&tape, i)
    cdef PyObject *o
    cdef fg_handle *handle
    if holder != NULL:
        o = <PyObject *>(<char *>holder - sizeof(PyObject))   # `id` follows the object's head
        if Py_REFCNT(o) > 0:
            return <object>o
        holder[0] = 0   # it is being destroyed; from now on it holds the sentinel, that is nothing
    handle = new_handle()
    handle.id = i
    fg_tape_hold(&tape, i, &handle.id)
    return FG_GIVE(<PyObject *>handle)


cdef void value_dealloc(PyObject *o) noexcept:
    """tp_dealloc of Value. Lets go of the node first: what runs later must not find this handle."""
    global free_count
    cdef fg_handle *handle = <fg_handle *>o
    cdef fg_id i = handle.id
    cdef PyTypeObject *tp = Py_TYPE(o)
    if fg_tape_holder(&tape, i) == &handle.id:
        fg_tape_hold(&tape, i, NULL)
        if i + 1 == tape.n or tape.op[i] >= FG_PART:   # its instruction may be on top
            fg_tape_pop(&tape)
    if handle.weak_references != NULL:
        PyObject_ClearWeakRefs(o)
    if tp == <PyTypeObject *>Value and free_count < FREE_MAX:
        free_list[free_count] = o
        free_count += 1
    else:
        tp.tp_free(o)
        Py_DECREF(<PyObject *>tp)
    if tape.dead != NULL:
        drain()


include "_cycles.pxi"


cdef list kept_alive = []   # what C structures point to


# ---- numbers ----

cdef object np = None   # NumPy's types, once it has been imported: before that nobody has any
cdef object np_array, np_generic, np_integer, np_timedelta64, np_floating, np_bool


cdef bint numpy_is_there():
    global np, np_array, np_generic, np_integer, np_timedelta64, np_floating, np_bool
    if np is None:
        np = sys.modules.get("numpy")
        if np is None:
            return False
        np_array, np_generic, np_bool = np.ndarray, np.generic, np.bool_
        np_integer, np_timedelta64, np_floating = np.integer, np.timedelta64, np.floating
    return True


cdef str describe(object x):
    """A value for an error message, with its type."""
    return f"{type(x).__name__} {shortened(x)}"


cdef inline bint small_int(object x, double *out) noexcept:
    """1 and *out if the int is within 2**53 of 0. Runs no Python code."""
    cdef int overflow
    cdef long long small = PyLong_AsLongLongAndOverflow(x, &overflow)
    out[0] = <double>small
    return overflow == 0 and -(1LL << 53) <= small <= (1LL << 53)


cdef int int_to_double(object x, double *out) except -1:
    """1, or ValueError if float64 does not hold the int exactly."""
    if small_int(x, out):
        return 1
    try:
        out[0] = float(x)
    except OverflowError:
        out[0] = 0.0
    if int(out[0]) != x:
        raise ValueError("expected a number that float64 holds exactly, got the int "
                         + (str(x) if x.bit_length() < 200 else f"of {x.bit_length()} bits")
                         + "; convert it with float() to round it")
    return 1


cdef int to_double(object x, double *out) except -1:
    """1 and *out for a real number: float, int, bool, their subclasses, a NumPy scalar.
    0 for anything else. May run Python code."""
    if PyFloat_Check(x):   # np.float64 as well
        out[0] = PyFloat_AS_DOUBLE(x)
        return 1
    if PyLong_Check(x):    # bool as well
        return int_to_double(x, out)
    if numpy_is_there() and isinstance(x, np_generic):
        if isinstance(x, np_integer) and not isinstance(x, np_timedelta64):   # a subclass
            return int_to_double(int(x), out)
        if isinstance(x, np_floating) or isinstance(x, np_bool):
            out[0] = float(x)
            return 1
    return 0


cdef inline double to_data(str name, object x) except? -1.0:
    """The float64 for the argument `name`; also takes a one-element array. May run Python code."""
    return PyFloat_AS_DOUBLE(x) if type(x) is float else to_data_slow(name, x)


cdef double to_data_slow(str name, object x) except? -1.0:
    cdef double out = 0.0
    try:
        if to_double(x, &out):
            return out
        if (numpy_is_there() and isinstance(x, np_array) and x.size == 1
                and x.dtype.kind in "biuf" and to_double(x.reshape(-1)[0], &out)):
            return out
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if isinstance(x, Value):
        raise TypeError(f"{name}: expected a real number, got a Value; use its .data")
    raise TypeError(f"{name}: expected a real number, got {describe(x)}")


# ---- operations ----

cdef object binary_failed(int status, int op, double x, double y):
    """The exception for x op y. Apart, for the operators below are to be inlined."""
    raise_operation(status, op, (x, y))


cdef inline object binary_values(int op, object left, object right):
    """left op right, both Values."""
    cdef double z = 0.0
    cdef int status
    cdef fg_id a, b
    cdef fg_handle *handle
    reserve_few(1)
    a = (<Value>left).id
    b = (<Value>right).id
    status = fg_op_binary(op, tape.data[a], tape.data[b], &z)
    if status < 0:
        return binary_failed(status, op, tape.data[a], tape.data[b])
    handle = new_handle()
    return FG_GIVE(fg_give(&tape, handle, fg_tape_push(&tape, op, a, b, z)))


cdef inline object value_number(int op, object left, double y):
    """left op y: a constant leaf and the operation."""
    cdef double z = 0.0
    cdef int status
    cdef fg_id a, b
    cdef fg_handle *handle
    reserve_few(2)
    a = (<Value>left).id
    status = fg_op_binary(op, tape.data[a], y, &z)
    if status < 0:
        return binary_failed(status, op, tape.data[a], y)
    handle = new_handle()
    b = fg_tape_push_leaf(&tape, y)
    return FG_GIVE(fg_give(&tape, handle, fg_tape_push(&tape, op, a, b, z)))


cdef inline object number_value(int op, double x, object right):
    """x op right: a constant leaf and the operation."""
    cdef double z = 0.0
    cdef int status
    cdef fg_id a, b
    cdef fg_handle *handle
    reserve_few(2)
    b = (<Value>right).id
    status = fg_op_binary(op, x, tape.data[b], &z)
    if status < 0:
        return binary_failed(status, op, x, tape.data[b])
    handle = new_handle()
    a = fg_tape_push_leaf(&tape, x)
    return FG_GIVE(fg_give(&tape, handle, fg_tape_push(&tape, op, a, b, z)))


cdef object unary(int op, object x, int32_t k):
    """op of a Value, with the row's immediate k (0 if it has none)."""
    cdef double z = 0.0
    cdef int status
    cdef fg_id a
    cdef fg_handle *handle
    reserve_few(1)
    a = (<Value>x).id
    status = fg_op_unary(op, tape.data[a], k, &z)
    if status < 0:
        operands = (tape.data[a],)
        raise_operation(status, op, operands + (k,) if op == FG_POWI else operands)
    handle = new_handle()
    return FG_GIVE(fg_give(&tape, handle, fg_tape_push(&tape, op, a, <fg_id>k, z)))


cdef int refuse_operand(str name, object x) except -1:
    """An error if NumPy would make a number of a time: it gives those in nanoseconds as ints. And if x is an array of
    dimension 0 with an array in it: NumPy does without the count of its own that ends the recursion into it."""
    if isinstance(x, (np_array, np_generic)) and x.dtype.kind in "mM":
        raise ArgumentTypeError(f"operand of {name}: expected numbers and Values, got times: {describe(x)}")
    if isinstance(x, np_array) and x.ndim == 0 and isinstance(x[()], np_array):
        raise ArgumentTypeError(f"operand of {name}: expected an array of numbers and Values, got one of dimension 0 "
                                "with an array in it")
    return 0


cdef int enter_array(str name) except -1:
    """Count an operation on the elements of an array, which may contain itself; leave_array() when it is over."""
    global fg_arrays
    if fg_arrays == 32:   # long before NumPy's frames fill a small stack; Python's own count may let them fill 8 MiB
        raise RecursionError(f"operand of {name}: expected an array of numbers and Values, got one that is in itself, or "
                             "arrays in one another more than 32 deep")
    fg_arrays += 1
    return 0


cdef void leave_array() noexcept:
    global fg_arrays
    fg_arrays -= 1


cdef object elementwise(int op, object left, object right):
    """An ndarray on one side: an object array of Values, each made by the operator itself."""
    ufunc = {FG_ADD: np.add, FG_SUB: np.subtract, FG_MUL: np.multiply, FG_DIV: np.true_divide,
             FG_POW: np.power}[op]
    for array in (left, right):
        refuse_operand(fg_op_table[op].symbol.decode(), array)
    enter_array(fg_op_table[op].symbol.decode())
    try:
        return ufunc(np.asarray(left, dtype=object), np.asarray(right, dtype=object))
    finally:
        leave_array()


# ---- NumPy's ufuncs ----

cdef list operator_ufuncs = ["add", "subtract", "multiply", "true_divide", "power", "less", "less_equal", "greater",
                             "greater_equal"]


cdef int find_ufuncs() except -1:
    """Tell fg_array_ufunc what NumPy's are: now that it asks, it is there."""
    global fg_np_generic, fg_np_array
    cdef int k
    if fg_np_generic != NULL:
        return 0
    found = [getattr(np, name) for name in operator_ufuncs]
    kept_alive.append((found, np_array, np_generic))
    for k in range(FG_UFUNCS):
        fg_ufuncs[k] = <PyObject *>found[k]
    fg_np_array = <PyTypeObject *>np_array
    fg_np_generic = <PyTypeObject *>np_generic   # last: it says that the others are there
    return 0


cdef object array_ufunc(PyObject *self, PyObject **args, Py_ssize_t count, PyObject *names):
    """What fg_array_ufunc leaves: NumPy's own loop over objects, in which a Value is an array of dimension 0. It asks
    each Value for its operator, or for the method of the ufunc's name."""
    cdef Py_ssize_t k
    if count < 2:
        raise ArgumentTypeError(f"__array_ufunc__(): expected a ufunc, the name of its method and inputs, got {count} "
                                "arguments")
    ufunc, method = <object>args[0], <object>args[1]
    if not numpy_is_there() or not isinstance(ufunc, np.ufunc) or not isinstance(method, str):
        raise ArgumentTypeError(f"__array_ufunc__(): expected a ufunc and the name of its method, got {describe(ufunc)} "
                                f"and {describe(method)}")
    find_ufuncs()
    keywords = {}
    if names != NULL:
        keywords = {name: <object>args[count + k] for k, name in enumerate(<tuple>names)}
    out = keywords.get("out", ())
    inputs = [<object>args[k] for k in range(2, count)]
    name = f"np.{ufunc.__name__}" if method == "__call__" else f"np.{ufunc.__name__}.{method}"
    for x in (*inputs, *(out if isinstance(out, tuple) else (out,))):
        if type(x) is Tensor:
            return NotImplemented   # its own method knows what this means
    for x in out if isinstance(out, tuple) else (out,):
        if isinstance(x, Value):
            raise ArgumentTypeError(f"{name}: out: expected an array, got a Value; assign its data")
    if method == "at" and inputs and isinstance(inputs[0], Value):
        raise ArgumentTypeError(f"{name}: expected an array to change, got a Value")
    for k, x in enumerate(inputs):
        refuse_operand(name, x)
        if isinstance(x, Value):
            inputs[k] = np.empty((), object)
            inputs[k][()] = x
    enter_array(name)
    try:
        return getattr(ufunc, method)(*inputs, **keywords)
    finally:
        leave_array()


cdef object binary_slow(int op, object left, object right):
    """Every other pair of operands: subclasses, ints, NumPy scalars and arrays, the unknown."""
    cdef double number = 0.0
    cdef bint left_is_value = isinstance(left, Value)
    if left_is_value and isinstance(right, Value):
        return binary_values(op, left, right)
    other = right if left_is_value else left
    try:
        known = to_double(other, &number)
    except ValueError as error:
        raise ValueError(f"operand of {fg_op_table[op].symbol.decode()}: {error}") from None
    if not known:
        if numpy_is_there() and isinstance(other, np_array):
            return elementwise(op, left, right)
        return NotImplemented
    if not left_is_value:
        return number_value(op, number, right)
    if op != FG_POW:
        return value_number(op, left, number)
    if (fabs(number) < 1 << 31
            and (PyLong_Check(other) or (numpy_is_there() and isinstance(other, np_integer)))):
        return unary(FG_POWI, left, <int32_t>number)
    return value_number(FG_POWC, left, number)


cdef inline object binary(int op, object left, object right):
    """The common pairs of operands, here so that each operator has its own copy with op folded in."""
    cdef double number = 0.0
    if type(left) is Value:
        if type(right) is Value:
            return binary_values(op, left, right)
        if op != FG_POW:
            if type(right) is float:
                return value_number(op, left, PyFloat_AS_DOUBLE(right))
            if type(right) is int and small_int(right, &number):
                return value_number(op, left, number)
        elif type(right) is int and small_int(right, &number) and fabs(number) < 1 << 31:
            return unary(FG_POWI, left, <int32_t>number)
    elif type(right) is Value:
        if type(left) is float:
            return number_value(op, PyFloat_AS_DOUBLE(left), right)
        if type(left) is int and small_int(left, &number):
            return number_value(op, number, right)
    return binary_slow(op, left, right)


cdef object apply_method(int op, PyObject *self):
    if is_value(self):
        return unary(op, <object>self, 0)
    return map_tensors(op, 0, (<object>self,), ())


cdef object apply_function(int op, PyObject **args, Py_ssize_t count):
    """flatgrad.<op>(...) of Values and numbers."""
    cdef const fg_op_info *info = &fg_op_table[op]
    cdef double[3] x = [0.0, 0.0, 0.0]
    cdef double z = 0.0
    cdef bint[3] is_value
    cdef fg_id[3] ids = [0, 0, 0]
    cdef int k, status
    cdef fg_handle *handle
    if count != info.arity:
        raise TypeError(f"{info.name.decode()}() takes {info.arity} operand"
                        f"{'s' if info.arity > 1 else ''} ({info.operands.decode()}), got {count}")
    for k in range(info.arity):
        if Py_TYPE(args[k]) == <PyTypeObject *>Tensor:
            names = info.operands.decode().split(", ")
            return map_tensors(op, 0, tuple([<object>args[k] for k in range(info.arity)]),
                               tuple([f"{info.name.decode()}(): {name}" for name in names]))
    for k in range(info.arity):
        is_value[k] = isinstance(<object>args[k], Value)
        if not is_value[k]:
            x[k] = to_data(f"{info.name.decode()}(): {info.operands.decode().split(', ')[k]}",
                           <object>args[k])
    reserve(1 + info.arity, info.arity)
    for k in range(info.arity):
        if is_value[k]:
            ids[k] = (<Value>args[k]).id
            x[k] = tape.data[ids[k]]
    if info.arity == 1:
        status = fg_op_unary(op, x[0], 0, &z)
    elif info.arity == 2:
        status = fg_op_binary(op, x[0], x[1], &z)
    else:
        status = fg_op_ternary(op, x[0], x[1], x[2], &z)
    if status < 0:
        raise_operation(status, op, tuple([x[k] for k in range(info.arity)]))
    handle = new_handle()
    for k in range(info.arity):
        if not is_value[k]:
            ids[k] = fg_tape_push_leaf(&tape, x[k])
    if info.arity == 3:
        return FG_GIVE(fg_give(&tape, handle, fg_tape_push_pooled(&tape, op, ids, 3, NULL, z)))
    return FG_GIVE(fg_give(&tape, handle, fg_tape_push(&tape, op, ids[0], ids[1], z)))


cdef object apply_pair(int op, object x, object y):
    """A row with two operands of Values, Tensors and numbers."""
    cdef PyObject *args[2]
    args[0], args[1] = <PyObject *>x, <PyObject *>y
    return apply_function(op, args, 2)


def leaky_relu(x, negative_slope=0.01):
    """x if x > 0, else negative_slope * x.

    Parameters
    ----------
    x : Value, Tensor or real number
    negative_slope : Value, Tensor or real number, optional

    Returns
    -------
    Value, or Tensor if an operand is one

    Notes
    -----
    The derivative by `x` at 0 is `negative_slope`, as in PyTorch.

    Examples
    --------
    >>> import flatgrad
    >>> flatgrad.leaky_relu(-2.0).data
    -0.02
    """
    return apply_pair(FG_LEAKY_RELU, x, negative_slope)


def elu(x, alpha=1.0):
    """x if x > 0, else alpha * (exp(x) - 1).

    Parameters
    ----------
    x : Value, Tensor or real number
    alpha : Value, Tensor or real number, optional

    Returns
    -------
    Value, or Tensor if an operand is one

    Notes
    -----
    The derivative by `x` at 0 is `alpha`, as in PyTorch.

    Examples
    --------
    >>> import flatgrad
    >>> flatgrad.elu(-1000.0).data
    -1.0
    """
    return apply_pair(FG_ELU, x, alpha)


cdef int check_made(list children, list partials, double *values) except -1:
    """An error unless the children are Values, and the partials, if there are any, a number for each, which
    are written to `values`."""
    cdef Py_ssize_t k
    for k, child in enumerate(children):
        listen(k)
        if not isinstance(child, Value):
            raise TypeError(f"_children[{k}]: expected a Value, got {describe(child)}")
    if partials is not None:
        if len(partials) != len(children):
            raise ValueError(f"local_grads: expected {len(children)} numbers, one for each child, "
                             f"got {len(partials)}")
        for k in range(len(partials)):
            listen(k)
            values[k] = to_data(f"local_grads[{k}]", partials[k])
    return 0


cdef int become_made(Value self, double number, list children, list partials, str op) except -1:
    """Make self the handle of a new node with these operands, and of its old one no more.

    partials: the derivatives by the operands, or None if the node has no rule (of ours).
    """
    cdef fg_id count = <fg_id>len(children)
    cdef int opcode = FG_CUSTOM if partials is None else FG_LOCAL
    cdef bint fresh
    cdef Py_ssize_t k
    cdef fg_id i
    cdef fg_id *ids
    cdef fg_id *owner
    cdef double *values
    cdef fg_box *box
    cdef dict extra = {"_op": op}
    global handle_moves
    if len(children) > <fg_id>FG_MAX_ID // 4:
        raise MemoryError(f"_children: {len(children)} Values do not fit on the tape")
    scratch = bytearray((count + 1) * (sizeof(fg_id) + sizeof(double)))
    values = <double *><char *>scratch
    ids = <fg_id *>(values + count)
    check_made(children, partials, values)
    reserve(1, count if partials is None else 3 * count)
    # A leaf that __new__ has just made, on top and used by none, gives its place to the new node.
    fresh = (self.id + 1 == tape.n and tape.op[self.id] == FG_LEAF and tape.owner[self.id] == &self.id
             and not tape.busy)
    for k in range(count):
        ids[k] = (<Value>children[k]).id
        fresh = fresh and ids[k] != self.id
    if fresh:
        box = fg_tape_box(&tape, self.id)
        if box == NULL:
            raise_status(FG_E_MEMORY)
        owner = tape.owner[self.id]
        tape.n -= 1
        i = fg_tape_push_pooled(&tape, opcode, ids, count, values, number)
        tape.owner[i] = owner
    else:
        i = fg_tape_push_pooled(&tape, opcode, ids, count, values, number)
        box = fg_tape_box(&tape, i)
        if box == NULL:
            fg_tape_pop(&tape)   # nobody holds the new node
            raise_status(FG_E_MEMORY)
        box.holder = &self.id
        if fg_tape_holder(&tape, self.id) == &self.id:
            fg_tape_hold(&tape, self.id, NULL)
        self.id = i
        handle_moves += 1
    Py_INCREF(<PyObject *>extra)
    box.extra = <void *>extra
    return 0


# ---- what users attach to a node: attributes, and backward rules ----

cdef dict extra_of(Value self):
    """The attributes of the node, or None if it has none."""
    cdef fg_id *owner = tape.owner[self.id]
    return <dict>fg_owner_box(owner).extra if fg_owner_is_box(owner) else None


cdef dict make_extra(Value self):
    """The attributes of the node, made if it has none."""
    cdef dict extra = extra_of(self)
    cdef fg_box *box
    if extra is None:
        extra = {}   # which may run a finalizer, and that may give it attributes
        box = fg_tape_box(&tape, self.id)
        if box == NULL:
            raise_status(FG_E_MEMORY)
        if box.extra != NULL:
            return <dict>box.extra
        Py_INCREF(<PyObject *>extra)
        box.extra = <void *>extra
    return extra


cdef list to_list(str name, str what, object x):
    try:
        x = iter(x)
    except TypeError:
        raise TypeError(f"{name}: expected an iterable of {what}, got {describe(x)}") from None
    return list(x)


cdef object MISSING = object()   # stands for nothing where None is something


@cython.final
@cython.auto_pickle(False)
cdef class _Attribute:
    """Finds one attribute that users have hung on Values, whichever has it; the others show a default.

    Value has no `__dict__`, which would cost every operation, and no `__getattr__`, which would cost
    every method call. Instead the first `v.name = ...` puts one of these into the class. Having no
    `__set__` it gives way to the `__dict__` of a subclass's instances. See `_declare`.
    """
    cdef str name
    cdef object default   # what a Value shows that has none of its own; MISSING: it has no such attribute
    cdef object factory   # makes what such a Value is given when it is first asked; None: it is given nothing

    def __cinit__(self, str name not None, default=MISSING, factory=None):
        self.name = name
        self.default = default
        self.factory = factory

    def __get__(self, instance, owner):
        cdef dict extra
        if instance is not None:
            extra = extra_of(<Value?>instance)
            if extra is not None and self.name in extra:
                return extra[self.name]
            if self.factory is not None:
                made = self.factory()   # which may run anything
                return make_extra(instance).setdefault(self.name, made)
        if self.default is MISSING:
            raise AttributeError(f"'Value' object has no attribute {self.name!r}" if instance is not None else
                                 f"type object 'Value' has no attribute {self.name!r}")
        return self.default


# Attributes that one assigns, and names that are near these and words of their own.
cdef tuple ASSIGNED = ("data", "grad", "requires_grad")
cdef set WORDS = {"date", "dates", "dat", "datas", "dada", "grade", "grads", "grand", "gray", "grid", "grab", "gram", "gran",
                  "graf", "glad", "goad", "rad", "gradu", "dato", "dota"}
cdef set warned = set()   # names that there has been a warning for


cdef int one_edit(str name, str other) except -1:
    """Whether one letter is missing, too many or another, or two neighbours are swapped."""
    cdef Py_ssize_t k = 0, m = len(name), n = len(other)
    if m > n:
        return one_edit(other, name)
    if n - m > 1 or name == other:
        return False
    while k < m and name[k] == other[k]:
        k += 1
    if m < n:
        return name[k:] == other[k + 1:]
    return name[k + 1:] == other[k + 1:] or (
        k + 1 < m and name[k] == other[k + 1] and name[k + 1] == other[k] and name[k + 2:] == other[k + 2:])


cdef int warn_of(str name) except -1:
    """Warn once of an attribute whose name is nearly one that means something."""
    if (name in warned or name.startswith("_") or name in WORDS or name in ASSIGNED
            or any([c.isdigit() for c in name])):
        return 0
    for known in ASSIGNED:
        near = one_edit(name, known) or name.lower() == known
        if not near and len(known) > 8:   # long enough for what is similar
            import difflib
            near = difflib.SequenceMatcher(None, name, known).ratio() > 0.85
        if near:
            warned.add(name)
            import warnings
            warnings.warn(f"a Value has been given an attribute {name!r}, which means nothing to flatgrad; "
                          f"did you mean {known!r}?", UserWarning, stacklevel=1)
            break
    return 0


cdef object class_attribute(type cls, str name):
    """What the class itself has under that name, without asking it; MISSING if nothing."""
    for base in cls.__mro__:
        if name in base.__dict__:
            return base.__dict__[name]
    return MISSING


# The methods that make the nodes of rows without a public function.
cdef dict RULE_NAMES = {"ADD": "__add__", "SUB": "__sub__", "MUL": "__mul__", "DIV": "__truediv__", "NEG": "__neg__",
                        "POW": "__pow__", "POWI": "__pow__", "POWC": "__pow__", "LOCAL": "__init__"}


@cython.final
@cython.auto_pickle(False)
cdef class _Rule:
    """The `_backward` of a node that has not been given one: the rule of its operation."""
    cdef Value node

    def __cinit__(self, Value node not None):   # not __init__, which __new__ alone would leave out
        self.node = node

    def __reduce__(self):
        return _Rule, (self.node,)

    @property
    def __name__(self):
        """As the function has it that micrograd would have made."""
        return self.__qualname__.rpartition(".")[2]

    @property
    def __qualname__(self):
        cdef int op = fg_tape_op(&tape, self.node.id)
        cdef str name
        if fg_op_is_leaf(op) or op == FG_CUSTOM:
            return "Value.__init__.<locals>.<lambda>"
        if op == FG_PART or fg_op_is_block(op):
            return f"{block_symbol(block_of(self.node.id))}.<locals>._backward"
        name = fg_op_table[op].name.decode() if fg_op_table[op].is_public else (
            RULE_NAMES.get(fg_op_table[op].id.decode(), fg_op_table[op].name.decode()))
        return f"{'Value.' if hasattr(Value, name) else ''}{name}.<locals>._backward"

    @property
    def __signature__(self):
        from inspect import Signature
        return Signature()

    def __call__(self):
        cdef size_t done = 0
        while fg_sweep_apply(&tape, self.node.id, &done) < 0:   # it was interrupted
            PyErr_CheckSignals()


# ---- leaves without a gradient ----

cdef bint frozen_ever = False   # some leaf has been frozen: until then nobody has to look for them


cdef int freeze(fg_id i, bint on) noexcept:
    """Leaf i takes no gradient from now on, or again does."""
    global frozen_ever, handle_moves
    if (fg_tape_op(&tape, i) == FG_FROZEN) != on:
        fg_tape_freeze(&tape, i, on)
        frozen_ever = True
        handle_moves += 1   # optimizers look again
    return 0


cdef bint any_frozen(fg_id first, fg_id count) noexcept:
    cdef fg_id k
    if frozen_ever:
        for k in range(count):
            if fg_tape_op(&tape, first + k) == FG_FROZEN:
                return True
    return False


cdef inline object comparable(object x):
    """What `<` and the like compare data with; NotImplemented if x is no number."""
    if isinstance(x, Value):
        return tape.data[(<Value>x).id]
    if PyFloat_Check(x) or PyLong_Check(x) or is_number(x):
        return x
    return NotImplemented


cdef bint is_number(object x):
    """Whether x is some other number or array of them: Fraction, Decimal, NumPy's."""
    if numpy_is_there() and isinstance(x, (np_generic, np_array)):
        return True
    from numbers import Number
    return isinstance(x, Number)


cdef list operand_ids(fg_id i):
    """The operands of node i, those that _prev and _children do not show as well. While ids stay."""
    cdef fg_id count = fg_block_operands(&tape, i, NULL, NULL), k
    scratch = bytearray((count + 1) * sizeof(fg_id))
    ids = <fg_id *><char *>scratch
    fg_block_operands(&tape, i, ids, NULL)
    return [ids[k] for k in range(count)]


cdef list parents_of(Value self):
    """The Values that _prev and _children show, in order and as often as they were used."""
    cdef int shown = fg_op_table[fg_tape_op(&tape, self.id)].parents
    cdef Py_ssize_t k
    cdef list found = []
    hold_ids()
    try:
        ids = operand_ids(self.id)
        for k, i in enumerate(ids if shown < 0 else ids[:shown]):
            listen(k)
            found.append(handle_of(i))
        return found
    finally:
        release_ids()


cdef tuple partials_of(fg_id i):
    """The derivatives of node i by each of operand_ids(i). While ids stay."""
    cdef fg_id count, k
    scratch = bytearray((fg_block_operands(&tape, i, NULL, NULL) + 1) * sizeof(double))
    partials = <double *><char *>scratch
    count = fg_block_operands(&tape, i, NULL, partials)
    return tuple([partials[k] for k in range(count)])


cdef inline int listen(Py_ssize_t k) except -1:
    """Called at each turn k of a loop over much of the user's: now and then, whether Ctrl-C was pressed. That may run
    Python code."""
    if k & 0xFFF == 0xFFF:
        PyErr_CheckSignals()
    return 0


cdef void hold_ids() noexcept:
    """Until release_ids() no node goes and none is renumbered, whatever Python code is run."""
    tape.busy += 1


cdef void release_ids() noexcept:
    tape.busy -= 1
    fg_tape_pop(&tape)
    if tape.dead != NULL:
        drain()


cdef int stop_wanted() noexcept:
    """Whether Ctrl-C has been pressed: asked between the blocks of long instructions. Python is told again, for it
    forgets when it is asked."""
    if not PyOS_InterruptOccurred():
        return 0
    PyErr_SetInterrupt()
    return 1


tape.stop = stop_wanted


cdef int run_hook(fg_id i) except -1:
    """Run the backward rule that a user gave to node i, at which a sweep has stopped."""
    cdef Value node = handle_of(i)
    cdef dict extra = extra_of(node)
    global fg_rules
    if extra is not None and "_backward" in extra:   # unless it was part of a released cycle and has come back
        fg_rules += 1
        try:
            extra["_backward"]()
        finally:
            fg_rules -= 1
    return 0


cdef int sweep_from(fg_id i) except -1:
    """A sweep from node i. Whatever rules and other threads do while it pauses, other sweeps among it, does not
    harm it."""
    global sweep_pauses
    cdef fg_sweep *sweep = fg_sweep_begin(&tape, i)
    cdef int state
    if sweep == NULL:
        raise_status(FG_E_MEMORY)
    state = fg_sweep_run(&tape, sweep, sweep_words)
    if state == FG_SWEEP_DONE:
        return 0
    try:
        while state != FG_SWEEP_DONE:
            if state == FG_SWEEP_HOOK:
                run_hook(sweep.hook)
            else:
                sweep_pauses += 1
                PyErr_CheckSignals()
            state = fg_sweep_run(&tape, sweep, sweep_words)
    except BaseException:
        fg_sweep_cancel(&tape, sweep)
        if tape.dead != NULL:
            drain()
        raise
    return 0


include "_saving.pxi"


# Between two checks for an interrupt, in words of 64 nodes: 16 million nodes, some 50 ms.
cdef fg_id sweep_words = 1 << 18
cdef long long sweep_pauses = 0   # how often a sweep has stopped for that check


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
        if unrecorded():
            scratch = bytearray((len(nodes) + 1) * sizeof(double))
            check_made(nodes, partials, <double *><char *>scratch)
            nodes, partials = [], None
        if fg_tape_op(&tape, self.id) == FG_FROZEN:
            freeze(self.id, False)
        if nodes or _op or partials or tape.op[self.id] != FG_LEAF:
            become_made(self, number, nodes, partials, str(_op))
        else:
            tape.data[self.id] = number
            tape.grad[self.id] = 0.0
        # What shows as '' anyway takes no memory.
        if label is not None and not (type(label) is str and label == "" and type(self) is Value and self.label == ""):
            self.label = label

    @property
    def data(self):
        return tape.data[self.id]

    @data.setter
    def data(self, value):
        cdef double number = to_data("data", value)
        tape.data[self.id] = number

    @data.deleter
    def data(self):
        raise AttributeError("data: cannot be deleted")

    @property
    def grad(self):
        return fg_tape_gradient(&tape, self.id)[0]

    @grad.setter
    def grad(self, value):
        cdef double number = to_data("grad", value)
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
        return fg_tape_op(&tape, self.id) != FG_FROZEN

    @requires_grad.setter
    def requires_grad(self, value):
        cdef bint on = flag("requires_grad", value)
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
        if op == FG_POWI:
            return f"**{<int32_t>tape.args[self.id].b}"
        if op == FG_POWC:
            return f"**{tape.data[tape.args[self.id].b]}"
        if op == FG_PART or fg_op_is_block(op):
            return block_symbol(block_of(self.id))
        return fg_op_table[op].symbol.decode()

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

    def leaky_relu(self, negative_slope=0.01):
        """The value if it is above 0, else `negative_slope` times it. See `flatgrad.leaky_relu`."""
        return apply_pair(FG_LEAKY_RELU, self, negative_slope)

    def elu(self, alpha=1.0):
        """The value if it is above 0, else ``alpha * (exp(value) - 1)``. See `flatgrad.elu`."""
        return apply_pair(FG_ELU, self, alpha)

    def backward(self):
        """Add to the gradients of all that this value depends on.

        Raises
        ------
        RuntimeError
            If no gradient flows from here: of an instruction whose operands are all constant Tensors, arrays and
            numbers, and of what is computed from leaves without `requires_grad` alone. If another thread is
            within `flatgrad.grad` or its like, in a `_backward` rule of a user's: when that is over, gradients become
            again what they were.
        KeyboardInterrupt
            If interrupted; the gradients added until then stay.

        Notes
        -----
        Sets this value's own gradient to 1. Each operand's gradient then grows by the partial
        derivative, evaluated at the operands' present `data`, times the gradient of the result:
        reverse-mode differentiation [1]_. Nothing is set to zero first, here or elsewhere, so a
        second call adds to the gradients of the first, inner ones included, as in micrograd.

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
        if whole_tape != 0 and whole_tape != PyThread_get_thread_ident():
            raise RuntimeError("backward(): another thread is within a transform of a graph with _backward rules of "
                               "its own, after which gradients become again what they were")
        refuse_constant(self.id)
        sweep_from(self.id)
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
        return Value(self.data)

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
        if fg_tape_op(&tape, self.id) != FG_FROZEN:
            tape.data[self.id] -= rate * tape.grad[self.id]

    def __repr__(self):
        return f"Value(data={self.data}, grad={self.grad})"

    def __hash__(self):
        return <Py_ssize_t><void *>self >> 4   # by identity; addresses are multiples of 16

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
        other = comparable(other)
        return other if other is NotImplemented else tape.data[self.id] < other

    def __le__(self, other):
        other = comparable(other)
        return other if other is NotImplemented else tape.data[self.id] <= other

    def __gt__(self, other):
        other = comparable(other)
        return other if other is NotImplemented else tape.data[self.id] > other

    def __ge__(self, other):
        other = comparable(other)
        return other if other is NotImplemented else tape.data[self.id] >= other

    def item(self):
        """The number, as a float: `data`, by PyTorch's name."""
        return tape.data[self.id]

    def __float__(self):
        if tracings:
            refuse_traced(self.id, "float()")
        return tape.data[self.id]

    def __int__(self):
        if tracings:
            refuse_traced(self.id, "int()")
        return int(tape.data[self.id])

    def __trunc__(self):
        if tracings:
            refuse_traced(self.id, "trunc()")
        return int(tape.data[self.id])

    def __round__(self, ndigits=None):
        if tracings:
            refuse_traced(self.id, "round()")
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
        cdef fg_id entry
        if has_own_ways(type(self), COPYING):
            restore, arguments, *state = self.__reduce_ex__(4)
            result = restore(*arguments)
            if state and state[0] is not None:
                result.__setstate__(state[0])
            return result
        entry = entry_of(self.id)
        if not has_parts(entry):
            return shallow_copy(self)
        _, (cls, run, index), state = self.__reduce_ex__(4)
        result = _restore_part(cls, shallow_copy(run), index)
        if state is not None:
            result.__setstate__(state)
        return result

    def __deepcopy__(self, memo):
        """A copy whose graph is a copy as well, closures of `_backward` included."""
        cdef fg_id entry
        own_ways = has_own_ways(type(self), COPYING)
        entry = entry_of(self.id)
        if not own_ways and not has_parts(entry) and not is_leaf(self.id):
            return deep_copy(self, memo)
        restore, arguments, *state = self.__reduce_ex__(4)
        result = restore(*deepcopy(arguments, memo))
        memo[id(self)] = result
        if state and state[0] is not None:
            extra, own = state[0]
            result.__setstate__((None if extra is None else deep_attributes(extra, memo), deepcopy(own, memo)))
        return result

    def __setstate__(self, state):
        if type(state) is not tuple or len(state) != 2:
            damaged(f"expected two dicts, got {describe(state)}")
        extra, own = state
        if extra is not None:
            extra = checked_attributes(extra)
        if type(own) is not dict:
            damaged(f"expected a dict of attributes, got {describe(own)}")
        own = dict(own)
        if extra is not None:
            attach(self.id, extra)
        for name, x in own.items():
            setattr(self, name, x)


# ---- the type, finished by hand ----
#
# Cython's own tp_dealloc keeps a dying object alive around user code and gives its memory back; ours
# needs neither, and that is a fifth of the cost of an operation.

if (Value.__basicsize__ != sizeof(fg_handle) or Value.__weakrefoffset__ <= 0
        or <size_t>Value.__weakrefoffset__ != sizeof(fg_handle) - sizeof(PyObject *)):
    raise SystemError("flatgrad: a Value is not laid out as fg_handle says")

cdef object value_vectorcall(PyObject *tp, PyObject **args, size_t flags, PyObject *names):
    """Value(...): one number needs no argument tuple; all else goes the ordinary way."""
    cdef Py_ssize_t count = PyVectorcall_NARGS(flags), k
    cdef double number = 0.0
    cdef fg_handle *handle
    if (count == 1 and names == NULL and tp == <PyObject *>Value
            and (<PyTypeObject *>tp).tp_init == our_init
            and (<PyTypeObject *>tp).tp_new == our_new):
        number = to_data("data", <object>args[0])
        reserve_few(1)
        handle = new_handle()
        return FG_GIVE(fg_give(&tape, handle, fg_tape_push_leaf(&tape, number)))
    positional = tuple([<object>args[k] for k in range(count)])
    keywords = {}
    if names != NULL:
        keywords = {name: <object>args[count + k] for k, name in enumerate(<tuple>names)}
    return PyType_Type.tp_call(tp, positional, keywords)


# What Value has been given here; users may put methods of their own in their place.
cdef void *our_init = (<PyTypeObject *>Value).tp_init
cdef void *our_new = (<PyTypeObject *>Value).tp_new

(<PyTypeObject *>Value).tp_dealloc = <destructor>value_dealloc
(<PyTypeObject *>Value).tp_vectorcall = <vectorcallfunc>value_vectorcall
fg_method_hook = apply_method
fg_function_hook = apply_function
fg_ufunc_hook = array_ufunc

__all__ = ["Tensor", "Value", "argmax", "argmin", "cat", "collect", "dot", "elu", "leaky_relu", "linear",
           "log_softmax", "logsumexp", "matvec", "max", "mean", "min", "no_grad", "scalar_graph",
           "softmax", "square", "stack", "stats", "sum"]


cdef str row_doc(const fg_op_info *info, bint is_method):
    """The numpydoc page of an operation, from its row; the first lines are its signature."""
    cdef str name = info.name.decode(), operands = info.operands.decode()
    cdef str domain = info.domain.decode(), edge = info.edge.decode()
    cdef list names = operands.split(", ")
    cdef str call
    doc = [f"{name}({'$self' if is_method else operands}, /)", "--", ""]
    doc += [f"{info.formula.decode()}, as one node of the graph"
            f"{'; x is this value' if is_method else ''}.", ""]
    if not is_method:
        doc += ["Parameters", "----------"]
        doc += [f"{operands} : Value or real number",
                "    Dimensionless scalars. A number becomes a constant leaf.", ""]
    doc += ["Returns", "-------", "Value", f"    The result, with `_op` '{info.symbol.decode()}'.", ""]
    if domain:
        doc += ["Raises", "------", "ValueError, ArithmeticError", f"    Unless: {domain}.", ""]
    if edge:
        doc += ["Notes", "-----", edge, ""]
    arguments = ", ".join([f"Value({k + 0.5})" for k in range(info.arity)])
    call = f"Value(0.5).{name}()" if is_method else f"flatgrad.{name}({arguments})"
    doc += ["Examples", "--------", ">>> import flatgrad", ">>> from flatgrad import Value",
            f">>> z = {call}", ">>> z._op, len(z._prev)",
            f"('{info.symbol.decode()}', {info.parents})", ""]
    return "\n".join(doc)


cdef PyMethodDef *new_definition(const char *name, bytes doc, PyCFunction function, int flags):
    cdef PyMethodDef *definition = <PyMethodDef *>PyMem_Calloc(1, sizeof(PyMethodDef))
    if definition == NULL:
        raise MemoryError()
    kept_alive.append(doc)
    definition.ml_name = name
    definition.ml_meth = function
    definition.ml_flags = flags
    definition.ml_doc = doc
    return definition


cdef PyMethodDef *row_definition(const fg_op_info *info, PyCFunction function, int flags, bint is_method):
    return new_definition(info.name, row_doc(info, is_method).encode(), function, flags)


cdef bytes UFUNC_DOC = b"""__array_ufunc__($self, ufunc, method, /, *inputs, **kwargs)
--

What NumPy's functions mean of Values: what they mean of any object in an array.

Operators of NumPy's numbers and arrays are Value's own operators, and ``np.exp(v)`` calls ``v.exp()``.

Parameters
----------
ufunc : np.ufunc
method : str
    '__call__', or the name of another of its methods.
*inputs, **kwargs
    The arguments that NumPy was given.

Returns
-------
Value, or ndarray of Values
    NotImplemented if there is a Tensor among the arguments, whose own method answers.

Examples
--------
>>> import numpy as np
>>> from flatgrad import Value
>>> v, a = Value(2.0), np.array([Value(1.0), Value(3.0)])
>>> np.multiply(a, v)
array([Value(data=2.0, grad=0.0), Value(data=6.0, grad=0.0)], dtype=object)
>>> a -= a[0]
>>> [float(x) for x in a], np.exp(v)._op
([0.0, 2.0], 'exp')
"""


cdef int publish_operations() except -1:
    """Every public row of ops.def becomes a function, and with one operand a method as well."""
    cdef const fg_op_info *info
    cdef int op
    for op in range(FG_OPS):
        info = &fg_op_table[op]
        if not info.is_public:
            continue
        name = info.name.decode()
        globals()[name] = PyCFunction_NewEx(
            row_definition(info, fg_functions[op], METH_FASTCALL, False), NULL, __name__)
        __all__.append(name)
        if info.arity == 1:
            method = PyDescr_NewMethod(
                <PyTypeObject *>Value, row_definition(info, fg_methods[op], METH_NOARGS, True))
            setattr(Value, name, method)
            name = sys.intern(name)
            kept_alive.extend((method, name))
            our_methods[op], our_method_names[op] = <PyObject *>method, <PyObject *>name
            setattr(Tensor, name, PyDescr_NewMethod(
                <PyTypeObject *>Tensor, row_definition(info, fg_methods[op], METH_NOARGS, True)))
    for op in (FG_LEAKY_RELU, FG_ELU):   # which have a second operand with a default, and so a `def`
        name = sys.intern(fg_op_table[op].name.decode())
        method = Value.__dict__[name]
        kept_alive.extend((method, name))
        our_methods[op], our_method_names[op] = <PyObject *>method, <PyObject *>name
    return 0


# ---- what nn builds on ----

cdef void *our_add = (<PyTypeObject *>Value).tp_as_number.nb_add
cdef void *our_multiply = (<PyTypeObject *>Value).tp_as_number.nb_multiply
cdef list our_operators = [(sys.intern(name), Value.__dict__[name])
                           for name in ("__add__", "__radd__", "__mul__", "__rmul__")]


cdef bint operators_are_ours() noexcept:
    """Whether nobody has put other operators for sums and products on the class."""
    cdef PyTypeObject *value = <PyTypeObject *>Value
    if value.tp_as_number.nb_add == our_add and value.tp_as_number.nb_multiply == our_multiply:
        return True
    # Or somebody had, and has put ours back: they are then reached by another way.
    for operator_ in our_operators:
        if (_PyType_Lookup(value, <PyObject *>(<tuple>operator_)[0])
                != <PyObject *>(<tuple>operator_)[1]):
            return False
    return True


def weighted_sum(w not None, x not None, b):
    """b + w[0] * x[0] + w[1] * x[1] + ..., node for node as the operators would build it.

    Parameters
    ----------
    w, x : list or tuple of Value or real number
        Weights and inputs, equally many.
    b : Value or real number
        Where the sum starts.

    Returns
    -------
    Value
        The last sum; `b` itself if there is nothing to add. Only it gets a handle, so this costs
        a fraction of the same expression in Python.

    Raises
    ------
    ValueError
        If `w` and `x` differ in length.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad._core import weighted_sum
    >>> weighted_sum([Value(2.0), Value(3.0)], [10.0, 100.0], Value(1.0)).data
    321.0
    """
    cdef Py_ssize_t count, k
    cdef PyObject **ws
    cdef PyObject **xs
    cdef fg_id xi, product, total
    cdef double xd, wd, sum
    cdef fg_handle *handle
    w = plain_sequence(w) if isinstance(w, (list, tuple)) else list(w)
    x = plain_sequence(x) if isinstance(x, (list, tuple)) else one_sample(x)
    count = len(w)
    if len(x) != count:
        raise ShapeError(f"x: expected {count} inputs, one for each weight, got {len(x)}")
    if count == 0:
        return b
    if count >= <fg_id>FG_MAX_ID // 4:
        raise MemoryError(f"w: {count} weights do not fit on the tape")
    reserve(<fg_id>(3 * count), 0)
    if not plain_terms(w, x, b, count):
        for k in range(count):
            if is_row(x[k]):
                raise ArgumentTypeError("x: expected one sample, a list of numbers and Values, got one with a "
                                        f"{type(x[k]).__name__} in it; a Layer takes several samples")
            b = b + w[k] * x[k]
        return b
    # No Python code runs from plain_terms() to the end: the lists and all ids stay as they are.
    handle = new_handle()
    ws = PySequence_Fast_ITEMS(w)
    xs = PySequence_Fast_ITEMS(x)
    total = (<Value>b).id
    sum = tape.data[total]
    for k in range(count):
        if Py_TYPE(xs[k]) == <PyTypeObject *>Value:
            xi = (<fg_handle *>xs[k]).id
            xd = tape.data[xi]
        else:
            xd = PyFloat_AS_DOUBLE(<object>xs[k])
            xi = fg_tape_push_leaf(&tape, xd)
        wd = tape.data[(<fg_handle *>ws[k]).id] * xd
        product = fg_tape_push(&tape, FG_MUL, (<fg_handle *>ws[k]).id, xi, wd)
        sum += wd
        total = fg_tape_push(&tape, FG_ADD, total, product, sum)
    return FG_GIVE(fg_give(&tape, handle, total))


cdef inline object plain_sequence(object x):
    """A list or tuple that has as many items as `len` says: of a subclass, what it gives when iterated over."""
    if type(x) is list or type(x) is tuple:
        return x
    return [item for item in x]   # list(x) would ask it for its length


cdef object one_sample(object x):
    """What can be iterated over as a list."""
    try:
        x = iter(x)
    except TypeError:
        raise ArgumentTypeError("x: expected a list or an array of numbers and Values, got "
                                f"{shortened(x)}") from None
    return list(x)


cdef bint plain_terms(object w, object x, object b, Py_ssize_t count):
    """Whether the operators of exactly Value would do all of b + sum(w * x)."""
    cdef PyObject **ws = PySequence_Fast_ITEMS(w)
    cdef PyObject **xs = PySequence_Fast_ITEMS(x)
    cdef PyTypeObject *value = <PyTypeObject *>Value
    cdef Py_ssize_t k
    if (type(b) is not Value or PySequence_Fast_GET_SIZE(w) != count
            or PySequence_Fast_GET_SIZE(x) != count
            or not operators_are_ours()):
        return False
    for k in range(count):
        if Py_TYPE(ws[k]) != value or (Py_TYPE(xs[k]) != value
                                       and Py_TYPE(xs[k]) != <PyTypeObject *>float):
            return False
    return True


include "_context.pxi"
include "_tensor.pxi"
include "_arrays.pxi"
include "_gradients.pxi"
include "_trace.pxi"
include "_layers.pxi"
include "_parameters.pxi"

publish_operations()
setattr(Value, "__array_ufunc__", PyDescr_NewMethod(<PyTypeObject *>Value, new_definition(
    "__array_ufunc__", UFUNC_DOC, fg_array_ufunc_method, METH_FASTCALL | METH_KEYWORDS)))
setattr(Value, "label", _Attribute("label", ""))


# ---- what users see of the classes ----
#
# Their home is `flatgrad`: there the API pages have them, Sphinx links to them and doctest finds them; pickles name it,
# and need no more than the package. `flatgrad.engine.Value` is the same class. Messages of Python call it 'Value', as
# they do a class written in Python.

cdef int introduce(object cls, const char *name, str signature) except -1:
    """Give a class its home, and `inspect.signature` what it asks for."""
    cdef PyTypeObject *tp = <PyTypeObject *>cls
    doc = cls.__doc__
    if doc.startswith(f"{name.decode()}("):   # Cython's line, in which keywords stand at the wrong place
        doc = doc.partition("\n\n")[2] if "\n\n" in doc[:doc.index("\n") + 2] else doc.partition("\n")[2]
    tp.tp_name = name
    text = f"{name.decode()}({signature})\n--\n\n{doc}".encode()
    kept_alive.append(text)
    tp.tp_doc = text
    cls.__doc__ = doc
    cls.__module__ = "flatgrad"
    for member in vars(cls).values():
        if getattr(member, "__module__", None) == __name__ and callable(member):
            member.__module__ = "flatgrad"   # doctest looks for a class's methods in its home
    for operator_, sign in [("add", "+"), ("sub", "-"), ("mul", "*"), ("truediv", "/"), ("matmul", "@")]:
        method = vars(cls).get(f"__{operator_}__")
        if type(method) is MethodDescriptorType and method.__doc__ is None:
            text = f"__{operator_}__($self, value, /)\n--\n\nReturn self{sign}value.".encode()
            kept_alive.append(text)
            (<PyMethodDescrObject *>method).d_method.ml_doc = text
    return 0


introduce(Value, "Value", "data, _children=(), _op='', label=None, *, children=None, local_grads=None")
introduce(Tensor, "Tensor", "data, requires_grad=True")


# ---- looking inside ----

def stats():
    """What the tape holds at the moment.

    Returns
    -------
    dict
        ``nodes``: nodes on it, dead ones that await collection included; ``capacity``: nodes that
        fit before it grows; ``operands``: entries in the operand pool; ``bytes``: memory of all its
        arrays; ``collections``: how often it has been collected; ``isa``: the instruction-set level
        of the kernels.

    Examples
    --------
    >>> import flatgrad
    >>> x = flatgrad.Value(1.0)
    >>> flatgrad.stats()["nodes"] >= 1
    True
    """
    return {
        "nodes": tape.n - 1,
        "capacity": tape.capacity,
        "operands": tape.npool,
        "bytes": tape.mem.bytes,
        "collections": tape.collections,
        "isa": tape.kernels.isa.decode(),
    }


def collect():
    """Reclaim all nodes that nothing uses any more, now rather than when the tape has doubled.

    Returns
    -------
    int
        How many nodes were reclaimed.

    Examples
    --------
    >>> import flatgrad
    >>> x = flatgrad.Value(1.0)
    >>> y = [x * 2.0, x * 3.0]
    >>> y[0] = None
    >>> flatgrad.collect() >= 2
    True
    """
    cdef fg_id before = tape.n
    if tape.boxes > 0:
        release_cycles(NO_LIMIT)   # the nodes that go with them may be popped before they are collected
    fg_tape_collect(&tape)
    collected()
    if not tape.busy:
        fg_tape_shrink(&tape)
    if tape.dead != NULL:
        drain()
    return before - tape.n if before > tape.n else 0


def _kernel_levels():
    """The instruction-set levels that this build has and this processor can run, for the command line."""
    return kernel_levels()


def _operations():
    """The rows of ops.def, for the tests and for the type stubs."""
    return [{"id": fg_op_table[op].id.decode(), "name": fg_op_table[op].name.decode(),
             "operands": fg_op_table[op].operands.decode(), "symbol": fg_op_table[op].symbol.decode(),
             "domain": fg_op_table[op].domain.decode(), "formula": fg_op_table[op].formula.decode(),
             "edge": fg_op_table[op].edge.decode(), "arity": fg_op_table[op].arity,
             "public": bool(fg_op_table[op].is_public)}
            for op in range(FG_OPS)]


def _apply(str row not None, *operands):
    """Row `row` of ops.def on Values and numbers, public or not."""
    if row not in opcodes or fg_op_table[<int>opcodes[row]].arity < 1:
        raise ArgumentError(f"row: expected a row of ops.def that has operands, got {row!r}")
    return apply_function(opcodes[row], PySequence_Fast_ITEMS(operands), len(operands))


def _check():
    """Whether the tape's invariants hold. Reads all of it."""
    return bool(fg_tape_check(&tape))


def _declare(name, *, default=MISSING, factory=None):
    """Let every Value have an attribute of that name, without cost to operations.

    Parameters
    ----------
    name : str
        Of no method or property of Value, and not the name of a special one, such as ``__doc__``. An attribute that
        Values have already is declared anew: they keep what they were given.
    default : object, optional
        What a Value shows that has been given none, and `Value` itself. Without it, and without `factory`, asking such
        a Value is an AttributeError.
    factory : callable, optional
        Called without arguments when such a Value is first asked; the result is given to the Value, stays with its
        node, and is saved and copied with it. For lists and dicts, of which each Value needs its own. `Value`
        itself then shows `default`.

    Raises
    ------
    TypeError, ValueError
        If `name` is not as described, or `factory` is not callable.

    Notes
    -----
    ``del Value.<name>`` takes the declaration back. The next ``v.<name> = ...`` declares the name again, with what the
    class has under it as the default.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad._core import _declare
    >>> _declare("consumers", factory=list)
    >>> v, w = Value(1.0), Value(2.0)
    >>> v.consumers.append("w")
    >>> v.consumers, w.consumers
    (['w'], [])
    >>> del Value.consumers
    """
    if not isinstance(name, str):
        raise ArgumentTypeError(f"name: expected a str, got {describe(name)}")
    if factory is not None and not callable(factory):
        raise ArgumentTypeError(f"factory: expected a callable, got {describe(factory)}")
    name = str(name)
    present = class_attribute(Value, name)
    if not (present is MISSING or is_default(name, present) or isinstance(present, _Attribute)):
        raise ArgumentError(f"name: expected one that Value itself does not have, got {name!r}")
    setattr(Value, name, _Attribute(name, default, factory))


def _testing(fail_after=None, limit=None, sweep_chunk=None, collect_floor=None):
    """Make rare things common, for tests.

    fail_after: let that many allocations of the core succeed and fail all others; negative: none.
    limit: how many ids there are. sweep_chunk: words of 64 nodes between checks for interrupts.
    collect_floor: nodes below which nothing is collected; 0: collect before every operation.
    Returns how many checks for interrupts there have been.
    """
    global sweep_words
    if limit is not None and limit > <fg_id>FG_MAX_ID:
        raise ArgumentError(f"limit: expected at most {<fg_id>FG_MAX_ID}, got {limit}")
    if sweep_chunk is not None and sweep_chunk < 1:
        raise ArgumentError(f"sweep_chunk: expected at least 1, got {sweep_chunk}")
    if fail_after is not None:
        tape.mem.fail_after = fail_after
    if limit is not None:
        tape.limit = limit
        fg_tape_reserve(&tape, 0, 0)   # sets the room by it
    if sweep_chunk is not None:
        sweep_words = sweep_chunk
    if collect_floor is not None:
        tape.collect_floor = collect_floor
        collect()   # sets the next threshold
    return sweep_pauses
