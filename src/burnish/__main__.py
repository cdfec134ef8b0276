"""`python -m burnish` is `burnish`, and what `torchrun -m burnish` starts."""

import sys

from burnish.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
