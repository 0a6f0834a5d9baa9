"""Random programs on the tape against a model of plain Python objects.

Values and Tensors of every kind are made, within `no_grad` as well, detached, dropped, changed, updated,
differentiated, looked up through `_prev`, collected, and made while memory is short; the model
does the same with one Python object for each number, the derivatives of test_ops.ORACLE and, for the
instructions of many operands, those of FUSED.
After every backward pass each living Value and Tensor must have the model's gradient.
test_tape.py runs a few rounds of it.
"""
import gc
import heapq
import math
import random
import weakref

import numpy as np
from test_ops import IDS, ORACLE, ROWS, F

import flatgrad
from flatgrad import Tensor, Value, _core
from flatgrad.nn import Layer

SHORT = 10.0   # seconds

# Not the row whose slope next to 0 and 1 is 1e12 times what its operand is rounded by.
IDS = [i for i in IDS if i != "BINARY_CROSS_ENTROPY"]

# An activation's value, and its slope from its value.
ACTIVATIONS = {
    None: (lambda s: s, lambda z: 1.0),
    "relu": (lambda s: max(s, 0.0), lambda z: 1.0 if z > 0 else 0.0),
    "tanh": (math.tanh, lambda z: 1 - z * z),
    "sigmoid": (lambda s: 1 / (1 + math.exp(-s)) if s > -700 else math.exp(s), lambda z: z * (1 - z)),
}


def neuron_value(x, k):
    n, activation = k
    s = math.fsum([a * b for a, b in zip(x[:n], x[n:])] + x[2 * n:])
    return ACTIVATIONS[activation][0](s)


def neuron_partials(x, k, z):
    n, activation = k
    slope = ACTIVATIONS[activation][1](z)
    return [slope * w for w in x[n:2 * n]] + [slope * a for a in x[:n]] + [slope] * (len(x) - 2 * n)


def logsumexp(x):
    return max(x) + math.log(math.fsum([math.exp(a - max(x)) for a in x]))


# What a layer does by a second instruction: the row of the table, and its other operand.
SECOND = {"leaky_relu": ("LEAKY_RELU", 0.01), "elu": ("ELU", 1.0), "gelu": ("GELU", None),
          "gelu_tanh": ("GELU_TANH", None), "silu": ("SILU", None), "softplus": ("SOFTPLUS", None)}

# What an element of a fused instruction is, from its operands x and the constant k of its node, and its
# partials, from its value z as well. The operands of LAYER are k[0] inputs, as many weights and the
# bias, if it has one. The constant of a softmax is (index, the nodes of the row).
FUSED = {
    "COPY": (lambda x, k: x[0], lambda x, k, z: [1.0]),
    "SUM": (lambda x, k: math.fsum(x), lambda x, k, z: [1.0] * len(x)),
    "MEAN": (lambda x, k: math.fsum(x) / len(x), lambda x, k, z: [1.0 / len(x)] * len(x)),
    "MAX": (lambda x, k: max(x), lambda x, k, z: [(a == max(x)) / x.count(max(x)) for a in x]),
    "LOGSUMEXP": (lambda x, k: logsumexp(x), lambda x, k, z: [math.exp(a - logsumexp(x)) for a in x]),
    "SOFTMAX": (lambda x, k: math.exp(x[k[0]] - logsumexp(x)),
                lambda x, k, z: [z * ((j == k[0]) - p.data) for j, p in enumerate(k[1])]),
    "LOG_SOFTMAX": (lambda x, k: x[k[0]] - logsumexp(x),
                    lambda x, k, z: [(j == k[0]) - math.exp(min(p.data, 700.0)) for j, p in enumerate(k[1])]),
    "LAYER": (neuron_value, neuron_partials),
}
DIFFERENCES = {"SOFTMAX", "LOG_SOFTMAX", "BCE_WITH_LOGITS", "WEIGHTED_BCE_WITH_LOGITS", "KL_DIV", "BCE_SLOPE",
               "WEIGHTED_BCE_SLOPE", "SILU_SLOPE", "GELU_SLOPE", "GELU_TANH_SLOPE", "LOGIT", "POWER_SLOPE", "POWER_LOG"}
# Whose derivatives of 0 are not factors: by which operands.
STEPS = {"WHERE": 7, "CLIP": 7, "MAXIMUM": 3, "MINIMUM": 3, "MAX": -1, "FLOOR": 1, "SIGN": 1, "LESS": 3,
         "LESS_EQUAL": 3, "EQUAL": 3, "GATE": 1, "SHARE": 7, "POWER_SLOPE": 4, "POWER_LOG": 4}


