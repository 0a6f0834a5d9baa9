"""What the draw_*.py have in common: a picture goes to a file."""
import sys
from pathlib import Path

try:
    import graphviz
except ModuleNotFoundError as error:
    sys.exit(f"{Path(sys.argv[0]).name} needs graphviz, for the picture: {error}; to install it: pip install graphviz")


def write(picture, path):
    """Write a picture to the path given on the command line, or else to `path`; its ending says in
    which format. Without the program `dot` the source is written instead, for Graphviz elsewhere."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else path)
    try:
        path.write_bytes(picture.pipe(format=path.suffix.lstrip(".") or None))
        note = ""
    except graphviz.ExecutableNotFound:
        path = path.with_suffix(".dot")
        path.write_text(picture.source, encoding="utf-8")
        note = "; it is source, for there is no program dot here (https://graphviz.org/download)"
    values = picture.source.count("shape=record")
    print(f"{path}: {values} values{note}")
