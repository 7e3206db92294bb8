"""`python -m minst …`: the command line where the `minst` script is not on PATH."""

import sys

from minst.cli import main

if __name__ == "__main__":
    sys.exit(main())
