"""Whether kernels run in Triton's interpreter, on the CPU, as ``TRITON_INTERPRET=1`` asks.

The interpreter has no products of bfloat16: there operands are widened first, which changes
nothing, as products of two bfloat16 values are exact in float32.
"""

from __future__ import annotations

import os

WIDENS = os.environ.get("TRITON_INTERPRET") == "1"
