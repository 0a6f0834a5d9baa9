# inside.pxi: Looking inside, and making rare things common: statistics, and what tests and our modules ask.
#
# Uses attributes, contexts, cycles, elementwise, entries, messages, python, tape, walk.

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


cdef tuple KINDS = ("", "operator", "function", "activation", "loss")   # fg_kind


def _operations():
    """The rows of ops.def, for the tests and for the type stubs."""
    return [{"id": fg_op_table[op].id.decode(), "name": fg_op_table[op].name.decode(),
             "operands": fg_op_table[op].operands.decode(), "symbol": fg_op_table[op].symbol.decode(),
             "domain": fg_op_table[op].domain.decode(), "formula": fg_op_table[op].formula.decode(),
             "edge": fg_op_table[op].edge.decode(), "arity": fg_op_table[op].arity,
             "public": bool(fg_op_is_public(op)), "kind": KINDS[fg_op_table[op].kind],
             "fused": bool(fg_op_table[op].fused), "ufuncs": fg_op_table[op].ufuncs.decode().split(),
             "default": None if isnan(fg_op_table[op].second) else fg_op_table[op].second}
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


def _memory():
    """Where the tape's own memory is: the addresses of its fields, arrays and spare sweep, for tests that damage it."""
    return {"n": <size_t>&tape.n, "room": <size_t>&tape.room, "capacity": <size_t>&tape.capacity,
            "npool": <size_t>&tape.npool, "sentinel": <size_t>&tape.sentinel, "op": <size_t>tape.op,
            "args": <size_t>tape.args, "owner": <size_t>tape.owner, "pool": <size_t>tape.pool,
            "marks": <size_t>tape.marks.word, "summary": <size_t>tape.marks.summary,
            "spare": <size_t>tape.spare}


def _testing(fail_after=None, limit=None, sweep_chunk=None, collect_floor=None, stop_after=None):
    """Make rare things common, for tests.

    fail_after: let that many allocations of the core succeed and fail all others; negative: none.
    limit: how many ids there are. sweep_chunk: words of 64 nodes between checks for interrupts.
    collect_floor: nodes below which nothing is collected; 0: collect before every operation.
    stop_after: let the core ask so often whether to stop, and press Ctrl-C at the next question; negative: never.
    Returns how many checks for interrupts there have been.
    """
    global sweep_words, chosen_words, questions_left
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
        chosen_words = sweep_chunk
        sweep_words = 0 if anomaly_blocks else chosen_words
    if collect_floor is not None:
        tape.collect_floor = collect_floor
        collect()   # sets the next threshold
    if stop_after is not None:
        questions_left = stop_after
    return sweep_pauses
