"""Rules of AdapterHub imports beyond the golden files: equations, releases, old names, dtypes."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from golden_kit import golden_backbone
from hub_kit import about, changed, option, renamed, tensor, verdict
from torch.nn import functional

from adapters_store.artefact import Artefact, load_tensors
from adapters_store.formats.adapterhub.bottleneck import Inexpressible, what_it_reads
from adapters_store.formats.importing import import_from
from adapters_store.primitives.low_rank import LowRankPart

SUM = "encoder.0.after_ffn/bottleneck/sum"


def artefact_of(source, backbone: str = "bert") -> Artefact:
    [(_, artefact)] = import_from(source, golden_backbone(backbone).record)
    return artefact


def norm(values: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(values, values.shape[-1:])


def librarys_block(options, x, f, delta, *, is_post_norm: bool) -> torch.Tensor | None:
    """A sub-layer's output as ``adapters`` computes it; None where it fails."""
    close = norm if is_post_norm else (lambda values: values)
    if options["is_parallel"]:
        h = delta(x) + f
    else:
        z, residual = f, options["residual_before_ln"]
        r = f if residual is True else None
        if options["original_ln_before"]:
            z = f + x
            r = z if residual == "post_add" and is_post_norm else r
            z = close(z)
        if not residual:
            r = z
        if r is None:
            return None
        h = delta(z) + r
    return close(h + x) if options["original_ln_after"] else h


