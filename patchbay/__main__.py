"""``python -m patchbay`` is the command ``patchbay``."""

from __future__ import annotations

import sys

from patchbay.cli import main

if __name__ == "__main__":
    sys.exit(main())
