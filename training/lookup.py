"""What the commands look up: artefacts by reference or folder, examples in files."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from adapters_store.artefact import Artefact, read_artefact
from adapters_store.backbone import Backbone
from adapters_store.errors import TrainingError, UsageError
from adapters_store.store import Store
from training.library import library_bank
from training.recipe import ObjectiveName
from training.sources import jsonl_task, read_jsonl
from training.suite.task import Example
from training.task import Task

_PAGE = 500


def find_artefact(store: Store, text: str) -> Artefact:
    """The artefact in a folder of that path, else the one that the reference names."""
    if Path(text).is_dir():
        return read_artefact(text)
    digest = store.resolve(text).digest
    return Artefact(store.manifest(digest), store.data(digest))


def find_source(
    store: Store, backbone: Backbone, bank: str | None, library: Sequence[str]
) -> Artefact | None:
    """What adaptation starts from: the named bank or adapter, the library as a bank, or nothing.

    Raises UsageError where both are named.
    """
    if bank and library:
        raise UsageError("both a bank and a library are named; adaptation starts from one")
    if library:
        return library_bank([find_artefact(store, one) for one in library], backbone)
    return find_artefact(store, bank) if bank else None


def find_bank(store: Store, artefact: Artefact) -> Artefact | None:
    """The bank that a routing names, from the store; None for other kinds."""
    digest = artefact.manifest.bank
    return Artefact(store.manifest(digest), store.data(digest)) if digest else None


def neighbours_of(store: Store, bank: Artefact) -> list[Artefact]:
    """Every live routing over ``bank`` in the store, newest version of each name."""
    found: list[Artefact] = []
    after: str | None = None
    while True:
        page = store.list(kind="routing", limit=_PAGE, after=after)
        found += [
            Artefact(version.manifest, store.data(version.digest))
            for version in page
            if version.bank == bank.digest
        ]
        if len(page) < _PAGE:
            return found
        after = page[-1].full_name


def file_task(path: Path, name: str, kind: ObjectiveName, about: str = "") -> Task:
    """The one task in a JSON Lines file; raises :class:`TrainingError` where it holds several.

    A task to classify has the labels that occur, and so has one of choices unless rows list them.
    """
    rows = read_jsonl(path, default_task=name)
    if len(rows) > 1:
        raise TrainingError(f"{path} holds tasks {sorted(rows)}; expected one")
    (parts,) = rows.values() or ({},)
    has_choices = any(example.choices for part in parts.values() for example in part)
    has_labels = kind == "classification" or (kind == "choice" and not has_choices)
    return dataclasses.replace(jsonl_task(name, parts, has_labels=has_labels), description=about)


def file_examples(path: Path, part: str) -> list[Example]:
    """The file's examples of ``part``, or all of them where the part is empty."""
    rows = read_jsonl(path, default_task="task")
    chosen = [e for parts in rows.values() for e in parts.get(part, ())]
    every = [e for parts in rows.values() for examples in parts.values() for e in examples]
    if not every:
        raise TrainingError(f"{path} holds no examples")
    return chosen or every
