"""One suite for every row of the table of formats."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from golden_kit import GOLDEN, golden_backbone
from safetensors.torch import save_file

from adapters_store.artefact import build_artefact, write_artefact
from adapters_store.errors import PatchbayError
from adapters_store.formats import FORMATS, Format, ImportOptions, detect, inspect, make_plan
from adapters_store.formats.importing import build
from adapters_store.formats.reasons import REASONS
from adapters_store.formats.source import FolderSource, Source
from adapters_store.lazy import resolve
from adapters_store.limits import DEFAULT_LIMITS
from adapters_store.manifest import HeadPart, LowRankPart, TaskSignature
from adapters_store.tensor_file import PREFIX_BYTES

BACKBONE = golden_backbone("bert").record


def native_sample(folder: Path) -> Path:
    parts = [
        LowRankPart(site="encoder.0.self.q", rank=2, scale=0.5),
        HeadPart(num_labels=2, pooling="cls"),
    ]
    tensors = {
        "encoder.0.self.q/low_rank/a": torch.ones(32, 2),
        "encoder.0.self.q/low_rank/b": torch.ones(2, 32),
        "head/weight": torch.ones(2, 32),
        "head/bias": torch.ones(2),
    }
    signature = TaskSignature(task="classification", labels=("no", "yes"))
    artefact = build_artefact(
        kind="adapter", backbone=BACKBONE, parts=parts, tensors=tensors, signature=signature
    )
    return write_artefact(artefact, folder).parent


BERT_QUERY = "bert.encoder.layer.0.attention.self.query"


def release_sample(folder: Path) -> Path:
    """A checkpoint of one selector over two heads and two skills."""
    folder.mkdir()
    tensors = {
        f"model.{BERT_QUERY}.lora_a": torch.ones(2, 2, 16, 1),
        f"model.{BERT_QUERY}.lora_b": torch.ones(2, 2, 1, 16),
        f"model.{BERT_QUERY}.selector.module_logits": torch.zeros(1, 4),
    }
    save_file(tensors, folder / "best.safetensors")
    options = {"model_modifier": "poly", "n_skills": 2, "n_splits": 2, "lora_rank": 1}
    (folder / "best.ckpt.json").write_text(json.dumps({"hyper_parameters": options}))
    return folder


def library_sample(folder: Path) -> Path:
    """A library of one expert."""
    folder.mkdir()
    tensors = {
        f"{BERT_QUERY}.lora_a": torch.ones(32, 1),
        f"{BERT_QUERY}.lora_b": torch.ones(1, 32),
    }
    save_file(tensors, folder / "rte.safetensors")
    config = {"class_name": "mttl.models.modifiers.lora.LoRAConfig", "lora_rank": 1}
    info = {"expert_name": "rte", "expert_config": config}
    (folder / "rte.meta.json").write_text(json.dumps(info))
    return folder


SAMPLES: dict[str, Callable[[Path], Path]] = {
    "patchbay": native_sample,
    "peft": lambda _: GOLDEN / "peft" / "bert-lora-classifier",
    "adapterhub": lambda _: GOLDEN / "adapterhub" / "bert-head" / "adapter",
    "mttl_mhr": release_sample,
    "mttl": library_sample,
}
"""A sound folder of each format for the golden BERT."""


class Watched:
    """A source that remembers which bytes were read."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.reads: list[tuple[str, int, int]] = []

    @property
    def location(self) -> str:
        return self._source.location

    def sizes(self) -> Mapping[str, int]:
        return self._source.sizes()

    def read_range(self, name: str, begin: int, end: int) -> bytes:
        self.reads.append((name, begin, end))
        return self._source.read_range(name, begin, end)


def header_end(source: Source, name: str) -> int:
    length = int.from_bytes(source.read_range(name, 0, PREFIX_BYTES), "little")
    return PREFIX_BYTES + length


def copy_of(folder: Path, target: Path) -> Path:
    target.mkdir(exist_ok=True)
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


@pytest.fixture(params=list(FORMATS))
def format_name(request) -> str:
    return request.param


@pytest.fixture
def sample(format_name: str, tmp_path: Path) -> Path:
    return copy_of(SAMPLES[format_name](tmp_path / "made"), tmp_path / "sample")


