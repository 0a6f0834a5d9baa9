"""flatgrad's benchmarks: they measure the speed and the memory of the engine.

Run from the repository's root, with flatgrad installed::

    python -m bench                     every case, in some four minutes
    python -m bench --quick             a smoke run: smaller graphs, fewer rounds
    python -m bench --only chain moons  some cases (``--list`` names them)
    python -m bench --json FILE         every round's figures, and the machine they come from
    python -m bench --strict            exit code 1 if a target is missed
    python -m bench --instructions      instruction counts, which do not depend on the machine's load
    python -m bench --peers             against micrograd, PyTorch, JAX, NumPy: some four minutes
    python -m bench --peers --markdown  the same as Markdown
    python -m bench --programs          compiled functions against C by hand, JAX and PyTorch
    python -m bench --derivatives       derivatives of derivatives against PyTorch and JAX
    python -m bench --exports           programs as C and as functions of JAX against their replay
    python -m bench --parallel          a batch divided among workers, by joblib and by Dask

Each case first checks that its contenders compute the same values and gradients. A difference is an error that gives
both numbers, with exit code 1. A missed target is only shown, unless ``--strict`` is given. If a package or a tool is
missing, the case is shown as skipped, with advice. A skipped case that is named on the command line is an error, with
exit code 2.

To compare two builds of flatgrad on a shared or noisy machine, count instructions instead of time: run
``python -m bench --instructions`` with each build installed and compare the columns. A count is the difference between
a long and a short run divided by the extra work, so start-up cancels. A count repeats to about 0.1 %. A count ignores
cache misses, so it can compare two versions of a code path, but not two memory layouts. ``--instructions callgrind``
uses valgrind instead of ``perf``, for machines without hardware counters.

``--peers`` compares flatgrad with other libraries: PyTorch, PyTorch with the whole step compiled, JAX with a call for
each step, JAX with one call for a whole training, and NumPy with derivatives written by hand. All compute in float64 on
one thread. A library that is not installed is skipped; ``pip install micrograd torch jax`` installs them.
torch.compile needs a C++ compiler.

``--programs`` compares flatgrad's compiled functions with the same in C, written by hand (``rivals/*.c``), which the C
compiler of the machine compiles on first use (``CC``, or else cc, gcc or clang), and with JAX and PyTorch. Every target
of this suite is a goal: it stands beside the figure, whether it is met or not.

``--derivatives`` compares Hessians and the step of a physics-informed network with PyTorch and JAX, and measures the
memory of ``create_graph``. ``--exports`` compares compiled functions as C, which gcc and clang compile, and as functions
of JAX with their replay. The targets of both are goals, too.

``--parallel`` measures the speed-up of a training step by workers, by the engine and by the size of the batch, and
what limits the speed-up: the engine's own time and the bytes of a step. It times by the clock on the wall.

Each module uses only the modules before it. `runner` times and compares, `workloads` is the code that is timed,
`processes` starts a fresh process and reads its figures. `peers`, `program_peers` and `derivative_peers` have the
code of other libraries, `byhand` the contenders in C, `ways` flatgrad's ways to run a program, `derivative_ways` its
ways to derivatives of derivatives, `export_ways` what is exported, and `contenders` what several suites time. `cases`,
`versus`, `programs`, `derivatives`, `exports` and `parallel` define the cases and their targets, and `suites` has all
suites.
`probe` is the code in a fresh process, `instructions` counts instructions, `report` prints the figures.
"""
import os

# Set before anything imports NumPy: one thread for each contender, so that contenders do the same work.
# JAX reads PJRT_NPROC for the number of processors; only older versions obey the flag.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
              "PJRT_NPROC": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
for _name, _value in ONE_THREAD.items():
    os.environ.setdefault(_name, _value)
