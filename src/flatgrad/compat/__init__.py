"""Runs programs written for micrograd on flatgrad: after one call, or without any change.

`install_as_micrograd` changes the meaning of `import micrograd`. `run` is `python -m flatgrad run`: it executes a
script, a notebook or a module as Python would. In this package, `running` executes programs and `notebooks` reads
cells. `install` has the modules that `import micrograd` finds. `source` finds a class in the program's source and adds
a call after the class. This call, in `stand_in`, replaces the class by flatgrad's Value.
"""
# Modules that a program without a class of its own does not need are imported within functions, to start quickly.
from flatgrad.compat.common import Refusal
from flatgrad.compat.install import install_as_micrograd, load_ipython_extension
from flatgrad.compat.running import run

__all__ = ["Refusal", "install_as_micrograd", "load_ipython_extension", "run"]
