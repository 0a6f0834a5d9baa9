"""Programs written for micrograd, run on flatgrad: by one call, or without touching them.

`install_as_micrograd` decides what `import micrograd` means. `run` is `python -m flatgrad run`: it executes a
script, a notebook or a module as Python would. Of this package `running` executes, `notebooks` reads cells,
`install` has the modules that `import micrograd` finds, `source` finds a class in the program's source and puts a
call after it, and `stand_in`, which that calls, has flatgrad's Value take the place of the class.
"""
# What is not needed to run a program that names no class is imported where it is used: people wait for it.
from flatgrad.compat.common import Refusal
from flatgrad.compat.install import install_as_micrograd
from flatgrad.compat.running import run

__all__ = ["Refusal", "install_as_micrograd", "run"]
