"""``python -m flatgrad info``: versions, kernels and optional packages of this installation."""
from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys

from flatgrad import Value, _core, __version__, stats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["add", "facts"]

HELP = """\
Show facts about this installation of flatgrad: versions, the machine, the instruction sets that
its kernels can use, optional packages and how to get them, and memory. Include the output in a
report of a problem. The command trains nothing, and imports no optional package."""

EXAMPLES = """\
examples:
  python -m flatgrad info
  python -m flatgrad info --json
      the same for programs

The kernels are compiled for several instruction sets, and the best that the processor can run
is chosen when flatgrad is imported. The environment variable FLATGRAD_ISA chooses another set,
for a comparison or for the same bits on every machine:
  FLATGRAD_ISA=baseline python train.py

The tape holds a node for every number that can have a gradient. The tape grows by itself, and
nodes that nothing uses are reclaimed. In a program, `flatgrad.stats()` gives the same figures."""

# Package -> (its purpose, the command to install it, its module).
EXTRAS = {
    "matplotlib": ("plots", "pip install 'flatgrad[viz]'", "matplotlib"),
    "graphviz": ("pictures of graphs", "pip install 'flatgrad[viz]'", "graphviz"),
    "tqdm": ("progress bars", "pip install 'flatgrad[train]'", "tqdm"),
    "scikit-learn": ("its tools on our estimators", "pip install scikit-learn", "sklearn"),
    "joblib": ("training by several processes", "pip install 'flatgrad[cluster]'", "joblib"),
    "distributed": ("training by Dask's clusters", "pip install 'flatgrad[cluster]'", "distributed"),
    "micrograd": ("the benchmark's other side", "pip install 'flatgrad[bench]'", "micrograd"),
}


def add(commands: Any) -> None:
    """Add the command to argparse's."""
    sub = commands.add_parser("info", help="show versions, instruction sets, optional packages and memory",
                              description=HELP, epilog=EXAMPLES)
    sub.set_defaults(command=info, parser=sub)
    sub.add_argument("--json", action="store_true", help="print one JSON object")


def info(args: Any) -> int:
    """Print the facts about this installation."""
    found = facts()
    print(json.dumps(found, indent=2) if args.json else text(found))
    return 0


def facts() -> dict[str, str]:
    """The facts about this installation, in a form for JSON.

    Returns
    -------
    dict
        ``flatgrad``, ``python``, ``numpy``: versions; ``platform``, ``processor``; ``isa``: the level in use, the
        levels that can run, and the value of FLATGRAD_ISA; ``extras``: for each package its version or None, its
        purpose and the command to install it; ``dot``: the path of Graphviz's program, or None; ``tape``: the result
        of `flatgrad.stats`, with ``bytes_per_node``; ``bytes_per_value``: the size of the Python object.

    Examples
    --------
    >>> from flatgrad.cli.info import facts
    >>> facts()["isa"]["in_use"] in facts()["isa"]["available"]
    True
    """
    tape = stats()
    return {
        "flatgrad": __version__,
        "location": os.path.dirname(os.path.abspath(_core.__file__)),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "numpy": version("numpy"),
        "platform": platform.platform(),
        "processor": processor(),
        "isa": {"in_use": tape["isa"], "available": _core._kernel_levels(),
                "FLATGRAD_ISA": os.environ.get("FLATGRAD_ISA")},
        "extras": {name: {"version": version(name, module), "purpose": purpose, "install": install}
                   for name, (purpose, install, module) in EXTRAS.items()},
        "dot": shutil.which("dot"),
        "tape": {**{name: value for name, value in tape.items() if name != "isa"},
                 "bytes_per_node": round(tape["bytes"] / tape["capacity"], 1)},
        "bytes_per_value": sys.getsizeof(Value(0.0)),
    }


def version(package: str, module: str | None = None) -> str | None:
    """The version of an installed package, or None; the package is not imported."""
    try:
        if importlib.util.find_spec(module or package) is not None:
            return importlib.metadata.version(package)
    except (ImportError, ValueError):  # sys.modules may have None, or a module without a spec
        pass
    return None


def processor() -> str:
    """The processor's name as its maker writes it, if the system gives it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    if platform.system() == "Darwin":
        try:
            return subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"],
                                  capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            pass
    return platform.processor() or platform.machine()


def text(found: dict[str, str]) -> str:
    """The facts as text."""
    isa, tape = found["isa"], found["tape"]
    lines = [
        f"flatgrad    {found['flatgrad']}, in {found['location']}",
        f"Python      {found['python']}",
        f"NumPy       {found['numpy'] or 'not installed: pip install numpy'}",
        f"platform    {found['platform']}",
        f"processor   {found['processor']}",
        "",
        f"kernels     {isa['in_use']}, " + (f"as FLATGRAD_ISA={isa['FLATGRAD_ISA']} says" if isa["FLATGRAD_ISA"]
                                             else "the best that this processor can run"),
        f"            FLATGRAD_ISA may be {', '.join(isa['available'])}; for example: "
        f"FLATGRAD_ISA={isa['available'][0]} python ...",
        "",
    ]
    for k, (name, extra) in enumerate(found["extras"].items()):
        state = extra["version"] or f"not installed: {extra['install']}"
        if name == "graphviz" and extra["version"]:
            state += ", with its program dot" if found["dot"] else ", but its program dot is not installed: see graphviz.org"
        lines.append(f"{'optional' if k == 0 else '':10}  {name:12}  {extra['purpose']:27}  {state}")
    nodes = f"{tape['nodes']:,} node{'s' * (tape['nodes'] != 1)}"
    lines += [
        "",
        f"tape        {nodes}, {tape['operands']:,} operands, collected {tape['collections']:,} times",
        f"            room for {tape['capacity']:,} nodes in {tape['bytes']:,} bytes, {tape['bytes_per_node']:g} bytes per node; "
        "it grows by itself",
        f"            a Value that your program holds takes {found['bytes_per_value']} bytes besides its node",
    ]
    return "\n".join(lines)