def load(name: str) -> Format:
    return resolve(FORMATS, name, "adapter format")()


def test_every_format_has_a_sample():
    assert set(SAMPLES) == set(FORMATS)


def test_a_sample_is_recognised_by_its_format_alone(format_name: str, sample: Path):
    source = FolderSource(sample)
    assert [name for name in FORMATS if load(name).recognises(source)] == [format_name]
    found = detect(source)
    assert found is not None
    assert found.name == format_name


def test_a_sample_is_taken_and_built(format_name: str, sample: Path):
    source = FolderSource(sample)
    plan = make_plan(source, BACKBONE)
    assert plan.inspection.verdict in ("accept", "convert")
    assert plan.inspection.format == format_name
    assert plan.inspection.parts
    if plan.inspection.verdict == "convert":
        built = build(plan, source, BACKBONE, ImportOptions())
        parts = [part for _, artefact in built for part in artefact.manifest.parts]
        assert tuple(parts) == plan.inspection.parts


FOREIGN = {
    "nothing": {},
    "a readme": {"README.md": b"# Adapter\n"},
    "a model": {"config.json": b'{"model_type": "bert"}', "model.safetensors": b""},
    "an unknown configuration": {"adapter_config.json": b'{"kind": "mystery"}'},
    "text that is not JSON": {"adapter_config.json": b"kind: mystery"},
    "a tokenizer": {"tokenizer.json": b"{}", "vocab.txt": b"a\n"},
}


@pytest.mark.parametrize("what", FOREIGN)
def test_nothing_foreign_is_recognised(format_name: str, tmp_path: Path, what: str):
    for name, data in FOREIGN[what].items():
        (tmp_path / name).write_bytes(data)
    assert not load(format_name).recognises(FolderSource(tmp_path))


@pytest.mark.parametrize("what", FOREIGN)
def test_planning_anything_raises_typed_errors_alone(format_name: str, tmp_path: Path, what: str):
    for name, data in FOREIGN[what].items():
        (tmp_path / name).write_bytes(data)
    source = FolderSource(tmp_path)
    with pytest.raises(PatchbayError):
        load(format_name).plan(source, BACKBONE, ImportOptions(), DEFAULT_LIMITS)


def test_the_verdict_reads_nothing_behind_a_header(format_name: str, sample: Path):
    source = Watched(FolderSource(sample))
    inspection = inspect(source, BACKBONE)
    assert inspection.data_bytes > 0
    reads = [read for read in source.reads if read[0].endswith(".safetensors")]
    assert reads
    for name, _, end in reads:
        assert end <= header_end(FolderSource(sample), name)


def test_the_verdict_does_not_depend_on_data(format_name: str, sample: Path):
    before = inspect(FolderSource(sample), BACKBONE).as_json()
    for path in sample.glob("*.safetensors"):
        start = header_end(FolderSource(sample), path.name)
        data = path.read_bytes()
        path.write_bytes(data[:start] + b"\xff" * (len(data) - start))
    assert inspect(FolderSource(sample), BACKBONE).as_json() == before


@pytest.mark.parametrize("other", ["t5", "llama", "roberta"])
def test_another_backbone_is_refused_in_known_words(format_name: str, sample: Path, other: str):
    inspection = inspect(FolderSource(sample), golden_backbone(other).record)
    assert inspection.verdict == "reject"
    assert inspection.parts == ()
    assert {reason.code for reason in inspection.reasons} <= set(REASONS)
    assert "incompatible" in {reason.code for reason in inspection.reasons}


def test_every_file_cut_short_or_emptied_is_refused(format_name: str, sample: Path):
    for path in sorted(sample.iterdir()):
        if path.name == "expected.safetensors":
            continue
        data = path.read_bytes()
        for cut in (b"", data[:-1], data[: len(data) // 2]):
            path.write_bytes(cut)
            inspection = inspect(FolderSource(sample), BACKBONE)
            is_whole = cut and path.suffix == ".json" and _is_json(cut)
            assert inspection.verdict == "reject" or is_whole, (path.name, len(cut))
        path.write_bytes(data)
    assert inspect(FolderSource(sample), BACKBONE).verdict != "reject"


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return False
    return True
