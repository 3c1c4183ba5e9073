"""Compilation: what a run publishes computes exactly what the training model computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from published_kit import Published
from training_kit import opinion_task, save_tiny_bert, tiny_recipe

from adapters_store.artefact import load_tensors
from adapters_store.backbone import Backbone
from adapters_store.canonical import canonical_json, digest_of
from adapters_store.errors import IncompatibleError, UsageError
from adapters_store.ledger.lineage import lineage_of
from training import backbones
from training.compile import compile_bank, compile_task, signature
from training.export import export_backbone
from training.methods import MethodConfig
from training.methods.routing import bin_of, sigmoid_gate
from training.model import AdaptedModel
from training.provenance import data_digest, versions
from training.publish import publish_run, run_artefacts
from training.recipe import BackboneSection
from training.restore import read_logits, restore
from training.run import Run


def plain(published: Published, dtype: torch.dtype = torch.float32) -> object:
    """The exported backbone, loaded as a user would."""
    return backbones.load_model(
        BackboneSection(source=str(published.folder / "backbone")), "text2text"
    ).to(dtype)


@pytest.mark.parametrize("form", ["routing", "adapter"])
def test_an_artefact_computes_what_the_training_model_computes(
    published: Published, form: str
) -> None:
    run, backbone = published.run, published.backbone
    bank, tasks = run_artefacts(run, published.folder, backbone, form)  # type: ignore[arg-type]
    for index, task in enumerate(run.tasks):
        batch = run.objective.collate([(index, example) for example in task.dev])
        with torch.no_grad():
            expected = run.model(**batch).logits
            restored = restore(plain(published), backbone, tasks[task.name], bank)
            batch["task_of_row"].zero_()
            found = restored(**batch).logits
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_a_run_publishes_its_bank_and_every_task_under_the_tenant(published: Published) -> None:
    listed = {version.full_name: version for version in published.store.list(tenant="acme")}
    names = {"acme/bank", *(f"acme/{task.name}" for task in published.run.tasks)}
    assert set(listed) == names
    bank = listed["acme/bank"]
    assert {v.bank for name, v in listed.items() if name != "acme/bank"} == {bank.digest}
    manifest = listed["acme/kv-city"].manifest
    assert manifest.provenance["steps"] == 4
    recipe = published.run.recipe
    stated = lineage_of(manifest.provenance)
    assert stated is not None
    assert stated.seed == recipe.train.seed
    assert stated.data_digest == data_digest(published.run.tasks)
    assert stated.config_digest == digest_of(canonical_json(recipe.model_dump(mode="json")))
    assert stated.versions == versions()
    assert manifest.signature is not None
    assert manifest.signature.examples[0].input == published.run.tasks[0].dev[0].input
    assert [r.name for r in published.store.backbones()] == ["tiny"]


def test_publishing_again_changes_nothing(published: Published) -> None:
    before = [v.reference for v in published.store.list(tenant="acme")]
    publish_run(published.folder, published.store, "acme", dtype=torch.float32)
    assert [v.reference for v in published.store.list(tenant="acme")] == before


def test_the_exported_backbone_has_the_weights_without_the_method(published: Published) -> None:
    own = published.run.model.model.state_dict()
    for name, tensor in plain(published).state_dict().items():  # type: ignore[attr-defined]
        at_site = name.replace(".weight", ".base.weight")
        torch.testing.assert_close(tensor, own[at_site if at_site in own else name])
    tokenizer = backbones.load_tokenizer(BackboneSection(source=str(published.folder / "backbone")))
    assert tokenizer("é")["input_ids"] == published.run.tokenizer("é")["input_ids"]


def test_a_bfloat16_export_is_another_backbone(published: Published, tmp_path: Path) -> None:
    run = published.run
    small = export_backbone(run.model, run.tokenizer, tmp_path / "half", name="half")
    assert small.fingerprint != published.backbone.fingerprint
    artefact = published.artefact("kv-city")
    with pytest.raises(IncompatibleError, match="for backbone"):
        restore(plain(published), small, artefact, published.artefact("bank"))


def test_a_routing_without_its_bank_and_a_bank_alone_are_no_task(published: Published) -> None:
    backbone, bank = published.backbone, published.artefact("bank")
    with pytest.raises(UsageError, match="needs its bank"):
        restore(plain(published), backbone, published.artefact("kv-city"))
    with pytest.raises(UsageError, match="no task"):
        restore(plain(published), backbone, bank)
    lora = Run.build(tiny_recipe("lora"))
    with pytest.raises(UsageError, match="has no bank"):
        compile_bank(lora.model, backbone)


def test_scale_and_head_survive_compilation(tmp_path: Path) -> None:
    backbone = Backbone.from_folder(save_tiny_bert(tmp_path / "bert"))
    section = BackboneSection(source=str(backbone.folder))
    model = AdaptedModel.build(
        backbones.load_model(section, "classification"),
        list(backbone.sites.values()),
        MethodConfig("mhr", rank=2, alpha=6.0, num_skills=3, num_heads=4, num_tasks=2),
        num_labels=[2, 3],
    ).eval()
    for name, parameter in model.named_parameters():
        if ".method." in name:
            torch.nn.init.normal_(parameter, std=0.3)
    about = signature(opinion_task(), "classification", (16, 0))
    bank = compile_bank(model, backbone)
    inputs = {"input_ids": torch.tensor([[2, 5, 9, 3]]), "attention_mask": torch.ones(1, 4).long()}
    with torch.no_grad():
        expected = model(torch.tensor([0]), **inputs).last_hidden_state
        for artefact in (
            compile_task(model, 0, backbone, about, bank=bank),
            compile_task(model, 0, backbone, about),
        ):
            fresh = backbones.load_model(section, "classification")
            restored = restore(fresh, backbone, artefact, bank)
            found = restored(torch.tensor([0]), **inputs).last_hidden_state
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
            assert torch.equal(restored.head(0).weight, model.head(0).weight)
    assert {part.scale for part in bank.manifest.bank_parts} == {3.0}


@pytest.mark.parametrize(
    ("granularity", "gate"), [("layer", "sigmoid"), ("stack", "softmax"), ("block", "sigmoid")]
)
def test_a_shared_router_is_published_for_every_site_and_adapted_from(
    tmp_path: Path, granularity: str, gate: str
) -> None:
    recipe = tiny_recipe(router_learning_rate=1.0)
    update = {"granularity": granularity, "gate": gate}
    recipe = recipe.model_copy(update={"method": recipe.method.model_copy(update=update)})
    Run.build(recipe).train(tmp_path)
    run = Run.restored(tmp_path)
    backbone = export_backbone(run.model, run.tokenizer, tmp_path / "model", dtype=torch.float32)
    bank, tasks = run_artefacts(run, tmp_path, backbone)
    assert bank is not None
    section = BackboneSection(source=str(backbone.folder))
    for index, task in enumerate(run.tasks):
        artefact, tensors = tasks[task.name], load_tensors(tasks[task.name])
        part = artefact.manifest.routing_part
        assert part is not None
        bins: dict[str, torch.Tensor] = {}
        for name, weights in zip(part.sites, tensors["routing/weights"], strict=True):
            router = run.model.site_methods()[name].router  # type: ignore[union-attr]
            torch.testing.assert_close(weights, router(torch.tensor([index]))[0])
            first = bins.setdefault(bin_of(backbone.sites[name], granularity), weights)  # type: ignore[arg-type]
            assert torch.equal(weights, first)
        batch = run.objective.collate([(index, example) for example in task.dev])
        with torch.no_grad():
            expected = run.model(**batch).logits
            batch["task_of_row"].zero_()
            restored = restore(backbones.load_model(section, "text2text"), backbone, artefact, bank)
            torch.testing.assert_close(restored(**batch).logits, expected, atol=1e-6, rtol=0)
        logits = read_logits(artefact, bank)
        torch.testing.assert_close(
            sigmoid_gate(logits), tensors["routing/weights"], atol=1e-4, rtol=0
        )
        if gate == "sigmoid":
            assert torch.equal(logits, tensors["routing/logits"])
