"""`from flatgrad import *` leaves Python's own sum and max as they are."""
from flatgrad import *

number: int = sum([1, 2]) + max(1, 2)
value: Value = tanh(Value(1.0))
tensor: Tensor = Tensor([1.0]).exp()
