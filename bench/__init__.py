"""flatgrad's benchmarks: what the engine promises about speed and memory, measured.

Run from the repository's root, with flatgrad installed::

    python -m bench                     every case, in some four minutes
    python -m bench --quick             a smoke run: smaller graphs, fewer rounds
    python -m bench --only chain moons  some cases (``--list`` names them)
    python -m bench --json FILE         every round's figures, and the machine they come from
    python -m bench --strict            exit code 1 if a target is missed
    python -m bench --instructions      instruction counts, whatever else the machine does
    python -m bench --peers             against micrograd, PyTorch, JAX, NumPy: some four minutes
    python -m bench --peers --markdown  the same as Markdown

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

``--peers`` compares with the other ways to do the same: PyTorch as it comes, PyTorch with the whole
step compiled, JAX with a call for each step or one for a whole training, NumPy with derivatives
written by hand. All work in float64 on one thread. A peer that is not installed is skipped;
``pip install micrograd torch jax`` gets them, and torch.compile needs a C++ compiler.

The modules, each of which uses those before it: `runner` times and compares, `workloads` is the code
that is timed; `processes` starts a fresh process and reads its figures, `peers` has the code of other
libraries, `contenders` what both suites race; `cases` and `versus` say who competes in what and with
which target, `suites` has both; `probe` is what runs in a fresh process, `instructions` counts, `report` prints.
"""
import os

# Before anything imports NumPy: one thread each, so that contenders compare by what they do.
# PJRT_NPROC is what JAX asks for the number of processors; its flag counts in older versions only.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
              "PJRT_NPROC": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
for _name, _value in ONE_THREAD.items():
    os.environ.setdefault(_name, _value)