@pytest.mark.parametrize("is_post_norm", [True, False], ids=["post-norm", "pre-norm"])
def test_options_convert_exactly_where_the_primitive_computes_the_same(is_post_norm: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x, f = torch.randn(2, 5, 8, generator=generator)
    matrix = torch.randn(8, 8, generator=generator)
    close = norm if is_post_norm else (lambda values: values)
    reads = {"output": f, "sum": close(x + f), "residual": x}

    def delta(values: torch.Tensor) -> torch.Tensor:
        return torch.tanh(values @ matrix)

    flags = itertools.product(
        (True, False), (True, False), (True, False), (True, False, "post_add")
    )
    num_converted = 0
    for parallel, before, after, residual in flags:
        options = {
            "is_parallel": parallel,
            "original_ln_before": before,
            "original_ln_after": after,
            "residual_before_ln": residual,
        }
        expected = librarys_block(options, x, f, delta, is_post_norm=is_post_norm)
        same = {
            name
            for name, z in reads.items()
            if expected is not None and torch.allclose(close(x + f + delta(z)), expected, atol=1e-6)
        }
        found = what_it_reads(options, is_post_norm=is_post_norm)
        assert same == (set() if isinstance(found, Inexpressible) else {found}), options
        num_converted += bool(same)
    assert num_converted == (9 if is_post_norm else 10)


@pytest.mark.parametrize(
    ("version", "scale", "codes"),
    [
        ("adapters.1.3.0", 2.0, ["recorded"]),
        ("adapters.1.1.0", 2.0, ["recorded"]),
        ("adapters.1.0.1", 1.0, ["recorded", "recorded"]),
        ("adapters.0.2.2", 1.0, ["recorded", "recorded"]),
        ("3.2.1", 2.0, ["recorded"]),
        (None, 2.0, ["recorded"]),
    ],
)
def test_lora_has_the_scale_that_its_release_trained_with(
    tmp_path: Path, version: str | None, scale: float, codes: list[str]
) -> None:
    source = changed(tmp_path, "bert-lora", about(version=version))
    found = verdict(source, "bert-lora")
    assert [note.code for note in found.notes] == codes
    assert {part.scale for part in found.parts if isinstance(part, LowRankPart)} == {scale}


@pytest.mark.parametrize("version", ["adapters.1.1.0.dev0", "adapters.next"])
def test_a_release_that_cannot_be_told_is_refused_where_it_matters(
    tmp_path: Path, version: str
) -> None:
    [reason] = verdict(changed(tmp_path, "bert-lora", about(version=version)), "bert-lora").reasons
    assert reason.code == "unsupported_option"
    assert f"how version {version!r} scaled is unclear" in reason.message
    equal = changed(tmp_path, "bert-lora", about(version=version), option(alpha=2))
    assert verdict(equal, "bert-lora").verdict == "convert"


def test_a_union_of_a_faulty_release_is_refused(tmp_path: Path) -> None:
    source = changed(
        tmp_path,
        "llama-union",
        about(version="adapters.1.0.0"),
        lambda saved: saved.config["configs"][1].update(alpha=4),
    )
    [reason] = verdict(source, "llama-union").reasons
    assert reason.where == "config.configs.1.alpha"


@pytest.mark.parametrize(
    ("given", "version", "activation"),
    [
        ("gelu", "adapters.1.3.0", "gelu"),
        ("gelu", None, "gelu_tanh"),
        ("gelu_orig", None, "gelu"),
        ("ReLU", "adapters.1.3.0", "relu"),
        ("swish", None, "silu"),
    ],
)
def test_activations_mean_what_they_meant_to_the_release(
    tmp_path: Path, given: str, version: str | None, activation: str
) -> None:
    def change(saved) -> None:
        saved.document.pop("version")
        if version is not None:
            saved.document["version"] = version

    source = changed(tmp_path, "bert-seq_bn", change, option(non_linearity=given))
    parts = verdict(source, "bert-seq_bn").parts
    assert {part.model_dump()["activation"] for part in parts} == {activation}


@pytest.mark.parametrize("former", ["layer_text_task_adapters", "layer_text_lang_adapters"])
def test_former_names_of_modules_are_read(tmp_path: Path, former: str) -> None:
    now = artefact_of(changed(tmp_path / "now", "bert-seq_bn"))
    then = changed(tmp_path / "then", "bert-seq_bn", renamed("output.adapters", f"output.{former}"))
    assert artefact_of(then).manifest.content_digest == now.manifest.content_digest


def test_an_old_task_adapter_that_only_mentions_an_inverse_is_read(tmp_path: Path) -> None:
    old = {"block_type": "nice", "non_linearity": "relu", "reduction_factor": 2}
    change = option(invertible_adapter=old)
    source = changed(tmp_path / "task", "bert-seq_bn", change, about(type="text_task"))
    found = verdict(source, "bert-seq_bn")
    assert found.verdict == "convert"
    assert "without an inverse" in found.notes[-1].message
    for name, more in (
        ("language", about(type="text_lang")),
        ("kept", tensor("invertible_adapters.task.F.0.weight", torch.ones(2))),
    ):
        refused = changed(tmp_path / name, "bert-seq_bn", about(type="text_task"), change, more)
        assert verdict(refused, "bert-seq_bn").verdict == "reject"


def test_bare_and_prefixed_saves_are_one_content(tmp_path: Path) -> None:
    prefixed = artefact_of(changed(tmp_path / "prefixed", "bert-lora"))
    bare = artefact_of(changed(tmp_path / "bare", "bert-lora", renamed("bert.", "")))
    assert bare.manifest.content_digest == prefixed.manifest.content_digest


def test_plain_tensors_keep_their_dtype_and_products_are_float32(tmp_path: Path) -> None:
    def halved(saved) -> None:
        saved.tensors = {name: value.bfloat16() for name, value in saved.tensors.items()}

    plain = load_tensors(artefact_of(changed(tmp_path / "plain", "bert-seq_bn", halved)))
    assert {value.dtype for value in plain.values()} == {torch.bfloat16}
    made = load_tensors(artefact_of(changed(tmp_path / "made", "bert-compacter", halved)))
    stem = "encoder.0.after_ffn/bottleneck/output"
    assert made[f"{stem}/down"].dtype == torch.float32
    assert made[f"{stem}/down_bias"].dtype == torch.bfloat16


def test_an_adapter_that_was_never_trained_is_noted(tmp_path: Path) -> None:
    def zeroed(saved) -> None:
        for name, value in saved.tensors.items():
            if ".adapter_up." in name:
                value.zero_()

    artefact = artefact_of(changed(tmp_path, "bert-seq_bn", zeroed))
    assert not load_tensors(artefact)[f"{SUM}/up"].any()
    notes = artefact.manifest.provenance["imported"]["notes"]
    assert [note["code"] for note in notes] == ["recorded", "no_effect"]


def test_letters_that_adapt_nothing_are_noted(tmp_path: Path) -> None:
    letters = ["q", "k", "v", "o"]
    found = verdict(changed(tmp_path, "bert-lora", option(attn_matrices=letters)), "bert-lora")
    assert (found.verdict, found.notes[-1].code) == ("convert", "unmatched_target")


def test_ia3_beside_an_alpha_is_multiplied_by_it(tmp_path: Path) -> None:
    once = load_tensors(artefact_of(changed(tmp_path / "1", "gpt2-ia3"), "gpt2"))
    twice = load_tensors(artefact_of(changed(tmp_path / "2", "gpt2-ia3", option(alpha=2)), "gpt2"))
    for name, value in once.items():
        assert torch.equal(twice[name], 2 * value)
