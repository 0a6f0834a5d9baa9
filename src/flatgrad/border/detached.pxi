# detached.pxi: Programs apart from the Values that they have captured.
#
# These Values are told, and programs made of them that compute derivatives by their numbers, or the same with other
# numbers in place of theirs.
#
# A program that was made of another captures what that does, and besides at most a row of zeros.
#
# Uses callees, handles, listings, messages, programs, tape.

def _captured_leaves(_Program program not None):
    """What a program has captured that gradients flow to, in the order of `_captured_numbers`.

    Returns
    -------
    leaves : list of Value and Tensor
        A Tensor has one dimension, and is a part of what was captured.
    computed : list of Value
        Results of operations that were there before; gradients would flow to what these were computed from.
    """
    cdef fg_id k, e
    cdef Py_ssize_t j
    cdef Piece *p
    cdef Tensor t
    cdef fg_id first
    cdef Py_ssize_t at = 0
    cdef list found = [], computed = [], used
    if type(program.body) is not _Body:
        raise RuntimeError("a program of one sample is made by a recording")
    used = captured_used(program)
    hold_ids()
    try:
        for k in range(program.n_inputs, program.n_segments):
            for j in range(program.begins[k - program.n_inputs], program.begins[k - program.n_inputs + 1]):
                p = &program.pieces[j]
                first, t = first_of(program.captured[p.which]) + p.offset, None
                for e in range(p.count):
                    if not used[at + e] or fg_tape_op(&tape, first + e) != FG_LEAF:
                        t = None
                        if used[at + e] and fg_tape_op(&tape, first + e) != FG_FROZEN:
                            computed.append(handle_of(first + e))
                    elif type(program.captured[p.which]) is not _Run:
                        found.append(program.captured[p.which])
                    elif t is not None:
                        t.cols += 1
                        t.row_step += 1
                    else:
                        t = Tensor.__new__(Tensor)
                        t.run, t.constant, t.offset = program.captured[p.which], False, p.offset + e
                        t.rows, t.cols, t.ndim, t.row_step, t.col_step = 1, 1, 1, 1, 1
                        found.append(t)
                at += p.count
    finally:
        release_ids()
    return found, computed


cdef _Program with_rows(_Body body, tuple captured, tuple shapes, tuple results, tuple signs, list rows):
    """A program that captures these objects: rows: for each captured segment the pieces, as (which, offset, count)."""
    cdef _Program made = _Program.__new__(_Program)
    cdef Py_ssize_t n = 0
    made.make_pieces(len([piece for row in rows for piece in row]), len(rows))
    for k, row in enumerate(rows):
        for which, offset, count in row:
            made.pieces[n] = Piece(which, offset, count)
            n += 1
        made.begins[k + 1] = n
    fill_program(made, body, captured, shapes, results, signs)
    return made


def _differentiated(_Program program not None, wanted, bint seeds=False):
    """The program that returns what a program does and then the gradients of what it has captured, in one row.

    Parameters
    ----------
    program : _Program
    wanted : list of bool
        Of each number that is captured. Gradients of all numbers of its segment are returned.
    seeds : bool, optional
        True: it captures a row of zeros more, the gradients of the results. False: the only result's is 1.

    Returns
    -------
    program : _Program
    places : list of int
        For each number that `program` has captured the result, counted from 0, which is its gradient; -1 for others.
    """
    cdef fg_id k, e, n_results
    cdef Py_ssize_t j, at = 0
    cdef _Body body
    cdef fg_stretch *segments
    cdef Tensor zeros
    cdef list rows = [], flags = [], places
    cdef tuple captured = program.captured
    if type(program.body) is not _Body:
        raise RuntimeError("a program of one sample is made by a recording")
    segments, n_results = program.body.callee.segments, program.body.callee.n_results
    for k in range(program.n_inputs):
        flags.append(False)
    for k in range(program.n_inputs, program.n_segments):
        flags.append(any(wanted[at:at + segments[k].count]))
        at += segments[k].count
        rows.append([(program.pieces[j].which, program.pieces[j].offset, program.pieces[j].count) for j in
                     range(program.begins[k - program.n_inputs], program.begins[k - program.n_inputs + 1])])
    if len(wanted) != at:
        raise ValueError(f"wanted: expected {at} bools, one for each number that is captured")
    body, found = _with_gradients(program.body, flags, seeds)
    if seeds:
        zeros = Tensor([0.0] * n_results, False)
        rows.append([(len(captured), 0, n_results)])
        captured += (zeros.run,)
    places, at, known = [-1] * at, 0, dict(found)
    for k in range(program.n_inputs, program.n_segments):
        for e in range(segments[k].count):
            if k in known:
                places[at] = known[k] + e
            at += 1
    return with_rows(body, captured, program.shapes, (((body.callee.n_results,), False),), program.signs, rows), places


def _detached(_Program program not None):
    """What `_attached` makes the program of, but for the numbers that it has captured."""
    if type(program.body) is not _Body:
        raise RuntimeError("a program of one sample is made by a recording")
    return program.body, program.shapes, program.results, program.signs


def _attached(_Body body not None, shapes, results, signs, numbers not None):
    """The program again, with numbers of its own in place of those that it has captured.

    Parameters
    ----------
    body, shapes, results, signs
        Of `_detached`.
    numbers : ndarray of float64
        As `_captured_numbers` has them.
    """
    cdef Tensor t = Tensor(numbers, False)
    cdef Py_ssize_t k, at = 0, n_inputs
    cdef list rows = []
    if body.callee == NULL or type(shapes) is not tuple:
        damaged("a program has no shapes")
    n_inputs = len(shapes)
    counts = [body.callee.segments[k].count for k in range(body.callee.n_segments)]
    for k in range(n_inputs, len(counts)):
        rows.append(((0, at, counts[k]),))
        at += counts[k]
    return _restore_program(body, (t.run,), tuple([row[0] for row in rows]), tuple(range(len(rows) + 1)), shapes,
                            results, signs)
