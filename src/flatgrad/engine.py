"""micrograd's module path for the engine: ``from flatgrad.engine import Value``."""
from flatgrad._core import Value

__all__ = ["Value"]