class Node:
    """The model of a node: what flatgrad's must agree with."""

    count = 0

    def __init__(self, data, op="LEAF", operands=(), constant=None):
        self.data, self.grad, self.op = float(data), 0.0, op
        self.operands, self.constant = operands, constant
        self.size = 0.0    # of what the gradient is the sum of
        self.hidden = None
        Node.count += 1
        self.order = Node.count

    @classmethod
    def fused(cls, op, operands, constant=None):
        return cls(FUSED[op][0]([n.data for n in operands], constant), op, operands, constant)

    @classmethod
    def neuron(cls, operands, width, activation):
        """The output of a neuron of a layer."""
        if activation not in SECOND:
            return cls.fused("LAYER", operands, (width, activation))
        op, other = SECOND[activation]
        total = cls.fused("LAYER", operands, (width, None))
        chosen = [total] if other is None else [total, cls(other)]
        node = cls(ORACLE[op].value(*[n.data for n in chosen]), op, chosen)
        node.hidden = total   # which `agree` does not see by itself
        return node

    def reachable(self):
        """The nodes that this one depends on, and itself."""
        stack, seen = [self], {}
        while stack:
            node = stack.pop()
            if node.order not in seen:
                seen[node.order] = node
                stack += node.operands
        return list(seen.values())

    def derivatives(self, inputs):
        """The derivatives by nodes, and the sizes of what they are sums of; no gradient changes."""
        nodes = self.reachable() + list(inputs)
        before = [(node, node.grad, node.size) for node in nodes]
        for node in nodes:
            node.grad = node.size = 0.0
        self.backward()
        result = [(node.grad, node.size) for node in inputs]
        for node, grad, size in before:
            node.grad, node.size = grad, size
        return result

    def backward(self):
        self.grad = self.size = 1.0
        queue, seen = [(-self.order, self)], {self.order}
        while queue:
            _, node = heapq.heappop(queue)
            if node.op in ("LEAF", "CUSTOM"):
                partials = [0.0] * len(node.operands)
            elif node.op == "LOCAL":
                partials = node.constant
            elif node.op in FUSED:
                partials = FUSED[node.op][1]([n.data for n in node.operands], node.constant, node.data)
            else:
                arguments = [F(n.data) for n in node.operands]
                if ORACLE[node.op].immediate:
                    arguments.append(node.constant)
                with np.errstate(all="ignore"):
                    partials = ORACLE[node.op].partials(*arguments, F(node.data))
            for k, (operand, partial) in enumerate(zip(node.operands, partials, strict=True)):
                if operand.order not in seen:
                    seen.add(operand.order)
                    heapq.heappush(queue, (-operand.order, operand))
                    # What nobody holds has kept the rounding errors of earlier passes.
                    operand.size = max(operand.size, abs(operand.grad))
                if node.op != "CUSTOM":
                    chosen = partial == 0 and STEPS.get(node.op, 0) >> k & 1
                    operand.grad += 0.0 if chosen else float(partial) * node.grad
                    # The partials of these are differences of numbers about 1.
                    rounding = 1e-3 if node.op in DIFFERENCES else 0.0
                    operand.size += max(abs(float(partial)), rounding) * node.size


def ruled(data, operands, partials):
    """A node with a backward rule that uses it: a cycle."""
    out = Value(data, operands, "ruled")

    def rule():
        for operand, partial in zip(operands, partials, strict=True):
            operand.grad += partial * out.grad

    out._backward = rule
    return out


class Named(Value):
    """A subclass with attributes of its own."""

    def __init__(self, data, name):
        super().__init__(data)
        self.name = name


def array_of(shape, make):
    """An array of what `make` returns for each index."""
    result = np.empty(shape, dtype=object)
    for index in np.ndindex(result.shape):
        result[index] = make(index)
    return result


def numbers_of(nodes):
    return array_of(nodes.shape, lambda index: nodes[index].data).astype(float)


