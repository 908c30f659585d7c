"""`python -m fevertools` is the command `fevertools`."""

import sys

from fevertools.cli import main

if __name__ == "__main__":
    sys.exit(main())
