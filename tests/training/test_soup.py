"""A soup: updates averaged by learnt weights, from the uniform average to one exact adapter."""

from __future__ import annotations

import pytest
import torch
from published_kit import Published
from store_kit import low_rank
from test_adapt import CONFIG

from adapters_store.artefact import Artefact
from adapters_store.errors import UsageError
from adapters_store.families import Site
from adapters_store.ledger.lineage import lineage_of
from training.adapt import AdaptConfig, Teacher
from training.evaluation import artefact_accuracy
from training.library import library_bank
from training.methods.soup import SoupSite
from training.recipe import TasksSection
from training.restore import read_pairs
from training.sources import suite_task
from training.starts import start

IN, OUT = 12, 8
SITE = Site("encoder.0.self.q", "q", IN, OUT)


def soup(num_adapters: int, rank: int, scale: float = 0.5) -> SoupSite:
    torch.manual_seed(0)
    a, b = torch.randn(num_adapters, IN, rank), torch.randn(num_adapters, rank, OUT)
    return SoupSite(SITE, a, b, scale)


def update(method: SoupSite) -> torch.Tensor:
    """What the site adds, as a matrix, from the parts that it keeps."""
    a = method.a[0].view(IN, len(method.b), -1)
    each = torch.stack([a[:, k] @ method.b[k] for k in range(len(method.b))])
    return method.scale * torch.einsum("k,kio->io", torch.softmax(method.logits, 0), each)


def compiled(method: SoupSite) -> tuple[int, torch.Tensor]:
    part, tensors = method.compile_task(0)
    stem = f"{SITE.name}/low_rank"
    return part.rank, part.scale * tensors[f"{stem}/a"] @ tensors[f"{stem}/b"]


@pytest.mark.parametrize(("num_adapters", "rank", "kept"), [(3, 2, 6), (4, 2, 8), (5, 3, OUT)])
def test_it_is_compiled_exactly_whatever_its_rank(num_adapters, rank, kept) -> None:
    method = soup(num_adapters, rank)
    with torch.no_grad():
        method.logits.normal_()
        found_rank, found = compiled(method)
        assert found_rank == kept
        torch.testing.assert_close(found, update(method), atol=1e-5, rtol=1e-5)
        x = torch.randn(2, 3, IN)
        base = torch.nn.Linear(IN, OUT)
        applied = method.effect(torch.tensor([0])).apply(x, base)
        torch.testing.assert_close(applied, base(x) + x @ found, atol=1e-5, rtol=1e-5)


def test_it_starts_at_the_mean_update_and_finds_the_adapter_that_fits() -> None:
    method = soup(3, 2)
    a = method.a[0].view(IN, 3, -1)
    each = [0.5 * a[:, k] @ method.b[k] for k in range(3)]
    torch.testing.assert_close(update(method), sum(each) / 3)
    assert [name for name, _ in method.named_parameters()] == ["logits"]
    optimizer = torch.optim.AdamW(method.parameters(), lr=0.1, weight_decay=0.0)
    for _ in range(300):
        optimizer.zero_grad()
        (update(method) - each[1]).square().mean().backward()
        optimizer.step()
    assert torch.softmax(method.logits, 0)[1].item() > 0.98


@pytest.fixture(scope="module")
def adapters(published: Published) -> list[Artefact]:
    return [low_rank(published.backbone, seed=seed) for seed in (1, 2, 3)]


def test_a_soup_of_a_library_is_learnt_from_few_examples(published: Published, adapters) -> None:
    teacher = Teacher.open(published.folder / "backbone")
    bank = library_bank(adapters, teacher.backbone)
    methods = start(teacher.backbone, "soup", bank, ("all",), 1)
    for site, method in methods.items():
        pair = method.factors(torch.tensor([0]))
        each = [read_pairs(one)[site] for one in adapters]
        mean = sum(scale * a @ b for a, b, scale in each) / 3
        torch.testing.assert_close(pair.scale * pair.a[0] @ pair.b[0], mean, atol=1e-5, rtol=1e-5)
    task = suite_task("phrase-kebab", TasksSection(num_train=8, num_dev=2, num_test=2))
    taught = teacher.teach(task, AdaptConfig(**{**vars(CONFIG), "mode": "soup"}), bank)
    assert taught.metrics["num_trained"] == 3 * len(methods)
    assert taught.artefact.manifest.kind == "adapter"
    stated = lineage_of(taught.artefact.manifest.provenance)
    assert stated is not None
    assert stated.parents == tuple(one.digest for one in adapters)
    score = artefact_accuracy(teacher.backbone.folder, taught.artefact, None, task.test)
    assert score == taught.metrics["test"]


def test_skills_that_are_cut_by_heads_make_no_soup(published: Published) -> None:
    with pytest.raises(UsageError, match="averages whole adapters; the bank has 4 heads"):
        start(published.backbone, "soup", published.artefact("bank"), (), 1)
