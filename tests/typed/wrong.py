"""Errors that type checkers have to find: a line of each ends with its mark."""
import flatgrad
from flatgrad import Value, nn, optim, viz

Value("one")   # wrong
Value(1.0) + "two"   # wrong
flatgrad.gard(lambda x: x)   # wrong
nn.MPL(2, [1])   # wrong
nn.MLP("2", [1])   # wrong
optim.SGD(nn.MLP(2, [1]).parameters(), lr="fast")   # wrong
flatgrad.tanh()   # wrong
flatgrad.grad(3.0)   # wrong
viz.Film([[0.0, 1.0]], [1], every="2")   # wrong
viz.draw_svg("graph")   # wrong
