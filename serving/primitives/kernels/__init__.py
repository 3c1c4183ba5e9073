"""Triton kernels of primitives, and what feeds them: see :mod:`serving.primitives.backend`."""
