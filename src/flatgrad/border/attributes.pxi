# attributes.pxi: What users hang on nodes: attributes of any name.
#
# Promises that they cost operations nothing, stay with the node while its handles come and go, and are found by any
# handle of it. What is called `_backward` among them is run by sweeps.
#
# Uses contexts, messages, python, tape.

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


cdef int attach(fg_id i, dict extra) except -1:
    """Give node i attributes, a dict that is nobody else's. Nothing but memory can fail, and then nothing has
    changed."""
    cdef fg_box *box = fg_tape_box(&tape, i)
    cdef PyObject *old
    if box == NULL:
        raise_status(FG_E_MEMORY)
    old = <PyObject *>box.extra
    Py_INCREF(<PyObject *>extra)
    box.extra = <void *>extra
    fg_tape_set_hook(&tape, i, "_backward" in extra or "_rule" in extra)
    if old != NULL:
        Py_DECREF(old)
    return 0


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
            if FG_UNLIKELY(recordings != 0):
                fg_refuse_stand_in((<Value>instance).id, self.name)
            if self.factory is not None:
                made = self.factory()   # which may run anything
                return make_extra(instance).setdefault(self.name, made)
        if self.default is MISSING:
            raise AttributeError(f"'Value' object has no attribute {self.name!r}" if instance is not None else
                                 f"type object 'Value' has no attribute {self.name!r}")
        return self.default


# Attributes that one assigns, and names that are near these and words of their own.
cdef tuple ASSIGNED = ("data", "grad", "requires_grad")
cdef set WORDS = {"date", "dates", "dat", "datas", "dada", "grade", "grads", "grand", "gray", "grid", "grab", "gram",
                  "gran", "graf", "glad", "goad", "rad", "gradu", "dato", "dota"}
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
        name[k] == other[k + 1] and name[k + 1] == other[k] and name[k + 2:] == other[k + 2:])


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


cdef int is_default(str name, object x) except -1:
    """Whether what the class has under that name is there to be shown by Values that have none of their own: a plain
    object, and no method, property or the like."""
    return (Py_TYPE(<PyObject *>x).tp_descr_get == NULL and Py_TYPE(<PyObject *>x).tp_descr_set == NULL
            and not (name.startswith("__") and name.endswith("__")))


cdef int declare_attribute(str name) except -1:
    """Let instances have an attribute of that name. A plain attribute that the class has under it becomes the default;
    anything else there stays as it is."""
    present = class_attribute(Value, name)
    if present is MISSING:
        if name not in ("_op", "_backward"):
            setattr(Value, name, _Attribute(name))
    elif is_default(name, present):
        setattr(Value, name, _Attribute(name, present))
    return 0


cdef dict checked_attributes(object extra):
    """A copy, which nobody else changes, of the attributes of a saved node; instances may have them from now on."""
    if type(extra) is not dict:
        damaged(f"its attributes are {describe(extra)}")
    extra = dict(extra)
    if not all([type(name) is str for name in extra]):
        damaged(f"its attributes are {describe(extra)}")
    if not isinstance(extra.get("_op", ""), str):
        damaged(f"its _op is {describe(extra['_op'])}")
    if "_backward" in extra and not callable(extra["_backward"]):
        damaged(f"its _backward is {describe(extra['_backward'])}")
    if "_rule" in extra and not (hasattr(extra["_rule"], "reverse") and hasattr(extra["_rule"], "shapes")):
        damaged(f"its rule is {describe(extra['_rule'])}")
    for name in tuple(extra):
        if name != "_rule":
            declare_attribute(name)
    return extra
