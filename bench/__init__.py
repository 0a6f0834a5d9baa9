"""flatgrad's benchmarks: what the engine promises about speed and memory, measured.

Run from the repository's root, with flatgrad installed::

    python -m bench                     every case, in some three minutes
    python -m bench --quick             a smoke run: smaller graphs, fewer rounds
    python -m bench --only chain moons  some cases (``--list`` names them)
    python -m bench --json FILE         every round's figures, and the machine they come from
    python -m bench --strict            exit code 1 if a target is missed
    python -m bench --instructions      instruction counts, whatever else the machine does

Each case first checks that its contenders compute the same values and gradients; a difference is an
error that gives both numbers, exit code 1. A missed target is only shown, unless ``--strict``. What
cannot run (a package or a tool that is not there) is shown as skipped with what would help; asking
for it by name is an error, exit code 2.

To compare two builds of flatgrad on a shared or noisy machine, count instructions instead of time:
run ``python -m bench --instructions`` with each build installed and compare the columns. A count is
the difference between a long and a short run divided by the extra work, so start-up cancels; it is
repeatable to about 0.1 %. It does not see cache misses, so it decides between two versions of
a code path and not between two memory layouts. ``--instructions callgrind`` takes valgrind instead
of ``perf``, for machines without hardware counters.

The modules: `runner` times and compares, `workloads` is the code that is timed, `cases` says who
competes in what and with which target, `probe` measures in a fresh process, `instructions` counts,
`report` prints.
"""
import os

# Before anything imports NumPy: one thread each, so that contenders compare by what they do.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
