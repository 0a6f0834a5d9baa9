"""Modules that lead back to themselves, as to a parent: found once, named, saved, copied and shown."""
import copy
import pickle

import pytest

from flatgrad import Value
from flatgrad.nn import MLP, Layer, Module, Sequential


class Block(Module):
    def __init__(self, *children):
        self.weight = Value(1.0)
        self.inner = list(children)
        for child in children:
            child.parent = self


def itself():
    module = Block()
    module.me = module
    return module, 1


def parents():
    return Block(Block(), Block(Block(), Layer(2, 1))), 4 + 3


def a_list_in_itself():
    module = Block(Block())
    module.inner.append(module.inner)
    module.weights = [Value(2.0)]
    module.endless = [module.weights[0]]
    module.endless.append(module.endless)
    module.table = {"a": Block()}
    module.table["table"] = module.table
    return module, 4


def in_a_row():
    row = Sequential(Layer(2, 3), Layer(3, 1))
    row.layers.append(Block(row))
    return row, 9 + 4 + 1


def in_an_mlp():
    net = MLP(2, [3, 1])
    net.extra = Block(net)
    return net, 9 + 4


class Own(Module):
    """With `parameters` as micrograd's classes have it."""

    def __init__(self):
        self.layers = [Block(self), Block(self)]

    def parameters(self):
        return [p for layer in self.layers for p in layer.parameters()]


def of_ones_own():
    return Own(), 2


def neighbours():
    blocks = [Block() for _ in range(4)]
    for a, b in zip(blocks, blocks[1:]):
        a.next, b.previous = b, a
    return Block(*blocks), 5


@pytest.mark.parametrize("make", [itself, parents, a_list_in_itself, in_a_row, in_an_mlp, of_ones_own, neighbours])
def test_modules_that_lead_back(make):
    module, count = make()
    found = module.parameters()
    assert len({id(p) for p in found}) == count
    names = [name for name, _ in module.named_parameters()]
    assert len(set(names)) == count
    assert all(isinstance(m, Module) for m in module.modules()) and module.modules()[0] is module
    assert module.eval() is module and not any(m.training for m in module.modules())
    module.zero_grad()
    assert repr(module) and module.summary()
    if make is not a_list_in_itself:
        state = module.state_dict()
        module.load_state_dict({key: array + 1.0 for key, array in state.items()})
        assert all((module.state_dict()[key] >= state[key]).all() for key in state)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert len({id(p) for p in other.parameters()}) == count
        assert not {id(p) for p in other.parameters()} & {id(p) for p in found}


def test_an_error_leaves_nothing_entered():
    class Fails(Module):
        def parameters(self):
            raise RuntimeError("no")

    module = Block(Fails(), Block())
    for _ in range(3):
        with pytest.raises(RuntimeError):
            module.parameters()
    module.inner.pop(0)
    assert len(module.parameters()) == 2 and len(module.inner[0].parameters()) == 2


def test_what_is_shared_is_named_twice():
    shared = Layer(2, 1)
    module = Sequential(shared, shared)
    assert len(module.state_dict()) == 4 and len(module.modules()) == 5 and len(set(module.parameters())) == 3
