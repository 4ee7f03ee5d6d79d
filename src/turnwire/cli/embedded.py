"""`python -m turnwire.cli.embedded serve …`: a server that ends with the program that started it."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Linux: SIGTERM when the parent ends, however that comes (prctl(2)). Elsewhere the parent has to see to it."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before
            sys.exit(0)


if __name__ == "__main__":
    end_with_parent()
    from turnwire.cli import main

    main()
