# python.pxi: Python's C API, as the rooms call it.
#
# Promises nothing but declarations, and a shorter word for what several rooms do with them.
#
# Uses no other room.

cdef extern from "Python.h":
    """
    /* Whether o is a type made at run time, which may have been made by a function and die again. */
    #define FG_IS_HEAP_TYPE(o) (PyType_Check(o) && PyType_HasFeature((PyTypeObject *)(o), Py_TPFLAGS_HEAPTYPE))

    /* A RecursionError where that is too deep. Python's own gives 1 or -1 then. */
    #define fg_enter_recursion(where) (Py_EnterRecursiveCall(where) ? -1 : 0)

    /* The frame of a generator or coroutine, from Python 3.14 on: its variables and its stack lie where the object's
     * items do, a word for each, whose low bits say whether it is a number (3), and whether the reference is borrowed
     * (1). tp_traverse tells of them in this order, after the code object, borrowed or not. */
    typedef struct { const uintptr_t *next, *end; int begun; } fg_frame;

    #if PY_VERSION_HEX >= 0x030E0000
    static int fg_frame_of(PyObject *o, fg_frame *f)
    {
        PyTypeObject *tp = Py_TYPE(o);
        f->begun = 0;
        if (tp != &PyGen_Type && tp != &PyCoro_Type && tp != &PyAsyncGen_Type)
            return 0;
        f->next = (const uintptr_t *)(const void *)((const char *)o + tp->tp_basicsize);
        f->end = f->next;
        return 1;
    }

    /* Whether the frame counts the reference of which tp_traverse tells now; no, if it is not where it should be. */
    static int fg_frame_counts(fg_frame *f, PyObject *o)
    {
        if (!f->begun) {
            f->begun = PyCode_Check(o);
            if (f->begun)
                f->end = f->next + ((PyCodeObject *)o)->co_nlocalsplus + ((PyCodeObject *)o)->co_stacksize;
            return 1;
        }
        while (f->next < f->end) {
            const uintptr_t word = *f->next++;
            if ((word & 3) == 3 || (word & ~(uintptr_t)3) == 0)
                continue;
            if ((word & ~(uintptr_t)3) == (uintptr_t)o)
                return (word & 1) == 0;
            f->end = f->next;
        }
        return 0;
    }
    #else
    #define fg_frame_of(o, f) 0
    #define fg_frame_counts(f, o) 1
    #endif

    /* There is one tape, of one interpreter. Cython's code asks for the number of the interpreter before it makes the
     * module; -1 with an exception is an error there. By itself it would let the first one in, whichever that is.
     * `__init__` says why. */
    static int64_t fg_main_interpreter(PyInterpreterState *interpreter)
    {
        if (interpreter == PyInterpreterState_Main())
            return (PyInterpreterState_GetID)(interpreter);
        PyErr_SetString(PyExc_ImportError, "flatgrad._core does not support loading in subinterpreters");
        return -1;
    }
    #define PyInterpreterState_GetID(interpreter) fg_main_interpreter(interpreter)
    """
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
        void *tp_iter
        void *tp_descr_set
    const bint PY_BIG_ENDIAN
    int PyOS_InterruptOccurred()
    void PyErr_SetInterrupt()
    unsigned long PyThread_get_thread_ident() nogil
    PyTypeObject PyType_Type
    PyObject *_PyType_Lookup(PyTypeObject *tp, PyObject *name)
    PyObject *PyType_GenericAlloc(PyTypeObject *tp, Py_ssize_t nitems) except NULL
    void PyObject_ClearWeakRefs(PyObject *o)
    # By pointer: a dying object must not be touched by automatic reference counting.
    PyTypeObject *Py_TYPE(PyObject *o)
    Py_ssize_t Py_REFCNT(PyObject *o)
    void Py_INCREF(PyObject *o)
    void Py_DECREF(PyObject *o)
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
    void *PyCapsule_GetPointer(object capsule, const char *name) except NULL
    void *PyLong_AsVoidPtr(object x) except? NULL
    PyObject *PyDict_GetItemWithError(object d, object key) except? NULL
    PyObject *PyDict_GetItem_ "PyDict_GetItemWithError"(PyObject *d, PyObject *key) except? NULL
    PyObject *PyFunction_GetCode(PyObject *function)   # these without a reference of their own
    PyObject *PyFunction_GetDefaults(PyObject *function)
    PyObject *PyFunction_GetKwDefaults(PyObject *function)
    PyObject *PyCell_GET(PyObject *cell)
    PyTypeObject PyFloat_Type, PyDict_Type, PyTuple_Type, PyLong_Type, PyList_Type, PyFrozenSet_Type
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
    bint FG_IS_HEAP_TYPE(PyObject *o)
    ctypedef struct fg_frame:
        pass
    bint fg_frame_of(PyObject *o, fg_frame *f)
    bint fg_frame_counts(fg_frame *f, PyObject *o)
    unsigned long Py_TPFLAGS_HEAPTYPE
    bint PyObject_IS_GC(PyObject *o)
    bint PyObject_GC_IsTracked(PyObject *o)
    bint PyObject_GC_IsFinalized(PyObject *o)
    void PyObject_CallFinalizer(PyObject *o)
    bint PyModule_Check(PyObject *o)
    PyObject *PyModule_GetDict(PyObject *module)
    PyObject *PyImport_GetModuleDict()
    bint PyDict_Next_ "PyDict_Next"(PyObject *d, Py_ssize_t *position, PyObject **key, PyObject **value)
    Py_ssize_t PyDict_Size_ "PyDict_Size"(PyObject *d)
    bint PyDict_CheckExact_ "PyDict_CheckExact"(PyObject *o)
    int PyContextVar_Get(PyObject *var, PyObject *default, PyObject **value) noexcept
    PyObject *PyObject_GetAttr(PyObject *o, PyObject *name) noexcept
    void PyErr_Clear() noexcept
    int PyObject_GetBuffer_ "PyObject_GetBuffer"(object o, Py_buffer *view, int flags) noexcept
    PyObject *Py_True
    PyObject *Py_None
    int fg_enter_recursion(const char *where) except -1
    void Py_LeaveRecursiveCall()


cdef dict keywords_of(PyObject **args, Py_ssize_t count, PyObject *names):
    """The keyword arguments of a call by vector: they follow `count` others."""
    cdef Py_ssize_t k
    if names == NULL:
        return {}
    return {name: <object>args[count + k] for k, name in enumerate(<tuple>names)}


cdef list kept_alive = []   # what C structures point to
