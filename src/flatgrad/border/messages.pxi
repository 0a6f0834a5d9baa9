# messages.pxi: What an error says: the words that all rooms share.
#
# A message names the argument, its value and what was expected. What a status of C means for the tape is said in
# tape.pxi.
#
# Uses no other room.

cdef str describe(object x):
    """A value for an error message, with its type."""
    return f"{type(x).__name__} {shortened(x)}"


cdef list to_list(str name, str what, object x):
    try:
        x = iter(x)
    except TypeError:
        raise TypeError(f"{name}: expected an iterable of {what}, got {describe(x)}") from None
    return list(x)


cdef int damaged(str what) except -1:
    raise ValueError(f"a saved Value is damaged: {what}")


cdef int raise_position(double position, fg_id length, str where="") except -1:
    """The exception for a number that is no position among `length`."""
    raise IndexError(f"position {position:.17g}: expected a whole number from {-<int64_t>length} to {length - 1}"
                     + (f",{where}" if where else ""))


cdef int raise_operation(int status, int op, tuple operands, str where="", bint single=False) except -1:
    """The exception for an operation outside its domain. Names the operation and its operands. single: it was computed
    in floats of 32 bits."""
    cdef str symbol = fg_op_table[op].symbol.decode()
    cdef str what
    if fg_op_is_public(op):
        what = f"{fg_op_table[op].name.decode()}({', '.join([repr(x) for x in operands])})"
    else:
        what = f" {symbol} ".join([repr(x) for x in operands])
    what += where
    cdef str expected = f"expected {fg_op_table[op].domain.decode()}"
    if status == FG_E_ZERO_DIVISION:
        raise ZeroDivisionError(f"division by zero: {what}; {expected}")
    if status == FG_E_OVERFLOW and single:
        raise OverflowError(f"result too large for float32: {what}; expected at most 3.4e38")
    if status == FG_E_OVERFLOW:
        raise OverflowError(f"result too large: {what}; {expected}")
    raise ValueError(f"math domain error: {what}; {expected}")
