"""`python -m dnnviz` is the command line."""

import sys

from dnnviz.cli import main

if __name__ == "__main__":
    sys.exit(main())
