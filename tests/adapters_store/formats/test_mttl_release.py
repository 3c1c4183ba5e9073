"""Checkpoints of the MHR paper's release compute here what its equations say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mttl_kit import (
    RELEASE,
    adapted_modules,
    converted,
    draw,
    expected_logits,
    imported,
    names_of,
    our_logits,
    poly_weights,
    release_deltas,
    release_state,
    verdict,
    write_pickled_release,
    write_release,
)
from safetensors.torch import load_file

from adapters_store.artefact import load_tensors
from adapters_store.formats import ImportOptions

TOLERANCE = 1e-5
SHAPES = {
    "T5, one head": ("t5", {"n_splits": 1}),
    "T5, as many heads as skills": ("t5", {"n_splits": 4, "n_skills": 4}),
    "T5, by layer": ("t5", {"router_granularity": "layerwise"}),
    "T5, by block": ("t5", {"router_granularity": "blockwise"}),
    "T5, by stack": ("t5", {"router_granularity": "coderwise"}),
    "T5, one selector": ("t5", {"router_granularity": "coarsegrained"}),
    "Llama, one head": ("llama", {"n_splits": 1, "model_modifier": "poly"}),
    "Llama, heads": ("llama", {"n_splits": 8, "lora_alpha": 1.0, "lora_rank": 1}),
    "Llama, one selector": ("llama", {"router_granularity": "coarsegrained"}),
}


@pytest.mark.parametrize("case", SHAPES)
def test_every_task_computes_what_the_equations_say(case: str, tmp_path: Path):
    family, changes = SHAPES[case]
    options = RELEASE | changes
    state, logits = release_state(family, options)
    folder = write_release(tmp_path / "run", state, options)
    found = imported(family, folder)
    assert set(found) == {"-bank", *(f"-task-{task}" for task in range(3))}
    for task in range(3):
        weights = poly_weights(logits, task, options["n_splits"])
        expected = expected_logits(family, release_deltas(state, weights, options))
        routed = our_logits(family, found[f"-task-{task}"], found["-bank"])
        torch.testing.assert_close(routed, expected, atol=TOLERANCE, rtol=0)
        alone = imported(family, folder, ImportOptions(poly_task=task))[""]
        mixed = our_logits(family, alone)
        torch.testing.assert_close(mixed, expected, atol=TOLERANCE, rtol=0)


def _straight_through(logits: torch.Tensor) -> torch.Tensor:
    gates = torch.where(logits > 0, 1.0, 0.0)
    return gates / (gates.sum(-1, keepdim=True) + 1e-12)


def _shared_skill(logits: torch.Tensor) -> torch.Tensor:
    gates = torch.cat([logits.sigmoid()[:, :-1], torch.ones(logits.shape[0], 1)], dim=1)
    return gates / gates.sum(-1, keepdim=True)


GATES = {
    "module_logits_straight_through": _straight_through,
    "poly_use_shared_skill": _shared_skill,
    "poly_average_correction": lambda logits: logits.sigmoid() * (2**0.5) / (4**0.5),
}


@pytest.mark.parametrize("option", GATES)
def test_other_gates_give_their_weights_and_no_logits_to_train_on(option: str, tmp_path: Path):
    options = RELEASE | {option: True}
    state, logits = release_state("t5", options)
    found = imported("t5", write_release(tmp_path / "run", state, options))
    weights = {path: GATES[option](one[1].view(2, 4)) for path, one in logits.items()}
    expected = expected_logits("t5", release_deltas(state, weights, options))
    ours = our_logits("t5", found["-task-1"], found["-bank"])
    torch.testing.assert_close(ours, expected, atol=TOLERANCE, rtol=0)
    assert b"routing/logits" not in found["-task-1"].data[:2000]
    plain = release_state("t5", RELEASE)[0]
    found = imported("t5", write_release(tmp_path / "plain", plain, RELEASE))
    assert b"routing/logits" in found["-task-1"].data[:2000]


SELECTORS: dict[str, tuple[dict[str, Any], int, list[list[float]]]] = {
    "the average": ({"router_selector": "average"}, 1, [[0.25] * 4] * 2),
    "private skills": (
        {"router_selector": "", "model_modifier": "skilled", "n_splits": 1},
        3,
        [[0.0, 0.0, 1.0, 0.0]],
    ),
}


@pytest.mark.parametrize("case", SELECTORS)
def test_selectors_without_logits_have_fixed_weights(case: str, tmp_path: Path):
    changes, num_tasks, weights = SELECTORS[case]
    options = RELEASE | changes
    state, _ = release_state("llama", options)
    folder = write_release(tmp_path / "run", state, options)
    found = imported("llama", folder)
    assert set(found) == {"-bank", *(f"-task-{task}" for task in range(num_tasks))}
    fixed = dict.fromkeys(adapted_modules("llama"), torch.tensor(weights))
    expected = expected_logits("llama", release_deltas(state, fixed, options))
    ours = our_logits("llama", found[f"-task-{num_tasks - 1}"], found["-bank"])
    torch.testing.assert_close(ours, expected, atol=TOLERANCE, rtol=0)
    alone = imported("llama", folder, ImportOptions(poly_task=num_tasks - 1))[""]
    torch.testing.assert_close(our_logits("llama", alone), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("is_turned", [False, True], ids=["(in, r)", "(r, in)"])
def test_plain_lora_is_read_in_the_order_that_its_widths_tell(is_turned: bool, tmp_path: Path):
    generator = torch.Generator().manual_seed(5)
    options = RELEASE | {"model_modifier": "lora"}
    state, deltas = {}, {}
    for path, module in adapted_modules("t5").items():
        a, b = draw(generator, module.in_features, 2), draw(generator, 2, module.out_features)
        state[f"model.{path}.lora_a"] = a.T.contiguous() if is_turned else a
        state[f"model.{path}.lora_b"] = b.T.contiguous() if is_turned else b
        deltas[path] = lambda x, a=a, b=b: 1.5 * (x @ a) @ b
    found = imported("t5", write_release(tmp_path / "run", state, options))
    expected = expected_logits("t5", deltas)
    torch.testing.assert_close(our_logits("t5", found[""]), expected, atol=TOLERANCE, rtol=0)
    square = options | {"lora_rank": 32}
    state = {
        f"model.decoder.block.0.layer.0.SelfAttention.q.lora_{end}": torch.ones(32, 32)
        for end in "ab"
    }
    folder = write_release(tmp_path / "square", state, square)
    reasons = verdict("t5", folder).reasons
    assert [reason.code for reason in reasons] == ["shape_mismatch"]
    assert "none is taken for granted" in reasons[0].message


def test_bank_and_tasks_keep_what_the_checkpoint_says(tmp_path: Path):
    options = RELEASE | {"task_names": ["rte", "cb", "copa"]}
    state, logits = release_state("t5", options)
    folder = converted(write_pickled_release(tmp_path / "run", state, options))
    assert sorted(path.name for path in folder.iterdir()) == [
        "best_model.ckpt.json", "best_model.safetensors", "config.json",
    ]  # fmt: skip
    facts = json.loads((folder / "best_model.ckpt.json").read_text())
    assert facts["hyper_parameters"]["max_grad_norm"] == "<inf>"
    assert set(load_file(folder / "best_model.safetensors")) == set(state)
    inspection = verdict("t5", folder)
    assert (inspection.format, inspection.method, inspection.verdict) == (
        "mttl_mhr", "POLY", "convert",
    )  # fmt: skip
    found = imported("t5", folder)
    bank, task = found["-bank"].manifest, found["-task-1"].manifest
    assert {part.site for part in bank.bank_parts} == names_of(adapted_modules("t5"), "t5")
    assert {part.scale for part in bank.bank_parts} == {1.5}
    assert set(bank.provenance["imported"]["paths"].values()) == set(adapted_modules("t5"))
    assert task.bank == found["-bank"].digest
    assert task.provenance["imported"]["task"] == "cb"
    assert task.signature is not None
    assert task.signature.description == "cb"
    stored = torch.stack([logits[path][1].view(2, 4) for path in sorted(logits)])
    expected = poly_weights(logits, 1, 2)
    tensors = load_tensors(found["-task-1"])
    torch.testing.assert_close(tensors["routing/logits"], stored, atol=0, rtol=0)
    torch.testing.assert_close(
        tensors["routing/weights"], torch.stack([expected[path] for path in sorted(expected)])
    )


def test_options_beside_a_bare_checkpoint_are_those_of_the_run(tmp_path: Path):
    state, _ = release_state("t5", RELEASE)
    folder = tmp_path / "run"
    folder.mkdir()
    torch.save(state, folder / "best_model.ckpt")
    old = {"poly_granularity": "finegrained"} | {
        name: value
        for name, value in RELEASE.items()
        if name not in ("router_granularity", "lora_alpha", "max_grad_norm")
    }
    (folder / "config.json").write_text(json.dumps(old))
    found = imported("t5", converted(folder))
    assert {part.scale for part in found["-bank"].manifest.bank_parts} == {0.5}
