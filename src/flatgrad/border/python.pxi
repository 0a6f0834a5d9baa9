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
    void *PyCapsule_GetPointer(object capsule, const char *name) except NULL
    void *PyLong_AsVoidPtr(object x) except? NULL
    PyObject *PyDict_GetItemWithError(object d, object key) except? NULL
    PyObject *PyDict_GetItem_ "PyDict_GetItemWithError"(PyObject *d, PyObject *key) except? NULL
    PyObject *PyFunction_GetCode(PyObject *function)   # these without a reference of their own
    PyObject *PyFunction_GetDefaults(PyObject *function)
    PyObject *PyFunction_GetKwDefaults(PyObject *function)
    PyObject *PyCell_GET(PyObject *cell)
    PyTypeObject PyFloat_Type, PyDict_Type, PyTuple_Type, PyLong_Type, PyList_Type
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