class Round:
    """One random program."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.pairs = []      # (Value, Node), both alive
        self.tensors = []    # (Tensor, array of Nodes), both alive
        self.references = []  # to some Values that may be dead by now
        self.constants = []  # (Tensor, array of Nodes), made within no_grad or by detach
        self.first = None    # within no_grad: the order of the last node that was there before

    def number(self):
        return self.rng.choice([self.rng.uniform(-3, 3), 0.0, 1.0, -1.0, 2.0, 0.5])

    def pick(self):
        return self.rng.choice(self.pairs)

    def add(self, value, node):
        assert type(value) in (Value, Named)
        self.agree(value.data, node)
        self.forget(node)
        self.reveal(value, node)
        if abs(value.data) < 1e6:
            self.pairs.append((value, node))

    def agree(self, data, node):
        """The model's number, but for rounding; from then on it has the tape's."""
        size = 4 * math.ulp(node.data) * (max(1, ORACLE[node.op].ulps) if node.op in ORACLE else 1)
        if node.op in DIFFERENCES and node.op in ORACLE:   # their terms may be far larger than they are
            size += 4 * math.ulp(math.prod([1.0 + abs(n.data) for n in node.operands]))
        if node.op in FUSED and node.op != "COPY":
            size += 1e-12 * (1.0 + sum([abs(n.data) for n in node.operands]))
        layer = node.hidden or node
        if layer.op == "LAYER":
            n = layer.constant[0]
            size += 1e-12 * (1.0 + sum([abs(a.data * b.data) for a, b in zip(layer.operands[:n], layer.operands[n:])]))
        assert data == node.data or math.isnan(data) and math.isnan(node.data) or abs(data - node.data) <= size, (
            data, node.op, node.data, [n.data for n in node.operands])
        node.data = data   # an ulp in exp must not grow through the program

    def reveal(self, value, node):
        """What a layer's activation is of gets the tape's number: its rounding may grow in the slope there."""
        if node.hidden and node.operands:
            number = value._children[0].data
            self.agree(number, node.hidden)

    def forget(self, node):
        """Within no_grad what is new is a leaf."""
        if self.first is not None and node.order > self.first:
            node.op, node.operands, node.constant = "LEAF", (), None

    def add_all(self, result, nodes):
        """What a function has returned: a Value, a list of them, or a Tensor."""
        if isinstance(result, Value):
            (node,) = np.ravel(nodes)
            return self.add(result, node)
        if isinstance(result, list):
            for value, node in zip(result, np.ravel(nodes), strict=True):
                self.add(value, node)
            return None
        assert type(result) is Tensor and result.shape == nodes.shape, (result.shape, nodes.shape)
        data = result.data
        for index in np.ndindex(nodes.shape):
            self.agree(float(data[index]), nodes[index])
            self.forget(nodes[index])
            if nodes[index].hidden:
                self.reveal(result[index if len(index) == 2 else index[0]], nodes[index])
        if not result.requires_grad:
            assert self.first is not None and all(node.order > self.first for node in nodes.reshape(-1))
            if (abs(data) < 1e6).all():
                self.constants.append((result, nodes))
            return None
        if (abs(data) < 1e6).all():
            self.tensors.append((result, nodes))
        return None

    def leaf(self):
        data = self.number()
        value = self.rng.choice([
            lambda: Value(data), lambda: Value(np.float64(data)), lambda: Named(data, "n"),
            lambda: Value(data=data), lambda: Value(np.array([data]))])()
        self.add(value, Node(data))

    def operation(self):
        op = self.rng.choice(IDS)
        operands, nodes = [], []
        oracle = ORACLE[op]
        for k in range(2 if oracle.immediate else ROWS[op]["arity"]):
            if k == 1 and oracle.immediate:
                operands.append(self.rng.choice([0, 1, 2, 3, -1, -2]) if op == "POWI"
                                else self.rng.choice([0.5, 1.5, -0.5, 2.0, 0.0]))
            elif (operands or ROWS[op]["public"]) and self.rng.random() < 0.2:
                number = self.number()
                operands.append(self.rng.choice([float, np.float64])(number))
                nodes.append(Node(number))
            else:
                value, node = self.pick()
                operands.append(value)
                nodes.append(node)
        numbers = [n.data for n in nodes]
        constant = operands[1] if oracle.immediate else None
        if constant is not None:
            numbers.append(constant)
        if op == "POW" and not isinstance(operands[1], Value):
            return    # a constant exponent is another row
        try:
            expected = oracle.value(*numbers)
        except (ArithmeticError, ValueError) as error:
            expected = type(error)   # the error itself would keep this frame alive
        try:
            value = oracle.apply(*operands)
        except (ArithmeticError, ValueError) as error:
            assert type(error) is expected, (op, numbers, error, expected)
            return
        assert not isinstance(expected, type), (op, numbers, value, expected)
        self.add(value, Node(expected, op, nodes, constant))

    def custom(self):
        chosen = [self.pick() for _ in range(self.rng.randrange(1, 6))]
        data = self.number()
        self.add(Value(data, [v for v, _ in chosen], "made"),
                 Node(data, "CUSTOM", [n for _, n in chosen]))

    def local(self):
        """A node with partial derivatives of the user's, as numbers or in a closure that uses it."""
        chosen = [self.pick() for _ in range(self.rng.randrange(0, 5))]
        operands, nodes = [v for v, _ in chosen], [n for _, n in chosen]
        partials, data = [self.number() for _ in chosen], self.number()
        if self.first is not None or self.rng.random() < 0.5:   # a rule remains, even of a leaf
            value = Value(data, operands, partials)
        else:
            value = ruled(data, operands, partials)
        self.add(value, Node(data, "LOCAL", nodes, partials))

    def attribute(self):
        """Something hung on a Value, mostly with a way back to it."""
        value, other = self.pick()[0], self.pick()[0]
        value.friend = self.rng.choice([other, [value, (other,)], {"self": value}, lambda: (value, other),
                                        "label", value.relu, value._backward])

    def neuron(self):
        chosen = [self.pick() for _ in range(5)]
        x = [self.pick(), self.pick()]
        value = _core.weighted_sum([chosen[0][0], chosen[1][0]], [x[0][0], x[1][0]], chosen[2][0])
        total = chosen[2][1]
        for (_, w), (_, xi) in zip(chosen, x):
            product = Node(w.data * xi.data, "MUL", [w, xi])
            total = Node(total.data + product.data, "ADD", [total, product])
        self.add(value, total)

    # ---- instructions of many operands, and tensors ----

    def row(self, count=None, numbers=True, exact=False):
        """Some Values, and numbers among them; and their nodes. `exact`: no subclass of Value."""
        operands, nodes = [], []
        for _ in range(count or self.rng.choice([1, 2, 3, 4, 9])):
            if numbers and self.rng.random() < 0.2:
                number = self.number()
                operands.append(self.rng.choice([float, np.float64])(number))
                nodes.append(Node(number))
            else:
                value, node = self.pick()
                if exact and type(value) is not Value:
                    value, node = value * 1.0, Node(value.data, "MUL", [node, Node(1.0)])
                operands.append(value)
                nodes.append(node)
        return operands, nodes

    def elements(self, op, rows):
        """The nodes of a reduction or a softmax of rows of nodes."""
        result = []
        for row in rows:
            row = list(row)
            if op in ("SOFTMAX", "LOG_SOFTMAX"):
                siblings = []
                siblings += [Node.fused(op, row, (k, siblings)) for k in range(len(row))]
                result.append(siblings)
            else:
                result.append(Node.fused(op, row))
        return result

    def fused(self):
        """A function of a flat list."""
        op = self.rng.choice(["SUM", "MEAN", "MAX", "LOGSUMEXP", "SOFTMAX", "LOG_SOFTMAX"])
        (value,), (node,) = self.row(1, numbers=False)   # of numbers alone, it would be a constant
        operands, nodes = self.row()
        operands, nodes = [*operands, value], [*nodes, node]
        self.add_all(getattr(flatgrad, op.lower())(self.rng.choice([list, tuple, iter])(operands)),
                     array_of((len(nodes),) if "SOFTMAX" in op else (1,),
                              lambda index, made=np.ravel(self.elements(op, [nodes])): made[index]))

    def dot(self):
        x, nodes = self.row()
        w, weights = self.row(len(x))
        (x[0],), (nodes[0],) = self.row(1, numbers=False)   # of numbers alone it would be a constant
        b, bias = self.row(1) if self.rng.random() < 0.5 else ([None], [])
        self.add(flatgrad.dot(w, x, *b), Node.fused("LAYER", nodes + weights + bias, (len(x), None)))

    def tensor_leaf(self):
        shape = self.rng.choice([(3,), (4,), (1,), (2, 3), (3, 3), (3, 2), (1, 3), (3, 1), (4, 4)])
        array = array_of(shape, lambda index: self.number()).astype(float)
        tensor = Tensor(self.rng.choice([np.array, np.asfortranarray, np.ndarray.tolist])(array))
        self.add_all(tensor, array_of(shape, lambda index: Node(array[index])))

    def tensor_of_values(self):
        rows = [self.row(3) for _ in range(self.rng.choice([1, 3]))]
        (rows[0][0][0],), (rows[0][1][0],) = self.row(1, numbers=False)   # numbers alone would be leaves
        nodes = array_of((len(rows), 3), lambda index: Node.fused("COPY", [rows[index[0]][1][index[1]]]))
        if len(rows) == 1 and self.rng.random() < 0.5:
            self.add_all(Tensor(rows[0][0]), nodes[0])
        else:
            self.add_all(Tensor([row for row, _ in rows]), nodes)

    def view(self):
        tensor, nodes = self.rng.choice(self.tensors)
        choices = [lambda a: a.T, lambda a: a[::-1], lambda a: a[:2], lambda a: a[-1:]]
        if nodes.ndim == 2:
            choices += [lambda a: a[:, 0], lambda a: a[0], lambda a: a[1:, ::-1] if len(a) > 1 else a[:, :1]]
        take = self.rng.choice(choices)
        self.add_all(take(tensor), take(nodes))

    def reshape(self):
        """A view, or a copy where there is no order."""
        tensor, nodes = self.rng.choice(self.tensors)
        shape = self.rng.choice([(-1,), (1, -1), (-1, 1), nodes.shape[::-1]])
        result, flat = tensor.reshape(*shape), nodes.reshape(shape)
        first = next(v for row in tensor for v in ([row] if isinstance(row, Value) else row))
        if first is not next(v for row in result for v in ([row] if isinstance(row, Value) else row)):
            flat = array_of(flat.shape, lambda index, old=flat: Node.fused("COPY", [old[index]]))
        self.add_all(result, flat)

    def rows(self):
        """Rows by an array of indices: a copy."""
        tensor, nodes = self.rng.choice(self.tensors)
        index = [self.rng.randrange(-len(nodes), len(nodes)) for _ in range(self.rng.choice([1, 2, 3]))]
        taken = nodes[index]
        self.add_all(tensor[index], array_of(taken.shape, lambda index: Node.fused("COPY", [taken[index]])))

    def element(self):
        tensor, nodes = self.rng.choice(self.tensors)
        index = tuple([self.rng.randrange(n) for n in nodes.shape])
        self.add(tensor[index if len(index) == 2 else index[0]], nodes[index])

    def beside(self, nodes):
        """What may stand beside a Tensor of these nodes in an operation."""
        fitting = [(t, n) for t, n in self.tensors
                   if all([a == b or 1 in (a, b) for a, b in zip(n.shape[::-1], nodes.shape[::-1])])]
        kind = self.rng.choice(["tensor", "tensor", "value", "number", "array", "constant"])
        if kind == "constant":
            for constant, leaves in self.constants:
                if all([a == b or 1 in (a, b) for a, b in zip(leaves.shape[::-1], nodes.shape[::-1])]):
                    assert (constant.data == numbers_of(leaves)).all()
                    return constant, leaves
        if kind == "tensor" and fitting:
            return self.rng.choice(fitting)
        if kind == "value":
            value, node = self.pick()
            return value, array_of((), lambda index: node)
        if kind == "array":
            array = array_of(nodes.shape, lambda index: self.number()).astype(float)
            return array, array_of(nodes.shape, lambda index: Node(array[index]))
        number = self.number()
        return number, array_of((), lambda index: Node(number))

    def elementwise(self):
        op = self.rng.choice(IDS)
        oracle, arity, constant = ORACLE[op], ROWS[op]["arity"], None
        chosen = [self.rng.choice(self.tensors)]
        chosen += [self.beside(chosen[0][1]) for _ in range(0 if oracle.immediate else arity - 1)]
        self.rng.shuffle(chosen)
        operands = [operand for operand, _ in chosen]
        if oracle.immediate:
            constant = (self.rng.choice([0, 1, 2, 3, -1, -2]) if op == "POWI"
                        else self.rng.choice([0.5, 1.5, -0.5, 2.0, 0.0]))
            operands.append(constant)
        if op == "POW" and not isinstance(operands[1], (Value, Tensor)):
            return    # a constant exponent is another row
        try:
            arrays = np.broadcast_arrays(*[nodes for _, nodes in chosen])
        except ValueError:
            return    # the two beside the first do not fit each other
        errors = set()

        def make(index):
            nodes = [array[index] for array in arrays]
            try:
                data = oracle.value(*[n.data for n in nodes], *([] if constant is None else [constant]))
            except (ArithmeticError, ValueError) as error:
                errors.add(type(error))
                data = 0.0
            return Node(data, op, nodes, constant)

        nodes = array_of(arrays[0].shape, make)
        try:
            result = oracle.apply(*operands)
        except (ArithmeticError, ValueError) as error:
            assert type(error) in errors, (op, operands, error, errors)
            return
        assert not errors, (op, operands, result, errors)
        self.add_all(result, nodes)

    def product(self):
        """@ or linear(), of what fits."""
        x, nodes = self.rng.choice(self.tensors)
        width = nodes.shape[-1]
        fitting = [(t, n) for t, n in self.tensors if n.ndim == 2 and n.shape[1] == width]
        if not fitting:
            return
        w, weights = self.rng.choice(fitting)
        activation, bias, b = None, None, None
        if self.rng.random() < 0.7:
            activation = self.rng.choice([None, "relu", "tanh", "sigmoid", *SECOND])
            if self.rng.random() < 0.5:
                b, bias = self.row(len(weights))
        made = array_of(nodes.shape[:-1] + (len(weights),), lambda index: Node.neuron(
            [*nodes[index[:-1]], *weights[index[-1]], *([bias[index[-1]]] if bias else [])], width, activation))
        if activation is None and b is None and self.rng.random() < 0.5:
            self.add_all(x @ w.T, made)
        else:
            self.add_all(flatgrad.linear(x, w, b, activation), made)

    def reduction(self):
        op = self.rng.choice(["SUM", "MEAN", "MAX", "LOGSUMEXP", "SOFTMAX", "LOG_SOFTMAX"])
        tensor, nodes = self.rng.choice(self.tensors)
        axis = self.rng.choice([None, 0, -1] + [1] * (nodes.ndim == 2))
        if "SOFTMAX" in op:
            axis = -1 if axis is None else axis
            made = self.elements(op, np.moveaxis(nodes, axis, -1).reshape(-1, nodes.shape[axis]))
            shape = np.moveaxis(nodes, axis, -1).shape
            made = array_of(shape, lambda index, rows=made: rows[index[0] if len(index) == 2 else 0][index[-1]])
            made = np.moveaxis(made, -1, axis)
        else:
            if nodes.ndim == 1:
                axis = None
            made = self.elements(op, [nodes.reshape(-1)] if axis is None else np.moveaxis(nodes, axis, -1))
            made = array_of((len(made),), lambda index: made[index[0]])
        self.add_all(getattr(tensor, op.lower())(axis), made)

    def layer(self):
        """A layer whose weights are Values of the program, for a sample, a batch or a Tensor."""
        width = self.rng.choice([2, 3])
        layer = Layer(width, self.rng.choice([1, 2, 3]), fused=self.rng.random() < 0.9)
        weights, biases, activations = [], [], []
        chosen = self.rng.choice([None, "relu", "tanh", "sigmoid", *SECOND])
        for neuron in layer.neurons:
            neuron.w, nodes = self.row(width, numbers=False, exact=True)
            (neuron.b,), bias = self.row(1, numbers=False, exact=True)
            neuron.activation = chosen or "linear"
            weights.append(nodes)
            biases += bias
            activations.append(chosen)

        def made(x):
            return [Node.neuron([*x, *w, b], width, activation)
                    for w, b, activation in zip(weights, biases, activations)]

        if not layer.fused:   # a graph of many nodes, whose gradients compound in another way: not kept
            x, nodes = self.row(width)
            result = layer(x)
            for value, node in zip(result if isinstance(result, list) else [result], made(nodes), strict=True):
                self.agree(value.data, node)
        elif self.rng.random() < 0.5:
            x, nodes = self.row(width, exact=True)
            self.add_all(layer(x), array_of((len(weights),), lambda index, all=made(nodes): all[index[0]]))
        else:
            fitting = [(t, n) for t, n in self.tensors if n.shape[-1] == width]
            if fitting:
                x, nodes = self.rng.choice(fitting)
            else:
                rows = [self.row(width, exact=True) for _ in range(2)]
                x, nodes = [row for row, _ in rows], array_of((2, width), lambda index: rows[index[0]][1][index[1]])
            all = [made(row) for row in nodes.reshape(-1, width)]
            self.add_all(layer(x), array_of(nodes.shape[:-1] + (len(weights),),
                                            lambda index: all[index[0] if len(index) == 2 else 0][index[-1]]))

    def no_grad(self):
        """Some operations of which nothing is recorded."""
        self.first = Node.count
        try:
            with flatgrad.no_grad():
                for _ in range(self.rng.choice([1, 1, 3])):
                    self.rng.choice([self.leaf, self.operation, self.operation, self.custom, self.local, self.neuron,
                                     self.fused, self.dot, self.tensor_leaf, self.tensor_of_values, self.layer,
                                     self.detach]
                                    + [self.view, self.rows, self.element, self.elementwise, self.product,
                                       self.reduction, self.reshape, self.backward] * bool(self.tensors))()
                    self.first = Node.count
        finally:
            self.first = None
        del self.constants[:-10]

    def detach(self):
        if self.tensors and self.rng.random() < 0.3:
            tensor, nodes = self.rng.choice(self.tensors)
            result, data = tensor.detach(), numbers_of(nodes)
            assert not result.requires_grad and (result.data == data).all()
            self.constants.append((result, array_of(data.shape, lambda index: Node(data[index]))))
        else:
            value, node = self.pick()
            self.add(value.detach(), Node(node.data))

    def update(self):
        """data -= lr * grad; of a Tensor all at once, if it is a leaf."""
        lr = self.rng.choice([0.0, 0.5, 0.1, -0.1])
        if self.tensors and self.rng.random() < 0.5:
            target, nodes = self.rng.choice(self.tensors)
            nodes = list(nodes.reshape(-1))
        else:
            target, node = self.pick()
            nodes = [node]
        if not all(abs(node.grad) < 1e3 for node in nodes) or len({node.order for node in nodes}) < len(nodes):
            return
        try:
            target.update(lr)
        except ValueError:   # not a leaf, or not a view of one
            assert isinstance(target, Tensor) and any(node.op != "LEAF" for node in nodes), (target, target._op)
            return
        data = np.ravel(target.data)
        for node, number in zip(nodes, data.tolist()):
            assert close(number, node.data - lr * node.grad), (number, node.data, lr, node.grad)
            node.data = number

    def derivatives(self):
        """Of some Values by others; no gradient changes."""
        outputs, inputs = ([self.pick() for _ in range(self.rng.choice([1, 2, 3]))] for _ in range(2))
        before = [v.grad for v, _ in self.pairs]
        table = _core.derivatives([v for v, _ in outputs], [v for v, _ in inputs])
        assert all(a == b or a != a and b != b for a, b in zip(before, [v.grad for v, _ in self.pairs]))
        for row, (_, output) in zip(table, outputs):
            for number, (expected, size) in zip(row, output.derivatives([node for _, node in inputs])):
                assert close(number, expected, size), (number, expected, size, output.op)

    def change_tensor(self):
        tensor, nodes = self.rng.choice(self.tensors)
        array = array_of(nodes.shape, lambda index: self.number()).astype(float)
        name = self.rng.choice(["data", "grad"])
        setattr(tensor, name, array)
        for node, number in zip(nodes.reshape(-1), array.reshape(-1)):
            setattr(node, name, float(number))

    def drop_tensor(self):
        self.tensors.pop(self.rng.randrange(len(self.tensors)))

    def drop(self):
        for _ in range(min(len(self.pairs), self.rng.choice([1, 1, 2, 10]))):
            self.pairs.pop(self.rng.randrange(len(self.pairs)))

    def change(self):
        value, node = self.pick()
        if self.rng.random() < 0.5:
            value.data = node.data = self.number()
        else:
            value.grad = node.grad = self.number()

    def look_up(self):
        value, node = self.pick()
        if node.hidden and node.operands:
            assert len(value._prev) == len(node.operands)
            return
        operands = {n.order: n.data for n in node.operands}
        assert sorted(v.data for v in value._prev) == sorted(operands.values()), (
            value, node.op, value._children, operands)
        for parent in value._prev:
            for other, other_node in self.pairs:
                assert (other is parent) <= (other_node.order in operands)

    def backward(self):
        if self.rng.random() < 0.5:
            for value, node in self.pairs:
                value.grad = node.grad = 0.0
            for tensor, nodes in self.tensors:
                tensor.grad = 0.0
                for node in nodes.reshape(-1):
                    node.grad = 0.0
        value, node = self.pick()
        if self.tensors and self.rng.random() < 0.3:
            tensor, nodes = self.rng.choice(self.tensors)
            value, node = tensor.sum(), Node.fused("SUM", list(nodes.reshape(-1)))
            self.forget(node)
        value.backward()
        node.backward()
        grads = [(tensor.grad, nodes) for tensor, nodes in self.tensors]
        both = [(v.grad, n) for v, n in self.pairs]
        both += [(float(grad[index]), nodes[index]) for grad, nodes in grads for index in np.ndindex(nodes.shape)]
        for grad, n in both:
            assert close(grad, n.grad, n.size), (n.op, grad, n.grad, n.size, value, node.op)
        for grad, n in both:   # no drift from one pass to the next
            n.grad, n.size = grad, abs(grad)

    def collect(self):
        flatgrad.collect()
        assert _core._check()
        self.references = [reference for reference in self.references if reference() is not None]
        self.references += [weakref.ref(v) for v, _ in self.rng.sample(self.pairs, min(5, len(self.pairs)))]

    def short_of_memory(self):
        """Operations that may or may not fit; those that do not must leave no trace."""
        _core._testing(fail_after=0)
        try:
            for _ in range(20):
                before = len(self.pairs) + len(self.tensors)
                try:
                    self.rng.choice([self.leaf, self.operation, self.custom, self.local, self.neuron, self.fused,
                                     self.dot, self.tensor_leaf, self.tensor_of_values, self.layer]
                                    + [self.view, self.rows, self.element, self.elementwise, self.product,
                                       self.reduction, self.reshape] * bool(self.tensors))()
                except MemoryError:
                    assert len(self.pairs) + len(self.tensors) == before
        finally:
            _core._testing(fail_after=-1)

    def run(self, steps):
        flatgrad.collect()
        before = flatgrad.stats()
        actions = {self.leaf: 8, self.operation: 40, self.custom: 3, self.neuron: 4, self.local: 6,
                   self.attribute: 4, self.drop: 24,
                   self.change: 5, self.look_up: 4, self.backward: 6, self.collect: 1,
                   self.short_of_memory: 1, self.no_grad: 8, self.detach: 2, self.update: 3, self.derivatives: 2,
                   self.fused: 6, self.dot: 3, self.tensor_leaf: 4, self.tensor_of_values: 2, self.layer: 4}
        with_tensors = {self.view: 5, self.reshape: 2, self.rows: 2, self.element: 4, self.elementwise: 8,
                        self.product: 5,
                        self.reduction: 6, self.change_tensor: 2, self.drop_tensor: 12}
        choices, weights = list(actions), list(actions.values())
        all_choices, all_weights = choices + list(with_tensors), weights + list(with_tensors.values())
        for _ in range(steps):
            if len(self.pairs) < 3:
                self.leaf()
            elif self.tensors:
                self.rng.choices(all_choices, all_weights)[0]()
            else:
                self.rng.choices(choices, weights)[0]()
            if len(self.pairs) > 200:
                del self.pairs[:self.rng.randrange(200)]
            if len(self.tensors) > 30:
                del self.tensors[:self.rng.randrange(30)]
        self.collect()
        self.pairs.clear()     # then nothing may be left
        self.tensors.clear()
        self.constants.clear()
        for _ in range(3):     # a cycle may lead over what Python's collector has to release first
            flatgrad.collect()
            gc.collect()
        flatgrad.collect()
        assert [reference() for reference in self.references if reference() is not None] == []
        after = flatgrad.stats()
        assert (after["nodes"], after["operands"]) == (before["nodes"], before["operands"])


def check(seed, steps):
    """One round; every other one collects before each operation, so that ids always move."""
    _core._testing(collect_floor=0 if seed % 2 else 131072)
    try:
        Round(seed).run(steps)
    finally:
        _core._testing(collect_floor=131072)


def close(got, expected, size=0.0):
    """Equal but for rounding: the model multiplies the same factors in another order, and what is added
    up to `expected` may be as large as `size`."""
    if not math.isfinite(expected):
        return not math.isfinite(got)   # which of inf and nan may depend on the order as well
    return abs(got - expected) <= 1e-9 * max(1.0, abs(expected)) or abs(got - expected) <= 1e-12 * size


def run(limit, options):
    for seed in limit:
        check(seed, 3000)
    return f"{limit.rounds} rounds of 3000 steps passed, {limit.seeds}"
