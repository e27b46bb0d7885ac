"""`python -m fusewright`: the command line."""

import sys

from fusewright.cli import main

if __name__ == "__main__":
    sys.exit(main())
