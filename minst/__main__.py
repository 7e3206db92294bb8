"""`python -m minst …`: the command line where the `minst` script is not on PATH."""

import sys


def run() -> int:
    """`minst.cli.main`, for who presses Ctrl-C before it has been imported, too."""
    try:
        from minst.cli import main

        return main()
    except KeyboardInterrupt:
        print("minst: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(run())
