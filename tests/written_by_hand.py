"""The reverse sweep that writes nodes, by hand and slowly: what `_core.written` is held against.

It knows scalar operations alone, of a graph that is built within ``scalar_graph()``, and goes from node to node through
`_children` and `_op`. Its derivatives are Values made by operators, so it differentiates its own results as well.
"""
import flatgrad
from flatgrad import Value

RULES = {
    "+": lambda z, x, y: (1.0, 1.0),
    "-": lambda z, x, y: (1.0, -1.0),
    "*": lambda z, x, y: (y, x),
    "/": lambda z, x, y: (1.0 / y, -z / y),
    "neg": lambda z, x: (-1.0,),
    "copy": lambda z, x: (1.0,),
    "exp": lambda z, x: (z,),
    "log": lambda z, x: (1.0 / x,),
    "sqrt": lambda z, x: (0.5 / z,),
    "sin": lambda z, x: (x.cos(),),
    "cos": lambda z, x: (-x.sin(),),
    "tanh": lambda z, x: (1.0 - z * z,),
    "sigmoid": lambda z, x: (z * (1.0 - z),),
    "ReLU": lambda z, x: (flatgrad.where(z, 1.0, 0.0),),
}


def rule_of(node, operands):
    """The partial derivatives of a node by its operands."""
    op = node._op
    if op.startswith("**") and len(op) > 2:
        k = float(op[2:])
        return (k * operands[0] ** (k - 1.0) if k != 0.0 else 0.0,)
    if op == "**":
        x, y = operands
        return y * x ** (y - 1.0), node * x.log()
    return RULES[op](node, *operands)


def elements(x):
    if isinstance(x, Value):
        return [x]
    return list(x) if x.ndim == 1 else [element for row in x for element in row]


def in_order(outputs):
    """All nodes that outputs depend on, operands first."""
    order, seen = [], set()
    pending = [(node, False) for node in outputs]
    while pending:
        node, done = pending.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            pending.append((node, True))
            pending.extend((operand, False) for operand in node._children)
    return order


def written(outputs, grad_outputs, inputs):
    """As `_core.written`; a Tensor's gradient is a Tensor of Values."""
    adjoint, wanted = {}, {element for x in inputs for element in elements(x)}
    for output, seed in zip(outputs, grad_outputs, strict=True):
        seeds = [Value(1.0)] * len(elements(output)) if seed is None else elements(seed)
        for element, g in zip(elements(output), seeds, strict=True):
            adjoint[element] = adjoint[element] + g if element in adjoint else g
    order, depends = in_order(list(adjoint)), set()
    for node in order:
        if node in wanted or any(operand in depends for operand in node._children):
            depends.add(node)
    for node in reversed(order):
        if node not in adjoint or node not in depends or not any(x in depends for x in node._children):
            continue
        operands = node._children
        for operand, partial in zip(operands, rule_of(node, operands), strict=True):
            if operand in depends:
                g = adjoint[node] * partial
                adjoint[operand] = adjoint[operand] + g if operand in adjoint else g
    return [gradient_of(x, adjoint) for x in inputs]


def gradient_of(x, adjoint):
    found = [adjoint.get(element) for element in elements(x)]
    if all(g is None for g in found):
        return None
    if isinstance(x, Value):
        return found[0] * 1.0
    flat = flatgrad.stack([Value(0.0) if g is None else g for g in found])
    return flat if x.ndim == 1 else flat.reshape(*x.shape)
