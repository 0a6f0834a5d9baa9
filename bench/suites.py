"""The suites: each a dict of cases by name."""
from bench.cases import CASES
from bench.programs import PROGRAMS
from bench.versus import PEERS

__all__ = ["SUITES"]

SUITES = {"cases": CASES, "peers": PEERS, "programs": PROGRAMS}
