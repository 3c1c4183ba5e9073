"""Triton kernels of the decode step that are no primitive's."""
