"""What of mttl's checkpoints cannot be represented is refused by its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_kit import golden_backbone
from mttl_kit import (
    LORA,
    POLY,
    RELEASE,
    SKILLED,
    Tensors,
    expert_weights,
    release_state,
    verdict,
    write_expert,
    write_model,
    write_release,
)
from safetensors.torch import save_file

from adapters_store.errors import UnsafeArtefactError, UsageError
from adapters_store.formats import ImportOptions, make_plan
from adapters_store.formats.pickles import convert_pickle
from adapters_store.formats.reasons import REASONS
from adapters_store.formats.source import FolderSource

Q = "model.encoder.block.0.layer.0.SelfAttention.q"
Change = Callable[[dict[str, Any], Tensors], None]


def option(**values: Any) -> Change:
    return lambda options, state: options.update(values)


def without(name: str) -> Change:
    return lambda options, state: state.pop(name)


def tensor(name: str, *shape: int) -> Change:
    return lambda options, state: state.update({name: torch.ones(shape)})


def swapped(options: dict[str, Any], state: Tensors) -> None:
    """The order of axes of another layout."""
    for name in list(state):
        if ".lora_" in name:
            state[name] = state[name].transpose(0, 1).contiguous()


RELEASE_CASES: dict[str, tuple[Change, str, str]] = {
    "IA3": (option(model_modifier="ia3"), "unsupported_method", "'ia3'"),
    "a bank of IA3": (option(adapter_type="ia3"), "unreadable", "adapter_type"),
    "another selector": (option(router_selector="moe"), "unreadable", "router_selector"),
    "negative weights": (option(module_logits_l2_norm=True), "unsupported_option", "l2_norm"),
    "gates that drop": (
        option(module_logits_dropout=0.1),
        "unsupported_option",
        "outside training",
    ),
    "a warm-up that is not saved": (option(lora_warmup=True), "unsupported_option", "lora_warmup"),
    "tied tensors": (option(tie_params="q.lora_a"), "unsupported_option", "tie_params"),
    "scaling vectors": (option(lora_scaling_rank=1), "unsupported_option", "lora_scaling_rank"),
    "an option of a later commit": (
        option(poly_per_token=True),
        "unknown_option",
        "poly_per_token",
    ),
    "a granularity": (option(router_granularity="rowwise"), "unreadable", "router_granularity"),
    "no rank": (lambda options, state: options.pop("lora_rank"), "unreadable", "lora_rank"),
    "another rank": (option(lora_rank=4), "shape_mismatch", "lora_a"),
    "other skills": (option(n_skills=3), "shape_mismatch", "lora_a"),
    "the main branch's order of axes": (swapped, "shape_mismatch", "lora_a"),
    "heads that do not divide": (option(n_splits=3), "incompatible", "n_splits 3 does not divide"),
    "a missing factor": (without(f"{Q}.lora_b"), "missing_tensor", f"{Q}.lora_b"),
    "a missing selector": (
        without(f"{Q}.selector.module_logits"),
        "missing_tensor",
        "no selector is saved",
    ),
    "selectors within a bin": (
        option(router_granularity="coarsegrained"),
        "extra_tensor",
        "module_logits",
    ),
    "a module that is no site": (
        tensor("model.encoder.final_layer_norm.lora_a", 2, 4, 16, 2),
        "incompatible",
        "encoder.final_layer_norm",
    ),
    "an auxiliary predictor": (
        tensor("loss_plugins.task_pred.predictor.weight", 3, 8),
        "extra_tensor",
        "loss_plugins",
    ),
    "a private selector with heads": (
        option(router_selector="private"),
        "unsupported_option",
        "a skill per task and n_splits 1",
    ),
}


@pytest.mark.parametrize("case", RELEASE_CASES)
def test_a_release_checkpoint_is_refused_by_name(case: str, tmp_path: Path):
    change, code, words = RELEASE_CASES[case]
    options: dict[str, Any] = dict(RELEASE)
    state, _ = release_state("t5", options)
    change(options, state)
    inspection = verdict("t5", write_release(tmp_path / "run", state, options))
    assert inspection.verdict == "reject"
    assert {reason.code for reason in inspection.reasons} <= set(REASONS)
    said = [reason for reason in inspection.reasons if reason.code == code]
    assert any(words in reason.message for reason in said), inspection.reasons


def test_a_granularity_that_paths_do_not_have_is_refused(tmp_path: Path):
    options = RELEASE | {"router_granularity": "blockwise"}
    state, _ = release_state("llama", RELEASE)
    inspection = verdict("llama", write_release(tmp_path / "run", state, options))
    said = {reason.code: reason.message for reason in inspection.reasons}
    assert "'blockwise' names no part of" in said["unsupported_option"]


def test_a_checkpoint_cut_down_for_one_task_says_how_many_rows_it_has(tmp_path: Path):
    state, _ = release_state("t5", RELEASE | {"n_tasks": 1})
    inspection = verdict("t5", write_release(tmp_path / "run", state, RELEASE))
    assert inspection.verdict == "convert"
    assert any("n_tasks is 3; the logits have 1 rows" in note.message for note in inspection.notes)


def test_a_task_that_is_not_there_is_refused(tmp_path: Path):
    state, _ = release_state("t5", RELEASE)
    folder = write_release(tmp_path / "run", state, RELEASE)
    inspection = verdict("t5", folder, ImportOptions(poly_task=3))
    assert [reason.code for reason in inspection.reasons] == ["unsupported_option"]
    assert "tasks 0 to 2" in inspection.reasons[0].message


def test_several_checkpoints_and_broken_options_are_refused(tmp_path: Path):
    state, _ = release_state("t5", RELEASE)
    folder = write_release(tmp_path / "run", state, RELEASE)
    save_file(state, folder / "last.safetensors")
    assert "2 files of weights" in verdict("t5", folder).reasons[0].message
    (folder / "last.safetensors").unlink()
    (folder / "best_model.ckpt.json").write_text("{")
    found = verdict("t5", folder)
    assert (found.format, found.reasons[0].code) == ("mttl_mhr", "unreadable")


def test_a_pickle_is_not_opened_and_says_what_to_run(tmp_path: Path):
    (tmp_path / "best_model.ckpt").write_bytes(b"\x80\x04cos\nsystem\n.")
    found = verdict("t5", tmp_path)
    assert (found.format, found.reasons[0].code) == ("mttl_mhr", "unsafe")
    assert "patchbay adapters convert" in found.reasons[0].message
    with pytest.raises(UnsafeArtefactError):
        convert_pickle(tmp_path, tmp_path / "out")


def experts(**values: Any) -> Change:
    """Change every expert's options."""
    return lambda config, state: (
        [info["expert_config"].update(values) for info in config["expert_infos"]] and None
    )


