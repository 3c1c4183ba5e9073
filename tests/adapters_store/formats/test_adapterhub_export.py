"""What an AdapterHub export carries beyond the golden files, and what it refuses by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_kit import golden_backbone

from adapters_store.artefact import Artefact, build_artefact, load_tensors
from adapters_store.errors import ConflictError, RejectedArtefactError
from adapters_store.formats import EXPORTERS
from adapters_store.formats.adapterhub.export import export_adapterhub
from adapters_store.formats.importing import import_from
from adapters_store.formats.source import FolderSource
from adapters_store.lazy import resolve
from adapters_store.manifest import TaskSignature
from adapters_store.primitives import Part, as_part
from adapters_store.primitives.head import HeadPart

LABELS = TaskSignature(task="classification", labels=("no", "yes"))


def bottleneck(block: str, **changes: Any) -> dict[str, Any]:
    given = {"rank": 4, "activation": "relu", "reads": "sum", "scale": 1.0, "norm_eps": None}
    return {"primitive": "bottleneck", "block": block, **given, **changes}


def low_rank(site: str, **changes: Any) -> dict[str, Any]:
    return {"primitive": "low_rank", "site": site, "rank": 2, "scale": 0.5, **changes}


def scale(site: str, side: str = "output") -> dict[str, Any]:
    return {"primitive": "scale", "site": site, "side": side}


def prefix(attention: str, **changes: Any) -> dict[str, Any]:
    given = {"num_tokens": 3, "shifts_positions": False}
    return {"primitive": "prefix", "attention": attention, **given, **changes}


def prompt(**changes: Any) -> dict[str, Any]:
    given = {"input": "encoder", "layer": 0, "num_tokens": 3, "has_positions": False}
    return {"primitive": "prompt", **given, **changes}


def head(**changes: Any) -> dict[str, Any]:
    return {"primitive": "head", "num_labels": 2, "pooling": "cls", **changes}


def override(vector: str) -> dict[str, Any]:
    return {"primitive": "override", "vector": vector, "operation": "replace"}


def make(backbone: str, *given: dict[str, Any], **tensors: torch.Tensor) -> Artefact:
    """An adapter of these parts with random tensors, some of them as ``tensors`` say."""
    record = golden_backbone(backbone).record
    parts: Sequence[Part] = [as_part(part) for part in given]
    generator = torch.Generator().manual_seed(0)
    made = {
        spec.name: torch.randn(spec.shape, generator=generator)
        for part in parts
        for spec in part.tensor_specs(record.shapes)
    }
    has_head = any(isinstance(part, HeadPart) for part in parts)
    can_write = record.shapes.anatomy.can_generate
    plain = TaskSignature(task="text2text" if can_write else "embedding")
    return build_artefact(
        kind="adapter",
        backbone=record,
        parts=parts,
        tensors={name: tensors.get(name, value) for name, value in made.items()},
        signature=LABELS if has_head else plain,
    )


def there_and_back(artefact: Artefact, backbone: str, folder: Path) -> tuple[Artefact, Any]:
    """The artefact as it comes back, and the exported options."""
    record = golden_backbone(backbone).record
    export_adapterhub(artefact, record, folder)
    config = json.loads((folder / "adapter_config.json").read_text())["config"]
    [(_, again)] = import_from(FolderSource(folder), record)
    assert again.manifest.content_digest == artefact.manifest.content_digest
    assert set(again.manifest.parts) == set(artefact.manifest.parts)
    return again, config


def test_the_table_of_exporters_names_it() -> None:
    assert resolve(EXPORTERS, "adapterhub", "exporter") is export_adapterhub


def test_ranks_that_do_not_divide_the_width_come_back(tmp_path: Path) -> None:
    for rank in (*range(1, 33), 45, 64, 100):
        part = bottleneck("encoder.1.after_ffn", rank=rank)
        _, config = there_and_back(make("bert", part), "bert", tmp_path / str(rank))
        assert int(32 // config["reduction_factor"]) == rank


def test_a_rank_for_each_layer_becomes_a_mapping(tmp_path: Path) -> None:
    parts = [bottleneck(f"encoder.{i}.after_ffn", rank=4 + 4 * i) for i in (0, 1)]
    _, config = there_and_back(make("bert", *parts), "bert", tmp_path / "out")
    assert config["reduction_factor"] == {"0": 8, "1": 4}


@pytest.mark.parametrize("factor", [0.1, 0.3, 1.7, 2.0])
@pytest.mark.parametrize("rank", [1, 3, 7])
def test_scales_come_back(tmp_path: Path, factor: float, rank: int) -> None:
    sites = [f"decoder.{i}.self.{letter}" for i in (0, 1) for letter in "qv"]
    artefact = make("llama", *[low_rank(site, rank=rank, scale=factor) for site in sites])
    folder = tmp_path / "out"
    export_adapterhub(artefact, golden_backbone("llama"), folder)
    [(_, again)] = import_from(FolderSource(folder), golden_backbone("llama").record)
    for part in again.manifest.low_rank_parts:
        assert part.scale == pytest.approx(factor, rel=1e-15)


def test_a_parallel_bottleneck_on_the_input_of_a_post_norm_layer_is_the_residuals(
    tmp_path: Path,
) -> None:
    artefact = make("bert", bottleneck("encoder.1.after_ffn", reads="input"))
    folder = export_adapterhub(artefact, golden_backbone("bert"), tmp_path / "out")
    [(_, again)] = import_from(FolderSource(folder), golden_backbone("bert").record)
    [part] = again.manifest.parts
    assert part.model_dump()["reads"] == "residual"
    own = load_tensors(artefact)["encoder.1.after_ffn/bottleneck/input/up"]
    assert torch.equal(load_tensors(again)["encoder.1.after_ffn/bottleneck/residual/up"], own)


def test_an_encoders_prefixes_alone_leave_the_decoders_layers_out(tmp_path: Path) -> None:
    artefact = make("bart", prefix("encoder.0.self"), prefix("encoder.1.self"))
    _, config = there_and_back(artefact, "bart", tmp_path / "out")
    assert config["leave_out"] == [2, 3]
    assert (config["encoder_prefix"], config["cross_prefix"]) == (True, False)


def test_scales_of_some_slices_leave_the_others_out(tmp_path: Path) -> None:
    vector = torch.ones(96)
    vector[32:64] = 2.0
    tensors = {f"decoder.{i}.self.qkv/scale/output": vector for i in (0, 1)}
    artefact = make("gpt2", *[scale(f"decoder.{i}.self.qkv") for i in (0, 1)], **tensors)
    _, config = there_and_back(artefact, "gpt2", tmp_path / "out")
    assert config["attn_matrices"] == ["k"]


EVERY_FFN = [bottleneck(f"encoder.{i}.after_ffn") for i in (0, 1)]
HEADED = [bottleneck("encoder.1.after_ffn"), head()]
REFUSED = {
    "one block too few": (
        "bert",
        [*EVERY_FFN, bottleneck("encoder.0.after_self")],
        "fills encoder.1.after_self as well",
    ),
    "two in a block": (
        "bert",
        [bottleneck("encoder.0.after_ffn"), bottleneck("encoder.0.after_ffn", reads="output")],
        "share a block",
    ),
    "two activations": (
        "bert",
        [EVERY_FFN[0], bottleneck("encoder.1.after_ffn", activation="tanh")],
        "activation is relu, tanh in different places",
    ),
    "two scales": (
        "bert",
        [EVERY_FFN[0], bottleneck("encoder.1.after_ffn", scale=2.0)],
        "scale is 1.0, 2.0",
    ),
    "two ranks in a layer": (
        "bert",
        [bottleneck("encoder.0.after_ffn"), bottleneck("encoder.0.after_self", rank=2)],
        "ranks 2 and 4|ranks 4 and 2",
    ),
    "another epsilon": (
        "bert",
        [bottleneck("encoder.0.after_ffn", norm_eps=1e-6)],
        "norm_eps is 1e-06",
    ),
    "the normed input": (
        "llama",
        [bottleneck("decoder.0.after_ffn", reads="input")],
        "reads the normed input",
    ),
    "an output projection": (
        "bert",
        [low_rank("encoder.0.self.o")],
        "puts nothing at encoder.0.self.o",
    ),
    "a gate": ("llama", [low_rank("decoder.0.ffn.gate")], "puts nothing at decoder.0.ffn.gate"),
    "cross attention alone": (
        "bart",
        [low_rank("decoder.0.cross.q")],
        "fills decoder.0.self.q as well",
    ),
    "two ranks": (
        "bert",
        [low_rank("encoder.0.self.q"), low_rank("encoder.1.self.q", rank=4)],
        "rank is 2, 4",
    ),
    "factors of a packed map": (
        "gpt2",
        [low_rank("decoder.0.self.qkv", rank=3)],
        "serve queries, keys and values together",
    ),
    "an indivisible rank": (
        "gpt2",
        [low_rank("decoder.0.self.qkv", rank=2)],
        "rank 2 .* is not one of equal slices",
    ),
    "scaled inputs": ("bert", [scale("encoder.0.ffn.out", "input")], "IA3 .* scales outputs"),
    "lora and ia3": (
        "bert",
        [low_rank("encoder.0.self.q"), scale("encoder.0.self.k")],
        "does not join LoRA and IA3",
    ),
    "positions that move": (
        "llama",
        [prefix(f"decoder.{i}.self", shifts_positions=True) for i in (0, 1)],
        "move the tokens' positions",
    ),
    "prefixes of two lengths": (
        "bert",
        [prefix("encoder.0.self"), prefix("encoder.1.self", num_tokens=4)],
        "num_tokens is 3, 4",
    ),
    "some layers of t5": ("t5", [prefix("encoder.0.self")], "drops the relative position bias"),
    "a decoder's cross prefixes alone": (
        "bart",
        [prefix("decoder.0.cross"), prefix("decoder.1.cross")],
        "fills decoder.0.self",
    ),
    "a prompt with positions": ("bert", [prompt(has_positions=True)], "stand behind them"),
    "deep prompts": ("bert", [prompt(), prompt(layer=1)], "rows at later layers"),
    "a prompt for gpt2": ("gpt2", [prompt(input="decoder")], "has no prompts for this type"),
    "overrides": ("bert", [override("encoder.0.ffn.norm.gain")], "no method for override"),
    "a head alone": ("bert", [head()], "no method for a head alone"),
    "mean pooling": ("bert", [HEADED[0], head(pooling="mean")], "the head pools 'mean'"),
    "a narrow dense layer": ("bert", [HEADED[0], head(dense_size=8)], "has 8 features"),
    "a head beside a prompt": ("bert", [prompt(), head()], "none stands beside a prompt"),
    "an unknown model": ("qwen2", [low_rank("decoder.0.self.q")], "of model_type 'qwen2'"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_library_cannot_say_is_refused_and_nothing_is_written(
    tmp_path: Path, what: str
) -> None:
    backbone, parts, words = REFUSED[what]
    with pytest.raises(RejectedArtefactError, match=words):
        export_adapterhub(make(backbone, *parts), golden_backbone(backbone), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("kept")
    with pytest.raises(ConflictError, match="not an empty folder"):
        export_adapterhub(make("bert", *EVERY_FFN), golden_backbone("bert"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]
