"""Libraries and models of mttl's main branch compute here what their equations say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mttl_kit import (
    LORA,
    POLY,
    SKILLED,
    Tensors,
    adapted_modules,
    converted,
    draw,
    expected_logits,
    expert_deltas,
    expert_weights,
    imported,
    our_logits,
    verdict,
    write_expert,
    write_model,
)

TOLERANCE = 1e-5
SKILLS = 3
BINS = {
    "*": lambda path: path,
    "finegrained": lambda path: path,
    "coarsegrained": lambda path: "shared",
    "coder": lambda path: path[: path.index("coder")],
    "self_attn": lambda path: path.rpartition(".")[0],
}
STACKED = {
    "T5, one head": ("t5", 1, "*"),
    "T5, heads": ("t5", 4, "finegrained"),
    "T5, by a part of the path": ("t5", 2, "coder"),
    "Llama, heads": ("llama", 2, "*"),
    "Llama, one selector": ("llama", 8, "coarsegrained"),
}


def stacked_state(family: str, heads: int, granularity: str) -> tuple[Tensors, Tensors]:
    """Tensors of a container that stacks its experts, and every module's logits (T + 1, H K)."""
    generator = torch.Generator().manual_seed(7)
    state: Tensors = {}
    logits: Tensors = {}
    shared: Tensors = {}
    for path, module in adapted_modules(family).items():
        stem = f"model.{path}"
        state[f"{stem}.experts.lora_a"] = draw(
            generator, SKILLS, heads, module.in_features // heads, 2
        )
        state[f"{stem}.experts.lora_b"] = draw(
            generator, SKILLS, 2, heads, module.out_features // heads
        )
        own = BINS[granularity](path)
        if own not in shared:
            shared[own] = 3 * draw(generator, 3, heads * SKILLS)
            shared[own][-1] = 0
            state[f"{stem}.selector.module_logits"] = shared[own]
        logits[path] = shared[own]
    return state, logits


def stacked_deltas(state: Tensors, logits: Tensors, row: int, heads: int) -> dict[str, Any]:
    """One task's update by the main branch's equations (b, experts, heads, width, rank)."""

    def delta(path: str) -> Any:
        gates = logits[path][row].sigmoid().view(heads, SKILLS)
        w = gates / (gates.sum(-1, keepdim=True) + 1e-8)
        a = torch.einsum("qe,eqdr->qdr", w, state[f"model.{path}.experts.lora_a"])
        b = torch.einsum("qe,erqd->rqd", w, state[f"model.{path}.experts.lora_b"])
        a, b = a.flatten(0, 1), b.flatten(1, 2)
        return lambda x: 8.0 * (x @ a) @ b

    return {path: delta(path) for path in logits}


@pytest.mark.parametrize("case", STACKED)
def test_a_stacked_bank_computes_what_the_equations_say(case: str, tmp_path: Path):
    family, heads, granularity = STACKED[case]
    state, logits = stacked_state(family, heads, granularity)
    selector = POLY | {"n_splits": heads, "router_granularity": granularity}
    experts = [SKILLED | {"n_splits": heads}] * SKILLS
    folder = write_model(tmp_path / "model", state, selector, experts)
    found = imported(family, folder)
    suffixes = ["-task-0", "-task-1", "-task-default"]
    assert list(found) == ["-bank", *suffixes]
    for row, suffix in enumerate(suffixes):
        expected = expected_logits(family, stacked_deltas(state, logits, row, heads))
        ours = our_logits(family, found[suffix], found["-bank"])
        torch.testing.assert_close(ours, expected, atol=TOLERANCE, rtol=0)
    named = [found[suffix].manifest.provenance["imported"]["task"] for suffix in suffixes]
    assert named == ["rte", "cb", "any task that is not known"]