def selector(**values: Any) -> Change:
    return lambda config, state: config["selector_config"].update(values)


LORA_A = "model.encoder.block.0.layer.0.SelfAttention.q.experts.lora_a"
MAIN_CASES: dict[str, tuple[Change, str, str]] = {
    "another selector": (
        selector(class_name="mttl.models.containers.selectors.arrow_selector.ArrowSelectorConfig"),
        "unsupported_method",
        "ArrowSelectorConfig",
    ),
    "no selector": (option(selector_config=None), "unsupported_method", "from their library"),
    "outputs that are mixed": (
        selector(lora_merge_after=True),
        "unsupported_option",
        "lora_merge_after",
    ),
    "an option of a later version": (selector(top_k=2), "unknown_option", "top_k"),
    "an expert of another method": (
        experts(class_name="mttl.models.modifiers.ia3.IA3Config"),
        "unsupported_method",
        "IA3Config",
    ),
    "tied tensors": (experts(tie_params="q.lora_a"), "unsupported_option", "tie_params"),
    "another rank": (experts(lora_rank=3), "shape_mismatch", "experts.lora_a"),
    "no experts": (option(expert_infos=[]), "unreadable", "moe_num_experts"),
    "experts that are no objects": (option(expert_infos=[1]), "unreadable", "expert_infos"),
    "another model": (
        option(class_name="mttl.models.expert_model.Other"),
        "unsupported_method",
        "Other",
    ),
    "the release's order of axes": (swapped, "shape_mismatch", "experts.lora_a"),
    "a missing factor": (without(LORA_A), "unsupported_option", "experts without heads"),
    "more tasks than logits": (
        selector(task_names=["a", "b", "c"]),
        "shape_mismatch",
        "module_logits",
    ),
}


@pytest.mark.parametrize("case", MAIN_CASES)
def test_a_model_of_experts_is_refused_by_name(case: str, tmp_path: Path):
    change, code, words = MAIN_CASES[case]
    path = "encoder.block.0.layer.0.SelfAttention.q"
    state = {
        f"model.{path}.experts.lora_a": torch.ones(3, 2, 16, 2),
        f"model.{path}.experts.lora_b": torch.ones(3, 2, 2, 16),
        f"model.{path}.selector.module_logits": torch.ones(3, 6),
    }
    copies = [dict(SKILLED) for _ in range(3)]
    folder = write_model(tmp_path / "model", state, dict(POLY), copies)
    assert verdict("t5", folder).verdict == "convert"
    config = json.loads((folder / "mttl_config.json").read_text())
    change(config, state)
    (folder / "mttl_config.json").write_text(json.dumps(config))
    save_file(state, folder / "mttl_weights.safetensors")
    inspection = verdict("t5", folder)
    said = [reason for reason in inspection.reasons if reason.code == code]
    assert inspection.verdict == "reject"
    assert any(words in reason.message for reason in said), inspection.reasons


LIBRARY_CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "a skilled LoRA": ({"expert_config": SKILLED}, "unsupported_method", "a bank without tasks"),
    "a prompt": (
        {"expert_config": {"class_name": "mttl.models.modifiers.hard_prompts.HardPromptConfig"}},
        "unsupported_method",
        "HardPromptConfig",
    ),
    "nothing said": ({"expert_config": None}, "unreadable", "no expert_config"),
    "another rank": ({"expert_config": LORA | {"lora_rank": 3}}, "shape_mismatch", "lora_a"),
    "deleted": ({"expert_deleted": True}, "missing_tensor", "every expert of the library"),
}


@pytest.mark.parametrize("case", LIBRARY_CASES)
def test_an_expert_is_refused_by_name(case: str, tmp_path: Path):
    info, code, words = LIBRARY_CASES[case]
    folder = write_expert(tmp_path / "library", "rte", expert_weights("t5", 1), **info)
    reasons = verdict("t5", folder).reasons
    assert any(one.code == code and words in one.message for one in reasons), reasons


def test_experts_of_one_name_and_one_without_weights_are_refused(tmp_path: Path):
    folder = write_expert(tmp_path / "library", "RTE", expert_weights("t5", 1))
    write_expert(folder, "rte", expert_weights("t5", 2))
    assert "several experts have the name 'rte'" in verdict("t5", folder).reasons[0].message
    (folder / "RTE.safetensors").unlink()
    assert [reason.code for reason in verdict("t5", folder).reasons] == ["missing_tensor"]


def test_a_task_of_a_library_is_a_usage_error(tmp_path: Path):
    folder = write_expert(tmp_path / "library", "rte", expert_weights("t5", 1))
    with pytest.raises(UsageError, match="poly_task is for Poly"):
        make_plan(FolderSource(folder), golden_backbone("t5").record, ImportOptions(poly_task=0))
