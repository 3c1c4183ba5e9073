"""Super-NaturalInstructions as a source: a folder of ``tasks/*.json`` and ``splits/*/*.txt``.

A row has the columns ``prompt``, ``definition``, ``examples`` (the positive ones), ``input``,
``outputs`` and ``id``. Source: Wang et al. 2022; ``prompt`` is laid out as for Tk-Instruct.
"""

from __future__ import annotations

import json
import random
import string
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from adapters_store.errors import TrainingError, UsageError
from training.examples import Rows
from training.sources.planning import Plan, options, planned, publishable
from training.sources.rows import HeldRows
from training.sources.sections import DataSection, FieldsSection, one_line
from training.sources.templates import prompts_of
from training.task import Task

_FIELDS = FieldsSection(input="prompt", output="outputs")


def plans(section: DataSection) -> list[Plan]:
    """The tasks of the folder, or those that ``split`` lists, such as ``default/train_tasks``.

    A task's file is read when the task is made, and only the rows that are kept stay in memory.
    Raises UsageError for a folder without tasks and for a split that names one it does not have.
    """
    options(
        section,
        *("path", "split", "num_positive", "has_definition"),
        *("fields", "templates", "template_tasks", "labels", "has_labels", "max_train_per_dataset"),
    )
    if section.path is None:
        raise UsageError("tasks.path is missing: the folder of an `instructions` source")
    folder = Path(section.path)
    files = {path.stem: path for path in sorted((folder / "tasks").glob("*.json"))}
    if not files:
        raise UsageError(f"{folder} has no tasks/*.json")
    if section.split is not None:
        listed = _listed(folder / "splits" / f"{section.split}.txt")
        missing = [name for name in listed if name not in files]
        if missing:
            raise UsageError(f"split {section.split!r} names tasks without a file: {missing[:5]}")
        files = {name: files[name] for name in listed}
    if section.fields == FieldsSection():
        section = section.model_copy(update={"fields": _FIELDS})
    prompts = prompts_of(section)
    return [
        Plan(plan.name, partial(_task, plan.name, publishable(stem), path, section))
        for stem, path in files.items()
        for plan in planned({publishable(stem): {}}, section, prompts)
    ]


def _task(name: str, stem: str, path: Path, section: DataSection) -> Task:
    content = _content(path)
    rows = {stem: _parts(content, path, section)}
    (plan,) = (p for p in planned(rows, section, prompts_of(section)) if p.name == name)
    return plan.make()


def _listed(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except OSError as error:
        raise UsageError(f"cannot read split {path}: {one_line(error)}") from error


def _content(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot read task {path}: {one_line(error)}") from error
    keys = ("Definition", "Positive Examples", "Instances")
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in keys[1:]):
        raise TrainingError(f"{path}: expected an object with {', '.join(keys)}")
    return content


def _parts(content: Mapping[str, Any], path: Path, section: DataSection) -> dict[str, Rows]:
    """Test rows are the file's first, as in the official evaluation; dev rows are drawn."""
    instances = content["Instances"]
    num_test = min(section.num_test or 0, len(instances))
    rest = list(range(num_test, len(instances)))
    random.Random(f"{section.seed}/{path.stem}").shuffle(rest)
    num_dev = section.num_dev or 0
    num_train = len(rest) if section.num_train is None else section.num_train
    chosen = {
        "train": sorted(rest[num_dev : num_dev + num_train]),
        "dev": sorted(rest[:num_dev]),
        "test": list(range(num_test)),
    }
    return {
        part: HeldRows(str(path), [_row(content, instances[n], path, n, section) for n in ns], ns)
        for part, ns in chosen.items()
    }


def _row(
    content: Mapping[str, Any], instance: Any, path: Path, number: int, section: DataSection
) -> dict[str, Any]:
    definition = content.get("Definition", "")
    if isinstance(definition, list):
        definition = definition[0] if definition else ""
    examples = content["Positive Examples"][: section.num_positive]
    try:
        outputs = instance["output"]
        return {
            "prompt": _prompt(
                definition if section.has_definition else "", examples, instance["input"]
            ),
            "definition": definition,
            "examples": examples,
            "input": instance["input"],
            "outputs": [outputs] if isinstance(outputs, str) else outputs,
            "id": instance.get("id", str(number)),
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"{path}, row {number}: expected an instance with input and output; "
            f"{type(error).__name__}: {error}"
        ) from error


def _prompt(definition: str, examples: Sequence[Mapping[str, str]], text: str) -> str:
    parts = [f"Definition: {_ended(definition)}\n\n"] if definition else []
    parts += [
        f" Positive Example {number} -\nInput: {_ended(example['input'])}\n"
        f" Output: {_ended(example['output'])}\n\n"
        for number, example in enumerate(examples, 1)
    ]
    parts.append(f"Now complete the following example -\nInput: {_ended(text)}\nOutput: ")
    return "".join(parts)


def _ended(text: str) -> str:
    stripped = text.strip()
    return stripped if stripped and stripped[-1] in string.punctuation else f"{stripped}."
