"""The test files side by side, in as many processes as there are processors, or as TEST_PROCESSES says.

    python tests/side_by_side.py [--short] [OPTION ...] [FILE ...]

A process runs pytest, with the options, for one file after another, whichever is next; without FILE for all of them.
--short takes the files, and those of their tests that are not slow, by which a wheel is seen to work with a Python where
there is no time for all, what may differ from one Python to another: less than a minute.
pytest-xdist hands out single tests, and spends a fifth of all the time on twenty thousand reports.
"""
import contextlib
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).resolve().parent
LONGEST = ("kernels", "bench", "export_c_body", "simplify", "files", "examples", "hostile", "export_training", "export_c",
           "float32", "tensor", "programs", "lanes_scan", "cli", "written_blocks", "fused", "stops", "micrograd", "cycles",
           "tape", "nomemory", "docs", "copy", "export_fuzz", "written_rows")   # these first: one left for the end would run alone
SHORT = ("anomaly", "attributes", "called_back", "context", "copy_ways", "custom", "functional", "interpreters", "math",
         "module_cycles", "modules", "nn", "odd_moments", "package", "pressed", "references", "smoke", "startup", "sweeps",
         "trace", "value")
DONE = "\0done "   # and pytest's exit code: the line after what it printed for a file
NOTHING_RAN = 5    # pytest's exit code where a file has no test that the options leave
RAN = re.compile(r"\d+ (?:passed|failed|errors?|skipped|xfailed|warnings?)\b")


def serve(options):
    """Run the files that standard input names, a line each."""
    import pytest
    files = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)   # a test's process that reads must not get their names
    for line in files:
        code = pytest.main(["-q", "-p", "no:cacheprovider", *options, line.rstrip("\n")])
        print(f"\n{DONE}{int(code)}", flush=True)
        if code == pytest.ExitCode.INTERRUPTED:
            break


class Run:
    """Several processes, and the files that they take in turn."""

    def __init__(self, options, files):
        self.options = options
        self.files = queue.SimpleQueue()
        for file in files:
            self.files.put(file)
        self.counts = Counter()
        self.failed = []
        self.printing = threading.Lock()

    def start(self):
        return subprocess.Popen([sys.executable, __file__, "--serve", *self.options], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace")

    def stop(self):
        while not self.files.empty():
            self.files.get()

    def work(self):
        process = None
        try:
            while True:
                file = self.files.get_nowait()
                process = process or self.start()
                if not self.hand_to(process, file):
                    process = None
        except queue.Empty:
            pass
        finally:
            if process:
                process.communicate()

    def hand_to(self, process, file):
        """Whether the process is still there after it."""
        with contextlib.suppress(BrokenPipeError):   # that it has ended is seen below
            process.stdin.write(f"{file}\n")
            process.stdin.flush()
        lines = []
        for line in process.stdout:
            if line.startswith(DONE):
                code = int(line.removeprefix(DONE))
                self.tell(file, code, "".join(lines).strip())
                return True
            lines.append(line)
        self.tell(file, process.wait(), "".join([*lines, f"the process ended with exit code {process.returncode}"]))
        return False

    def tell(self, file, code, text):
        last = text.split("\n")[-1]
        with self.printing:
            self.counts.update({what: int(count) for count, what in map(str.split, RAN.findall(last))})
            if code in (0, NOTHING_RAN):
                print(f"{Path(file).name}: {last}", flush=True)
            else:
                self.failed.append(file)
                print(f"{text}\n{Path(file).name}: FAILED", flush=True)


def main(arguments):
    if arguments[:1] == ["--serve"]:
        return serve(arguments[1:])
    if arguments[:1] == ["--short"]:
        arguments = ["-m", "not slow", *arguments[1:], *(str(TESTS / f"test_{name}.py") for name in SHORT)]
    files = [x for x in arguments if x.endswith(".py")]
    options = [x for x in arguments if not x.endswith(".py")]
    names = [f"test_{name}" for name in LONGEST]
    files = sorted(files or map(str, TESTS.glob("test_*.py")),
                   key=lambda file: names.index(Path(file).stem) if Path(file).stem in names else len(names))
    started = time.monotonic()
    run = Run(options, files)
    processes = int(os.environ.get("TEST_PROCESSES") or os.cpu_count() or 1)
    workers = [threading.Thread(target=run.work) for _ in range(min(processes, len(files)))]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.join()
    except KeyboardInterrupt:   # which the processes have got as well
        run.stop()
        return 130
    print(f"{len(files)} files: {', '.join(f'{count} {what}' for what, count in run.counts.items())} "
          f"in {time.monotonic() - started:.0f} s")
    if run.failed:
        print("FAILED:", *run.failed)
    return bool(run.failed) or not run.counts["passed"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
