"""microsoft/mttl: checkpoints of the MHR paper's release, and expert libraries of its main branch.

Both name their tensors ``<module path>.lora_a`` and ``lora_b`` and order the axes of a bank
differently: (H, K, ...) in the release, (K, H, ...) later. The order follows from the layout that a
folder is, never from a shape. Source: branch ``mhr_camera_ready``, and the package mttl 1.0.2.
"""

from __future__ import annotations

A, B, LOGITS = ".lora_a", ".lora_b", ".selector.module_logits"
CONFIG_FILE = "config.json"
MODEL_CONFIG_FILE, MODEL_WEIGHTS_STEM = "mttl_config.json", "mttl_weights"
PICKLE, FACTS, META = ".ckpt", ".ckpt.json", ".meta"
MAX_CONFIG_BYTES = 8 * 2**20