def test_experts_that_are_not_stacked_become_one_bank_in_their_order(tmp_path: Path):
    modules = adapted_modules("t5")
    generator = torch.Generator().manual_seed(8)
    weights = [expert_weights("t5", seed) for seed in range(SKILLS)]
    state, logits = {}, {}
    for path in modules:
        for index, one in enumerate(weights):
            for end in ("lora_a", "lora_b"):
                state[f"model.{path}.experts.skill{index}.{end}"] = one[f"{path}.{end}"]
        logits[path] = 3 * draw(generator, 1, SKILLS)
        state[f"model.{path}.selector.module_logits"] = logits[path]
    selector = POLY | {"n_splits": 1, "task_names": None}
    several = {
        "class_name": "mttl.models.containers.selectors.base.MultiSelectorConfig",
        "selectors": {"lora": selector},
    }
    configs = [LORA, LORA | {"lora_alpha": 99.0}, LORA]
    folder = write_model(tmp_path / "model", state, several, configs)
    found = imported("t5", folder)
    assert list(found) == ["-bank", "-task-0"]

    def delta(path: str) -> Any:
        w = logits[path][0].sigmoid()
        w = w / w.sum()
        a = sum(w[k] * weights[k][f"{path}.lora_a"] for k in range(SKILLS))
        b = sum(w[k] * weights[k][f"{path}.lora_b"] for k in range(SKILLS))
        return lambda x: 8.0 * (x @ a) @ b

    expected = expected_logits("t5", {path: delta(path) for path in modules})
    ours = our_logits("t5", found["-task-0"], found["-bank"])
    torch.testing.assert_close(ours, expected, atol=TOLERANCE, rtol=0)
    notes = [note.message for note in verdict("t5", folder).notes]
    assert any("mttl scales all by the first's, 16.0" in note for note in notes)


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_every_expert_of_a_library_is_an_adapter_of_its_own(family: str, tmp_path: Path):
    weights = {name: expert_weights(family, seed) for seed, name in enumerate(("Wiki QA", "rte"))}
    for name, one in weights.items():
        write_expert(tmp_path / "library", name, one)
    write_expert(tmp_path / "library", "gone", weights["rte"], expert_deleted=True)
    found = imported(family, tmp_path / "library")
    assert set(found) == {"-wiki-qa", "-rte"}
    for name, suffix in (("Wiki QA", "-wiki-qa"), ("rte", "-rte")):
        expected = expected_logits(family, expert_deltas(weights[name]))
        ours = our_logits(family, found[suffix])
        torch.testing.assert_close(ours, expected, atol=TOLERANCE, rtol=0)
        assert found[suffix].manifest.provenance["imported"]["task"] == f"task of {name}"


def test_a_pickled_library_is_converted_without_what_lies_beside_its_experts(tmp_path: Path):
    folder = tmp_path / "library"
    folder.mkdir()
    weights = expert_weights("llama", 4)
    torch.save(weights, folder / "rte.ckpt")
    legacy = {"model_modifier": "lora", "lora_rank": 2, "lora_alpha": 4, "dataset": "flan"}
    info = {"expert_name": "rte", "expert_config": legacy, "expert_task_name": "rte"}
    torch.save(info, folder / "rte.meta")
    torch.save({"config": object, "data": torch.ones(3)}, folder / "rte.embeddings.bin")
    assert verdict("llama", folder).reasons[0].code == "unsafe"
    made = converted(folder)
    assert sorted(path.name for path in made.iterdir()) == ["rte.meta.json", "rte.safetensors"]
    found = imported("llama", made)
    expected = expected_logits("llama", expert_deltas(weights, scale=2.0))
    torch.testing.assert_close(our_logits("llama", found[""]), expected, atol=TOLERANCE, rtol=0)


def _lightning(weights: Tensors, info: dict[str, Any]) -> dict[str, Any]:
    state = {f"model.{name}": value for name, value in weights.items()}
    return {"state_dict": state, "hyper_parameters": {"seed": 1}, "expert_info": info}


def _dump(weights: Tensors, info: dict[str, Any]) -> dict[str, Any]:
    return {"expert_weights": weights, "expert_info": info, "expert_optimizer_state": None}


@pytest.mark.parametrize("write", [_lightning, _dump])
def test_one_experts_checkpoint_is_an_adapter(write: Any, tmp_path: Path):
    weights = expert_weights("t5", 6)
    info = {"expert_name": "rte", "expert_task_name": "entailment", "expert_config": LORA}
    folder = tmp_path / "run"
    folder.mkdir()
    torch.save(write(weights, info), folder / "checkpoint.ckpt")
    found = imported("t5", converted(folder))
    expected = expected_logits("t5", expert_deltas(weights))
    torch.testing.assert_close(our_logits("t5", found[""]), expected, atol=TOLERANCE, rtol=0)
    assert found[""].manifest.signature.description == "entailment"


def test_an_expert_models_folder_is_an_adapter(tmp_path: Path):
    weights = expert_weights("t5", 6)
    folder = tmp_path / "run"
    folder.mkdir()
    config = {
        "class_name": "mttl.models.expert_model.ExpertModelConfig",
        "base_model": "google/t5-v1_1-small",
        "task_name": "entailment",
        "expert_name": "rte",
        "modifier_config": LORA,
    }
    (folder / "mttl_config.json").write_text(json.dumps(config))
    torch.save({f"model.{name}": one for name, one in weights.items()}, folder / "mttl_weights.bin")
    torch.save(json.dumps({"device_map": "cpu"}), folder / "loading_kwargs.json")
    torch.save({"args": object}, folder / "mttl_args.bin")
    assert verdict("t5", folder).reasons[0].code == "unsafe"
    made = converted(folder)
    assert sorted(path.name for path in made.iterdir()) == [
        "mttl_config.json", "mttl_weights.safetensors",
    ]  # fmt: skip
    found = imported("t5", made)
    expected = expected_logits("t5", expert_deltas(weights))
    torch.testing.assert_close(our_logits("t5", found[""]), expected, atol=TOLERANCE, rtol=0)
