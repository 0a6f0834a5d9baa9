"""Errors that type checkers have to find: a line of each ends with its mark."""
import flatgrad
from flatgrad import Value, nn, optim
from flatgrad.losses import mse

Value("one")   # wrong
Value(1.0) + "two"   # wrong
flatgrad.gard(lambda x: x)   # wrong
nn.MPL(2, [1])   # wrong
nn.MLP("2", [1])   # wrong
optim.SGD(nn.MLP(2, [1]).parameters(), lr="fast")   # wrong
len(mse([1.0], [2.0]))   # wrong
flatgrad.grad(3.0)   # wrong
