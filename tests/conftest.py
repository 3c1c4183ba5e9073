"""Services that any test may use; each starts when the first test asks for it."""

from __future__ import annotations

import os

import torch

if not torch.cuda.is_available():
    # Triton reads this when a kernel is defined: without a GPU its interpreter runs them.
    os.environ.setdefault("TRITON_INTERPRET", "1")

pytest_plugins = (
    "services.backbones",
    "services.catalogs",
    "services.hub",
    "services.postgres",
    "services.s3",
)
