"""Cells of recurrent networks: one step in time. The user writes the loop over a sequence."""
from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from flatgrad._core import Tensor, linear, sigmoid, tanh
from flatgrad.arguments import flag, one_of, shortened, whole
from flatgrad.errors import ArgumentTypeError, ShapeError
from flatgrad.nn.initialization import source, uniform
from flatgrad.nn.inputs import as_rows, shown
from flatgrad.nn.module import Module, parameter

if TYPE_CHECKING:
    from typing import Any, Literal

    from flatgrad._core import _Inputs, _Rng

__all__ = ["RNNCell", "LSTMCell", "GRUCell"]


class Cell(Module):
    """The base class of cells: weights for the input and for the state, for a number of gates."""

    input_size: int
    hidden_size: int
    weight_ih: Tensor = parameter()
    weight_hh: Tensor = parameter()
    bias_ih: Tensor | None = parameter()
    bias_hh: Tensor | None = parameter()

    gates = 1

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, rng: _Rng = None) -> None:
        self.input_size = whole("input_size", input_size, 1)
        self.hidden_size = whole("hidden_size", hidden_size, 1)
        bias, rng = flag("bias", bias), source(rng)
        bound, height = 1.0 / math.sqrt(self.hidden_size), self.gates * self.hidden_size

        def drawn(*shape):
            return Tensor(np.reshape(uniform(rng, bound, math.prod(shape)), shape))

        self.weight_ih = drawn(height, self.input_size)
        self.weight_hh = drawn(height, self.hidden_size)
        self.bias_ih = drawn(height) if bias else None
        self.bias_hh = drawn(height) if bias else None

    def input_part(self, x: Tensor) -> Tensor:
        return linear(x, self.weight_ih, self.bias_ih)

    def plus_state_part(self, out: Tensor, h: None) -> Tensor:
        """out + h @ weight_hh.T + bias_hh; if h is None, it counts as 0."""
        if h is not None:
            return out + linear(h, self.weight_hh, self.bias_hh)
        return out if self.bias_hh is None else out + self.bias_hh

    def rows_of_state(self, name: str, h: None, x: Tensor) -> None:
        """A state as rows; there have to be as many rows as in x."""
        if h is None:
            return None
        rows, _ = as_rows(h, self.hidden_size, name)
        if rows.shape[0] != x.shape[0]:
            raise ShapeError(f"{name}: expected one row for each sample, {x.shape[0]}, got {rows.shape[0]}")
        return rows

    def __repr__(self) -> str:
        return shown(self, self.input_size, self.hidden_size, bias=(self.bias_ih is not None, True),
                     **self.shown_options())

    def shown_options(self) -> Any:
        return {}


class RNNCell(Cell):
    """A step of a plain recurrent network.

    Parameters
    ----------
    input_size, hidden_size : int
        The number of elements of a sample, and of the state.
    bias : bool, optional
    nonlinearity : {'tanh', 'relu'}, optional
    rng : {None, int, random.Random, numpy.random.Generator}, optional
        The source of random numbers for the parameters, as in `flatgrad.nn.initialization.source`.

    Attributes
    ----------
    weight_ih : Tensor, shape (hidden_size, input_size)
    weight_hh : Tensor, shape (hidden_size, hidden_size)
    bias_ih, bias_hh : Tensor, shape (hidden_size,), or None
        All parameters have PyTorch's names, and are drawn from the uniform distribution over
        [-1/sqrt(hidden_size), 1/sqrt(hidden_size)], as in PyTorch.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If an argument is not as described.

    Notes
    -----
    h' = tanh(W_ih x + b_ih + W_hh h + b_hh): 4 instructions.

    Examples
    --------
    >>> from flatgrad.nn import RNNCell
    >>> cell, h = RNNCell(2, 3), None
    >>> for x in [[1.0, 0.0], [0.0, 1.0]]:
    ...     h = cell(x, h)
    >>> len(h), cell
    (3, RNNCell(2, 3))
    """

    nonlinearity: str

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True,
                 nonlinearity: Literal['tanh', 'relu'] = "tanh", rng: _Rng = None) -> None:
        self.nonlinearity = one_of("nonlinearity", nonlinearity, ["tanh", "relu"])
        super().__init__(input_size, hidden_size, bias, rng)

    def __call__(self, x: _Inputs, h: _Inputs | None = None) -> Any:
        """The next state.

        Parameters
        ----------
        x : list of Value and real number, length `input_size`; or a batch: list of rows, array or Tensor
            of shape ``(n_samples, input_size)``
        h : list of Value and real number, length `hidden_size`; or rows of `hidden_size` numbers, optional
            The state; None: zeros.

        Returns
        -------
        list of Value, length `hidden_size`, for a list; Tensor, shape (hidden_size,), for an array or a Tensor of one
        dimension; or Tensor, shape (n_samples, hidden_size)

        Raises
        ------
        ShapeError
            If a width differs, or if the number of states is not the number of samples.
        """
        x, give = as_rows(x, self.input_size)
        h = self.rows_of_state("h", h, x)
        out = self.plus_state_part(self.input_part(x), h)
        return give(out.tanh() if self.nonlinearity == "tanh" else out.relu())

    def shown_options(self) -> Any:
        return {"nonlinearity": (self.nonlinearity, "tanh")}


