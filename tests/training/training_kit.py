"""Tiny real backbones, tasks and runs for the tests of training."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel, BertTokenizer

from training.recipe import BackboneSection, MethodSection, Recipe, TasksSection, TrainSection
from training.suite import Example
from training.task import Task

WORDS = ("good", "fine", "nice", "bad", "poor", "awful", "the", "food", "was", "room", "very")
SCRATCH: dict[str, Any] = {
    "model_type": "t5",
    "vocab_size": 384,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_heads": 4,
    "num_layers": 2,
    "num_decoder_layers": 1,
    "feed_forward_proj": "gated-silu",
    "dropout_rate": 0.0,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
SUITE_NAMES = ("kv-city", "phrase-snake", "us-date-iso")


def tiny_recipe(method: str = "mhr", steps: int = 4, **train: Any) -> Recipe:
    """A run of three suite tasks on a tiny T5 that is trained along."""
    return Recipe(
        name="tiny",
        max_input_tokens=128,
        backbone=BackboneSection(scratch=SCRATCH, tokenizer="bytes", is_trained=True),
        tasks=TasksSection(names=SUITE_NAMES, num_train=32, num_dev=4, num_test=4),
        method=MethodSection(name=method, rank=2, num_skills=3, num_heads=4),
        train=TrainSection(
            steps=steps,
            log_every=1,
            **({"seed": 3, "rows_per_step": 6, "save_every": 2} | train),
        ),
    )


def save_tiny_bert(folder: Path) -> Path:
    """A random BERT with a vocabulary of a few words."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n")
    config = BertConfig(
        vocab_size=len(vocab),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def opinion_task(num_rows: int = 64) -> Task:
    """A separable toy: one word of the sentence decides the label."""
    rng = random.Random(0)
    rows = []
    for _ in range(num_rows):
        label = rng.choice(("bad", "good"))
        word = rng.choice(WORDS[:3] if label == "good" else WORDS[3:6])
        rows.append(Example(f"the {rng.choice(('food', 'room'))} was very {word}", label))
    half = num_rows // 2
    return Task(
        "opinion", train=rows[:half], dev=rows[half:], test=rows[half:], labels=("bad", "good")
    )
