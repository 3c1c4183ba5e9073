"""A tiny Llama with tasks, decisive in its choice of tokens."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from world_kit import World

from adapters_store.backbone import Backbone
from benchmarks.synthetic import MemoryLoader, make_bank, make_lora, make_routing


@torch.no_grad()
def make_llama_world(folder: Path) -> World:
    """Grouped keys, 256 positions, bare, low-rank and routed tasks."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=48,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = transformers.LlamaForCausalLM(config)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.normal_(
                0.0, 1.2 if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.3
            )
    model.save_pretrained(folder)
    backbone = Backbone.from_folder(folder, name="random-llama")
    loader = MemoryLoader()
    loras = [loader.add(make_lora(backbone, rank=1 + i, seed=i, effect=0.5)) for i in range(6)]
    bank = make_bank(backbone, rank=2, num_skills=3, num_heads=2, effect=0.5)
    loader.add(bank)
    routings = [loader.add(make_routing(backbone, bank, seed=i)) for i in range(4)]
    return World(backbone, loader, loras, routings, [])
