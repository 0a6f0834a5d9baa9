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
    python -m bench --scaling           time and memory by size, width, batch and depth
    python -m bench --report FILE       a page with plots: the cases of --scaling and --peers, or a suite that is named
    python -m bench compare A B         what has changed between two runs that --json has saved
    python -m bench --instructions --check   against the counts that the repository keeps; --update writes them

Each case first checks that its contenders compute the same values and gradients. A difference is an error that gives
both numbers, with exit code 1; what differs is not timed, and all else is. A missed target is only shown, unless
``--strict`` is given. If a package or a tool is missing, the case is shown as skipped, with advice. A skipped case that
is named on the command line is an error, with exit code 2.

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

``--scaling`` draws curves: each case measures at several places of an axis. ``--report`` writes a page of HTML that
needs no network, with plots by matplotlib, the machine, the compilers, and the versions beside those of ``peers.txt``.
With ``--from FILE`` it takes the figures that ``--json`` has written, and measures nothing.

``compare`` takes the median of each process as one number, and gives the 99 % interval of the ratio of two runs. A
change is beyond the noise if 1 is not within the interval. With five processes in each run, changes by half are found
nearly always, and of 100 figures that have not changed, one is taken for a change. Runs of other machines, versions or
benchmark code are refused, unless ``--anyway`` is given.

Each module uses only the modules before it. `runner` times and compares, `workloads` is the code that is timed,
`processes` starts a fresh process and reads its figures. `peers`, `program_peers` and `derivative_peers` have the
code of other libraries, `byhand` the contenders in C, `ways` flatgrad's ways to run a program, `derivative_ways` its
ways to derivatives of derivatives, `export_ways` what is exported, and `contenders` what several suites time. `cases`,
`versus`, `scaling`, `programs`, `derivatives`, `exports` and `parallel` define the cases and their targets, and
`suites` has all suites.
`machine` describes the machine, `probe` is the code in a fresh process, `instructions` counts instructions and `counts`
checks them, `report` prints the figures, `page` draws them, and `comparison` compares two runs.
"""
import os

# Set before anything imports NumPy: one thread for each contender, so that contenders do the same work.
# JAX reads PJRT_NPROC for the number of processors; only older versions obey the flag.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
              "PJRT_NPROC": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
for _name, _value in ONE_THREAD.items():
    os.environ.setdefault(_name, _value)
