"""LoRA options that are understood: scales, targets, biases and what is only noted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import peft
import pytest
import torch
import transformers
from golden_kit import GOLDEN, golden_backbone
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key
from peft_kit import LAYER, Q, both, changed, option, renamed, tensor, verdict, without

from adapters_store.formats import Inspection
from adapters_store.formats.draft import Draft
from adapters_store.formats.importing import import_from
from adapters_store.formats.peft.lora import Scales
from adapters_store.formats.peft.settings import LoraSettings
from adapters_store.formats.peft.targets import Targets
from adapters_store.formats.source import FolderSource
from adapters_store.limits import DEFAULT_LIMITS
from adapters_store.primitives.low_rank import LowRankPart

LLAMA = golden_backbone("llama")
PATHS = [f"model.{site.module_path}" for site in LLAMA.sites.values()]
T5_PATHS = [site.module_path for site in golden_backbone("t5").sites.values()]


def notes(inspection: Inspection) -> dict[str, str]:
    """The last note of each code but those that are only recorded."""
    return {note.code: note.message for note in inspection.notes if note.code != "recorded"}


def draft() -> Draft:
    source = FolderSource(GOLDEN / "peft" / "llama-lora")
    return Draft("peft", source, LLAMA.record, None, DEFAULT_LIMITS, "file", ())  # type: ignore[arg-type]


@pytest.mark.parametrize("case", ["llama-lora-patterns", "llama-lora-rslora"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_scales_are_those_that_peft_computes(case: str):
    folder = GOLDEN / "peft" / case
    base = transformers.AutoModelForCausalLM.from_pretrained(LLAMA.folder)
    model = peft.PeftModel.from_pretrained(base, folder)
    parts = verdict(folder, "llama").parts
    assert len(parts) == 14
    scales = set()
    for part in parts:
        assert isinstance(part, LowRankPart)
        module = model.get_submodule(f"base_model.model.model.{LLAMA.sites[part.site].module_path}")
        assert (part.rank, part.scale) == (module.r["default"], module.scaling["default"])
        scales.add(part.scale)
    assert len(scales) > 4


_KEYS = st.lists(
    st.sampled_from(
        [
            "q_proj",
            r"layers\.0\..*",
            "self_attn.k_proj",
            r"^model\.layers\.1\.mlp\.(up|down)_proj",
            "layers.1.mlp.up_proj",
            r".*\.[qv]_proj",
            "proj",
            r"\d+",
            "",
        ]
    ),
    unique=True,
)


@settings(deadline=None)
@given(_KEYS, st.sampled_from(PATHS))
def test_the_first_pattern_that_matches_decides_as_in_peft(keys: list[str], path: str):
    ranks = {key: number + 2 for number, key in enumerate(keys)}
    expected = ranks.get(get_pattern_key(list(ranks), path), 64)
    settings = LoraSettings(peft_type="LORA", r=64, rank_pattern=ranks, alpha_pattern=ranks)
    assert (
        Scales(draft(), settings).of(path, expected)
        == ranks.get(get_pattern_key(list(ranks), path), 8) / expected
    )


_NAMES = ["q_proj", "self_attn.k_proj", "proj", "mlp", "wo", "SelfAttention.q", "q", *PATHS[:3]]
_TARGETS = st.one_of(
    st.lists(st.sampled_from(_NAMES), min_size=1),
    st.sampled_from([r".*(q|v)_proj", r"model\.layers\.1\..*", r".*SelfAttention\.[qk]", "q_proj"]),
)


@settings(deadline=None)
@given(
    _TARGETS,
    st.one_of(st.none(), st.lists(st.sampled_from(_NAMES)), st.just(r".*layers\.0\..*")),
    st.one_of(st.none(), st.integers(0, 2), st.lists(st.integers(0, 2))),
    st.sampled_from([None, "layers", ["block", "layers"], "layer"]),
    st.sampled_from(PATHS + T5_PATHS),
)
def test_targets_name_the_modules_that_peft_would_replace(
    targets, excluded, layers, pattern, path: str
):
    if isinstance(targets, str):
        layers = pattern = None
    values = {
        "target_modules": targets,
        "exclude_modules": excluded,
        "layers_to_transform": layers,
        "layers_pattern": pattern,
    }
    found = Targets(LoraSettings(peft_type="LORA", **values), draft()).names(path)
    theirs = SimpleNamespace(**values, modules_to_save=None, target_parameters=None)
    assert found == bool(check_target_module_exists(theirs, path))


def test_targets_are_compared_with_the_tensors(tmp_path: Path):
    change = option(target_modules=["q_proj", "up_proj", "w_proj"])
    found = [
        note.message
        for note in verdict(changed(tmp_path, "llama-lora", change), "llama").notes
        if note.code in ("unmatched_target", "outside_targets")
    ]
    assert found == [
        "target 'w_proj' names no module",
        "'model.layers.0.self_attn.v_proj', 'model.layers.1.self_attn.v_proj' are with tensors but "
        "no target",
        "'model.layers.0.mlp.up_proj', 'model.layers.1.mlp.up_proj' are targeted but without "
        "tensors",
    ]


@pytest.mark.parametrize("text", ["all-linear", "ALL-LINEAR"])
def test_all_linear_names_every_site(text: str, tmp_path: Path):
    inspection = verdict(changed(tmp_path, "llama-lora", option(target_modules=text)), "llama")
    assert inspection.verdict == "convert"
    assert "and 7 more are targeted but without" in notes(inspection)["unmatched_target"]


def test_a_target_that_cannot_be_read_is_noted(tmp_path: Path):
    change = option(target_modules="(?!k).*_proj")
    inspection = verdict(changed(tmp_path, "llama-lora", change), "llama")
    assert inspection.verdict == "convert"
    assert "uses assert" in notes(inspection)["unmatched_target"]


def test_a_configuration_with_its_bare_minimum_is_enough(tmp_path: Path):
    def bare(config, tensors):
        kept = {"peft_type": "LORA", "r": 4}
        config.clear()
        config.update(kept)

    inspection = verdict(changed(tmp_path, "llama-lora", bare), "llama")
    assert inspection.verdict == "convert"
    assert {part.scale for part in inspection.parts} == {2.0}


def test_options_of_training_change_nothing(tmp_path: Path):
    values = {"lora_dropout": 0.5, "init_lora_weights": "eva", "eva_config": {"rho": 2.0}}
    inspection = verdict(changed(tmp_path, "llama-lora", option(**values)), "llama")
    assert inspection.parts == verdict(GOLDEN / "peft" / "llama-lora", "llama").parts


def test_notes_record_the_base_model_and_what_concerns_merging(tmp_path: Path):
    change = option(fan_in_fan_out=True, base_model_name_or_path="/home/me/llama")
    recorded = [
        note.where
        for note in verdict(changed(tmp_path, "llama-lora", change), "llama").notes
        if note.code == "recorded"
    ]
    assert recorded == ["base_model_name_or_path", "fan_in_fan_out"]


def test_paths_of_other_versions_and_classes_are_the_same_sites(tmp_path: Path):
    change = renamed("base_model.model.model.", "base_model.model.model.language_model.")
    inspection = verdict(changed(tmp_path, "llama-lora", change), "llama")
    assert inspection.parts == verdict(GOLDEN / "peft" / "llama-lora", "llama").parts


def test_a_base_model_alone_has_no_prefix(tmp_path: Path):
    change = both(
        option(task_type="FEATURE_EXTRACTION"),
        renamed("base_model.model.model.", "base_model.model."),
    )
    inspection = verdict(changed(tmp_path, "llama-lora", change), "llama")
    assert inspection.parts == verdict(GOLDEN / "peft" / "llama-lora", "llama").parts


def test_modules_may_have_ranks_of_their_own(tmp_path: Path):
    change = both(
        option(rank_pattern={r"layers\.0\.self_attn\.q_proj": 1}),
        tensor(f"{Q}.lora_A.weight", 1, 32),
        tensor(f"{Q}.lora_B.weight", 32, 1),
    )
    parts = verdict(changed(tmp_path, "llama-lora", change), "llama").parts
    by_site = {part.site: (part.rank, part.scale) for part in parts}
    assert by_site["decoder.0.self.q"] == (1, 8.0)
    assert by_site["decoder.1.self.q"] == (4, 2.0)


def test_an_adapter_that_was_never_trained_is_noted_when_it_is_read(tmp_path: Path):
    def forget(config, tensors):
        for name in tensors:
            if "lora_B" in name:
                tensors[name] = torch.zeros_like(tensors[name])

    folder = changed(tmp_path / "zero", "llama-lora", forget)
    ((_, artefact),) = import_from(FolderSource(folder), LLAMA.record)
    (note,) = [
        note
        for note in artefact.manifest.provenance["imported"]["notes"]
        if note["code"] == "no_effect"
    ]
    assert note["message"] == "all 4 parts (low_rank) change nothing"
    ((_, trained),) = import_from(FolderSource(GOLDEN / "peft" / "llama-lora"), LLAMA.record)
    codes = {note["code"] for note in trained.manifest.provenance["imported"]["notes"]}
    assert "no_effect" not in codes


def test_a_missing_layer_is_no_defect(tmp_path: Path):
    change = without(
        f"{LAYER}.self_attn.v_proj.lora_A.weight", f"{LAYER}.self_attn.v_proj.lora_B.weight"
    )
    inspection = verdict(changed(tmp_path, "llama-lora", change), "llama")
    assert inspection.verdict == "convert"
    assert "layers.0.self_attn.v_proj' is targeted" in notes(inspection)["unmatched_target"]


def test_the_paths_of_the_source_are_kept_as_provenance():
    ((_, artefact),) = import_from(FolderSource(GOLDEN / "peft" / "llama-lora"), LLAMA.record)
    paths = artefact.manifest.provenance["imported"]["paths"]
    assert paths["decoder.1.self.v"] == "model.layers.1.self_attn.v_proj"
    assert set(paths) == {part.site for part in artefact.manifest.low_rank_parts}
