from .core import Value
from .layers import Network

__all__ = ['Network', 'Value']
