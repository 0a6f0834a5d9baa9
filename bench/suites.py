"""The suites: each a dict of cases by name."""
from bench.cases import CASES
from bench.derivatives import DERIVATIVES
from bench.flat_fits import EXPORTS
from bench.parallel import PARALLEL
from bench.programs import PROGRAMS
from bench.scaling import SCALING
from bench.versus import PEERS

__all__ = ["SUITES"]

SUITES = {"cases": CASES, "derivatives": DERIVATIVES, "exports": EXPORTS, "parallel": PARALLEL, "peers": PEERS,
          "programs": PROGRAMS, "scaling": SCALING, "report": {**SCALING, **PEERS}}   # the names of the last differ
