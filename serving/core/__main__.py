"""Entry of the engine core: ``python -m serving.core``, with its CoreSpec on standard input."""

from __future__ import annotations

import sys

from serving.core.process import main

if __name__ == "__main__":
    sys.exit(main())
