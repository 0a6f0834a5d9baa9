"""``python -m flatgrad``: see `flatgrad.cli`."""
import sys

from flatgrad.cli import main

if __name__ == "__main__":
    sys.exit(main())