class LSTMCell(Cell):
    """A step of a network with long short-term memory.

    Parameters
    ----------
    input_size, hidden_size : int
        The number of elements of a sample, and of each of the two states.
    bias : bool, optional
    rng : {None, int, random.Random, numpy.random.Generator}, optional
        The source of random numbers for the parameters, as in `flatgrad.nn.initialization.source`.

    Attributes
    ----------
    weight_ih : Tensor, shape (4 * hidden_size, input_size)
        The weights of the input gate, the forget gate, the cell and the output gate, one below the other.
    weight_hh : Tensor, shape (4 * hidden_size, hidden_size)
    bias_ih, bias_hh : Tensor, shape (4 * hidden_size,), or None
        Drawn as in `RNNCell`, with PyTorch's names and order.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If an argument is not as described.

    Notes
    -----
    c' = sigmoid(f) * c + sigmoid(i) * tanh(g), h' = sigmoid(o) * tanh(c'), where i, f, g and o are the
    four parts of W_ih x + b_ih + W_hh h + b_hh: 11 instructions.

    References
    ----------
    S. Hochreiter, J. Schmidhuber, "Long short-term memory", 1997.

    Examples
    --------
    >>> from flatgrad.nn import LSTMCell
    >>> cell, state = LSTMCell(2, 3), None
    >>> for x in [[1.0, 0.0], [0.0, 1.0]]:
    ...     h, c = state = cell(x, state)
    >>> len(h), len(c)
    (3, 3)
    """

    gates = 4

    def __call__(self, x: _Inputs, state: tuple[_Inputs, _Inputs] | None = None) -> tuple[Any, Any]:
        """The next states.

        Parameters
        ----------
        x : list of Value and real number, length `input_size`; or a batch: list of rows, array or Tensor
            of shape ``(n_samples, input_size)``
        state : tuple (h, c), optional
            Two states as in `RNNCell`, of `hidden_size` numbers each; None: zeros.

        Returns
        -------
        h, c : list of Value, length `hidden_size`, for a list; Tensor, shape (hidden_size,), for an array or a Tensor of one
        dimension; or Tensor, shape (n_samples, hidden_size)

        Raises
        ------
        ArgumentTypeError, ShapeError
            If `state` is not a pair, a width differs, or the number of states is not the number of samples.
        """
        x, give = as_rows(x, self.input_size)
        h = c = None
        if state is not None:
            if not isinstance(state, (tuple, list)) or len(state) != 2:
                raise ArgumentTypeError(f"state: expected a pair (h, c), got {shortened(state)}")
            h, c = self.rows_of_state("h", state[0], x), self.rows_of_state("c", state[1], x)
        out, size = self.plus_state_part(self.input_part(x), h), self.hidden_size
        g, o = tanh(out[:, 2 * size:3 * size]), sigmoid(out[:, 3 * size:])
        if c is None:
            c = sigmoid(out[:, :size]) * g
        else:
            gates = sigmoid(out[:, :2 * size])
            c = gates[:, size:] * c + gates[:, :size] * g
        h = o * c.tanh()
        return give(h), give(c)


class GRUCell(Cell):
    """A step of a network of gated recurrent units.

    Parameters
    ----------
    input_size, hidden_size : int
        The number of elements of a sample, and of the state.
    bias : bool, optional
    rng : {None, int, random.Random, numpy.random.Generator}, optional
        The source of random numbers for the parameters, as in `flatgrad.nn.initialization.source`.

    Attributes
    ----------
    weight_ih : Tensor, shape (3 * hidden_size, input_size)
        The weights of the reset gate, the update gate and the new state, one below the other.
    weight_hh : Tensor, shape (3 * hidden_size, hidden_size)
    bias_ih, bias_hh : Tensor, shape (3 * hidden_size,), or None
        Drawn as in `RNNCell`, with PyTorch's names and order.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If an argument is not as described.

    Notes
    -----
    h' = (1 - z) * n + z * h with r = sigmoid(r_x + r_h), z = sigmoid(z_x + z_h) and
    n = tanh(n_x + r * n_h). Here r_x, z_x and n_x are the three parts of W_ih x + b_ih, and r_h, z_h and n_h the
    three parts of W_hh h + b_hh: 10 instructions. The reset gate is applied after the product, as in PyTorch.

    References
    ----------
    K. Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014.

    Examples
    --------
    >>> from flatgrad.nn import GRUCell
    >>> cell, h = GRUCell(2, 3), None
    >>> for x in [[1.0, 0.0], [0.0, 1.0]]:
    ...     h = cell(x, h)
    >>> len(h)
    3
    """

    gates = 3

    def __call__(self, x: _Inputs, h: _Inputs | None = None) -> Any:
        """The next state. The forms of input and output are those of `RNNCell.__call__`."""
        x, give = as_rows(x, self.input_size)
        h = self.rows_of_state("h", h, x)
        if h is None:
            h = Tensor(np.zeros((x.shape[0], self.hidden_size)), requires_grad=False)
        size = self.hidden_size
        x_part, h_part = self.input_part(x), linear(h, self.weight_hh, self.bias_hh)
        gates = sigmoid(x_part[:, :2 * size] + h_part[:, :2 * size])
        new = tanh(x_part[:, 2 * size:] + gates[:, :size] * h_part[:, 2 * size:])
        return give(new + gates[:, size:] * (h - new))
