"""The common part of the draw_*.py scripts: they write a picture to the file named on the command line."""
import argparse
import sys
from pathlib import Path

parser = argparse.ArgumentParser(
    description=sys.modules["__main__"].__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("path", nargs="?", type=Path, help="the picture to write; its ending says in which format")
arguments = parser.parse_args()

try:
    import graphviz
except ModuleNotFoundError as error:
    sys.exit(f"{Path(sys.argv[0]).name} needs graphviz, for the picture: {error}; to install it: pip install graphviz")


def write(picture, path):
    """Write a picture to the path given on the command line, or else to `path`. The ending of the path gives the
    format.
    Without the program `dot` the function writes the source, for Graphviz on another machine."""
    path = arguments.path or Path(path)
    try:
        path.write_bytes(picture.pipe(format=path.suffix.lstrip(".") or None))
        note = ""
    except graphviz.ExecutableNotFound:
        path = path.with_suffix(".dot")
        path.write_text(picture.source, encoding="utf-8")
        note = "; it is source, for there is no program dot here (https://graphviz.org/download)"
    except ValueError as error:   # because of a format that Graphviz does not know
        parser.error(str(error))
    values = picture.source.count("shape=record")
    print(f"{path}: {values} values{note}")
