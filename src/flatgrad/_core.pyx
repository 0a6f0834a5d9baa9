"""The compiled core: ``Value`` and what works on the tape directly.

The only border between Python and C. Here arguments are checked and converted, Python objects are
tied to nodes, and the core's status codes become exceptions. Everything about the tape itself is in
``csrc/``.

Three rules keep it sound. Convert operands first (that can run Python code), then make room (that
can renumber), then read ids. Nothing that runs Python code comes between reading an id and using it.
And a node is appended only when nothing after it can fail.
"""
cimport cython
from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_Check
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_Check
from cpython.object cimport PyObject
from cpython.weakref cimport PyWeakref_NewRef
from libc.math cimport INFINITY, fabs, isfinite, isnan, pow, sqrt
from libc.stdlib cimport qsort
from libc.string cimport memcmp, memcpy, memset

import copyreg
import gc
import operator
import os
import sys
import time
from contextvars import ContextVar
from time import perf_counter

from flatgrad.arguments import check_columns, flag, one_of, shortened
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, ShapeError


# The rooms of the border, one file each, in the order of dependence: a room uses what those before it define, and these
# types besides. Each opens with what it promises. tests/test_rooms.py knows what else runs backwards, and why.
cdef class _Rule    # custom.pxi
cdef class _Graph   # graphs.pxi
cdef class Tensor   # tensor.pxi; and Value, which _core.pxd declares

__all__ = ["Tensor", "Value", "argmax", "argmin", "cat", "collect", "dot", "linear", "log_softmax",
           "logsumexp", "matvec", "max", "mean", "min", "no_grad", "scalar_graph", "softmax", "square", "stack",
           "stats", "sum"]

include "border/python.pxi"
include "border/messages.pxi"
include "border/tape.pxi"
include "border/handles.pxi"
include "border/addresses.pxi"
include "border/walk.pxi"
include "border/cycles.pxi"
include "border/contexts.pxi"
include "border/numbers.pxi"
include "border/draws.pxi"
include "border/attributes.pxi"
include "border/sweeps.pxi"
include "border/anomaly.pxi"
include "border/custom.pxi"
include "border/ufuncs.pxi"
include "border/operators.pxi"
include "border/operands.pxi"
include "border/tracing.pxi"
include "border/watching.pxi"
include "border/views.pxi"
include "border/scalars.pxi"
include "border/instructions.pxi"
include "border/callees.pxi"
include "border/elementwise.pxi"
include "border/entries.pxi"
include "border/kept.pxi"
include "border/packing.pxi"
include "border/rebuilding.pxi"
include "border/graphs.pxi"
include "border/value.pxi"
include "border/value_type.pxi"
include "border/indexing.pxi"
include "border/products.pxi"
include "border/arrays.pxi"
include "border/reductions.pxi"
include "border/criteria.pxi"
include "border/joins.pxi"
include "border/tensor.pxi"
include "border/neurons.pxi"
include "border/layers.pxi"
include "border/parameters.pxi"
include "border/blame.pxi"
include "border/curvature.pxi"
include "border/vectors.pxi"
include "border/touched.pxi"
include "border/derivatives.pxi"
include "border/visits.pxi"
include "border/seeds.pxi"
include "border/written.pxi"
include "border/callbacks.pxi"
include "border/passes.pxi"
include "border/programs.pxi"
include "border/recordings.pxi"
include "border/derived.pxi"
include "border/called.pxi"
include "border/listings.pxi"
include "border/detached.pxi"
include "border/rules.pxi"
include "border/places.pxi"
include "border/replays.pxi"
include "border/timing.pxi"
include "border/stores.pxi"
include "border/training.pxi"
include "border/copies.pxi"
include "border/evaluations.pxi"
include "border/publish.pxi"
include "border/inside.pxi"
