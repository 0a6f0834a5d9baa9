# timing.pxi: How long programs take, on the numbers of their last call.
#
# Promises that gradients and the tape stay as they are. Python's share of a call is not in it.
#
# Uses callees, programs.

cdef int rehearse(_Callee body, int step) except -1:
    """A step forward or backward; Ctrl-C raises."""
    cdef int status = (fg_lanes_rehearse((<_Lanes>body).lanes(), step) if type(body) is _Lanes
                       else fg_program_rehearse((<_Body>body).program(), step))
    if status == FG_E_INTERRUPTED:
        PyErr_CheckSignals()
    return 0


cdef double seconds_of(_Callee body, int step, double budget) except -1.0:
    """The shortest of some repetitions."""
    cdef Py_ssize_t runs = 2, k
    cdef bint odd = False
    cdef double began, elapsed, least = INFINITY, until = perf_counter() + budget
    try:
        while True:
            began = perf_counter()
            for k in range(runs):
                odd = not odd
                rehearse(body, step)
            elapsed = perf_counter() - began
            least = elapsed / runs if elapsed / runs < least else least
            if began + elapsed >= until:
                return least
            if elapsed < 1e-4:
                runs *= 2
    finally:
        if odd and step != FG_REHEARSE_BACKWARD:
            rehearse(body, FG_REHEARSE_TURN)


cdef double seconds_of_nodes(_Body body, list nodes, double budget) except -1.0:
    """Likewise of the forward steps of some nodes, (first, count) each."""
    cdef fg_stretch *stretches
    cdef Py_ssize_t runs = 1, k
    cdef double began, elapsed, least = INFINITY, until = perf_counter() + budget
    scratch = bytearray((len(nodes) + 1) * sizeof(fg_stretch))
    stretches = <fg_stretch *><char *>scratch
    for k in range(len(nodes)):
        stretches[k].first, stretches[k].count = nodes[k]
    while True:
        began = perf_counter()
        for k in range(runs):
            if fg_program_rehearse_nodes(body.program(), stretches, <fg_id>len(nodes)) == FG_E_INTERRUPTED:
                PyErr_CheckSignals()
        elapsed = perf_counter() - began
        least = elapsed / runs if elapsed / runs < least else least
        if began + elapsed >= until:
            return least
        if elapsed < 1e-4:
            runs *= 2


def _timed(_Program program not None, double budget=0.005):
    """How long a program takes, measured on the numbers of its last call.

    Parameters
    ----------
    program : _Program
    budget : float, optional
        Seconds for each measurement, of which there are three, and one for each kind of instruction.

    Returns
    -------
    dict
        Seconds, each the shortest of some repetitions: ``forward``; ``backward``, or None if no gradients flow; and
        ``kinds``, those forward of all instructions of each kind. Of a batch ``kinds`` is empty.
    """
    cdef fg_program *p
    cdef fg_id i, k, first
    cdef int op
    cdef dict nodes = {}
    cdef bint flows = False
    if program.body is None:
        raise RuntimeError("a program is made by a recording")
    if type(program.body) is not _Body and type(program.body) is not _Lanes:
        raise TypeError("_timed(): expected a program of one sample or of a batch")
    for k in range(program.n_segments):
        flows = flows or program.wanted[k]
    turns = seconds_of(program.body, FG_REHEARSE_TURN, budget)
    forward = seconds_of(program.body, FG_REHEARSE_FORWARD, budget) - turns
    found = {"forward": forward if forward > 0.0 else 0.0, "kinds": {},
             "backward": seconds_of(program.body, FG_REHEARSE_BACKWARD, budget) if flows else None}
    if type(program.body) is _Body:
        p = (<_Body>program.body).program()
        for i in range(p.area + 1, p.body.n):
            op = fg_tape_op(&p.body, i)
            if op != FG_LEAF and op != FG_FROZEN and op != FG_PART and op != FG_RUN:
                first = i - p.body.args[i].b if fg_op_is_block(op) else i
                several = nodes.setdefault(symbol_of(p, i), [])
                if several and several[-1][0] + several[-1][1] == first:
                    several[-1] = (several[-1][0], i + 1 - several[-1][0])
                else:
                    several.append((first, i + 1 - first))
        found["kinds"] = {symbol: seconds_of_nodes(<_Body>program.body, several, budget)
                          for symbol, several in nodes.items()}
    return found
