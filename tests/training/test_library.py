"""A library as a bank: its skills are the adapters, its average a routing, Arrow needs no data."""

from __future__ import annotations

import pytest
import torch
from store_kit import low_rank, save_t5
from transformers import T5ForConditionalGeneration

from adapters_store.artefact import load_tensors
from adapters_store.backbone import Backbone
from adapters_store.errors import IncompatibleError, UsageError
from adapters_store.manifest import TaskSignature
from training.injection import eject
from training.library import arrow_model, average_routing, library_bank, prototypes
from training.methods.mhr import compose
from training.restore import read_bank, read_pairs, restore

INPUTS = {"input_ids": torch.tensor([[3, 4, 5, 6]]), "labels": torch.tensor([[7, 8]])}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> Backbone:
    return Backbone.from_folder(save_t5(tmp_path_factory.mktemp("models") / "t5"))


@pytest.fixture
def model(backbone: Backbone) -> T5ForConditionalGeneration:
    return T5ForConditionalGeneration.from_pretrained(backbone.folder).eval()


@pytest.fixture(scope="module")
def adapters(backbone: Backbone):
    return [low_rank(backbone, seed=seed) for seed in (1, 2, 3)]


def logits(adapted) -> torch.Tensor:
    with torch.no_grad():
        return adapted(torch.tensor([0]), **INPUTS).logits


def test_one_hot_routing_over_the_library_is_the_adapter(backbone, adapters) -> None:
    bank = read_bank(library_bank(adapters, backbone))
    for number, adapter in enumerate(adapters):
        one_hot = torch.eye(3)[number].view(1, 1, 3)
        for site, (a, b, scale) in read_pairs(adapter).items():
            found_a, found_b = compose(one_hot, *bank[site][:2])
            torch.testing.assert_close(
                found_a[0] @ found_b[0] * bank[site][2], a @ b * scale, atol=1e-6, rtol=1e-6
            )


def test_uniform_routing_is_the_mean_of_the_factors(backbone, adapters, model) -> None:
    bank = library_bank(adapters, backbone)
    routing = average_routing(bank, backbone, TaskSignature(task="text2text"))
    assert routing.manifest.bank == bank.digest
    weights = load_tensors(routing)["routing/weights"]
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 3))
    adapted = restore(model, backbone, routing, bank)
    site = next(iter(adapted.sites.values())).method
    pairs = [read_pairs(adapter)[site.site.name] for adapter in adapters]
    torch.testing.assert_close(site.a, torch.stack([p[0] for p in pairs]).mean(0))
    torch.testing.assert_close(site.b, torch.stack([p[1] * p[2] for p in pairs]).mean(0))


def test_a_prototype_is_the_direction_that_the_update_stretches_most() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(4, 12, 3), torch.randn(4, 3, 8)
    for found, one_a, one_b in zip(prototypes(a, b), a, b):
        update = one_a @ one_b
        top = torch.linalg.svd(update.T).Vh[0]
        assert abs(float(found @ top)) == pytest.approx(1.0, abs=1e-5)
        assert float((found @ update).norm()) == pytest.approx(
            float(torch.linalg.matrix_norm(update, 2)), rel=1e-5
        )


def test_arrow_over_one_adapter_is_that_adapter(backbone, adapters, model) -> None:
    alone = restore(model, backbone, adapters[0])
    expected = logits(alone)
    eject(model, alone.sites)
    routed = arrow_model(model, backbone, library_bank(adapters[:1], backbone))
    torch.testing.assert_close(logits(routed), expected, atol=1e-5, rtol=1e-5)


def test_arrow_over_several_differs_from_each_and_cannot_be_compiled(
    backbone, adapters, model
) -> None:
    routed = arrow_model(model, backbone, library_bank(adapters, backbone), top_k=2)
    assert torch.isfinite(logits(routed)).all()
    with pytest.raises(UsageError, match="no primitive can hold"):
        next(iter(routed.site_methods().values())).compile_task(0)


def test_other_sites_other_backbones_and_nothing_are_refused(backbone, adapters, tmp_path) -> None:
    with pytest.raises(UsageError, match="at least one adapter"):
        library_bank([], backbone)
    elsewhere = low_rank(backbone, sites=("encoder.0.self.v",))
    with pytest.raises(IncompatibleError, match="adapter 1 has sites"):
        library_bank([adapters[0], elsewhere], backbone)
    other = Backbone.from_folder(save_t5(tmp_path / "other", seed=9))
    with pytest.raises(IncompatibleError, match="for backbone"):
        library_bank([low_rank(other)], backbone)
