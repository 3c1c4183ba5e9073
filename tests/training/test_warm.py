"""Runs that begin with what was learnt before: at every skill, or collapsed to the average."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from published_kit import Published
from store_kit import low_rank
from test_cli_training import invoke, write_rows
from training_kit import opinion_task, save_tiny_bert, tiny_recipe

from adapters_store.artefact import write_artefact
from adapters_store.errors import IncompatibleError, UsageError
from adapters_store.store import Store
from training.cli import publish, train
from training.cli_adapt import evaluate
from training.methods.ia3 import Ia3Site
from training.methods.routing import RoutedSite
from training.recipe import BackboneSection, MethodSection, Recipe
from training.restore import read_bank
from training.run import Run


@pytest.fixture(scope="module")
def folders(published: Published, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Finished runs of several methods on the frozen published backbone."""
    found = {}
    for name in ("mhr", "mhr_ia3", "hyper"):
        found[name] = tmp_path_factory.mktemp("earlier") / name
        run = Run.build(recipe(published, name))
        torch.manual_seed(1)
        for method in run.model.site_methods().values():
            for parameter in method.parameters():  # skills of scales are alike until drawn apart
                parameter.data += 0.3 * torch.randn_like(parameter)
        run.train(found[name])
    return found


def recipe(published: Published, method: str, start: Path | None = None, **changes) -> Recipe:
    """The tiny recipe on the published backbone, which stays as it is."""
    tiny = tiny_recipe(method, learning_rate=0.05)
    backbone = BackboneSection(source=str(published.folder / "backbone"))
    told = {"start": None if start is None else str(start), **changes}
    method_section = tiny.method.model_copy(update=told)
    return tiny.model_copy(update={"backbone": backbone, "method": method_section})


def outputs(run: Run, task: int = 0) -> torch.Tensor:
    batch = run.objective.collate([(task, example) for example in run.tasks[0].dev])
    with torch.no_grad():
        return run.model(**batch).logits


def uniform(run: Run) -> Run:
    """The run with every routing at exactly the uniform mix."""
    for method in run.model.site_methods().values():
        assert isinstance(method, RoutedSite)
        method.logits.data.zero_()
    return run


@pytest.mark.parametrize(("bank", "collapsed"), [("mhr", "lora"), ("mhr_ia3", "ia3")])
@pytest.mark.parametrize("is_private", [False, True])
def test_one_adapter_begins_at_the_uniform_average_of_a_runs_bank(
    published: Published, folders, bank: str, collapsed: str, is_private: bool
) -> None:
    earlier = Run.restored(folders[bank])
    changes = {"alpha": 6.0} if collapsed == "lora" else {}
    begun = Run.build(recipe(published, collapsed, folders[bank], is_private=is_private, **changes))
    assert not torch.allclose(outputs(earlier), outputs(uniform(earlier)), atol=1e-6)
    for task in range(3):
        torch.testing.assert_close(outputs(begun, task), outputs(earlier), atol=1e-5, rtol=0)
    routing = sum(p.numel() for n, p in earlier.model.named_parameters() if n.endswith(".logits"))
    skills = earlier.model.num_trained() - routing
    assert begun.model.num_trained() == skills // 3 * (3 if is_private else 1)


def test_a_bank_goes_on_with_every_skill_and_a_fresh_routing(published: Published, folders) -> None:
    earlier = Run.restored(folders["mhr"])
    begun = Run.build(recipe(published, "mhr", folders["mhr"], alpha=4.0))
    for name, method in begun.model.site_methods().items():
        other = earlier.model.site_methods()[name]
        torch.testing.assert_close(method.a, other.a)
        torch.testing.assert_close(method.b * method.scale, other.b * other.scale)
        assert method.router.logits.abs().max() <= 1e-3
    torch.testing.assert_close(outputs(uniform(begun)), outputs(uniform(earlier)))


def test_the_collapsed_average_of_scales_is_their_mean(published: Published, folders) -> None:
    earlier = Run.restored(folders["mhr_ia3"]).model.site_methods()
    begun = Run.build(recipe(published, "ia3", folders["mhr_ia3"])).model.site_methods()
    for name, method in begun.items():
        assert isinstance(method, Ia3Site)
        torch.testing.assert_close(method.v[0], earlier[name].v.mean(1).flatten())


def test_zero_shot_mu_by_command(published: Published, tmp_path: Path) -> None:
    """A bank's average is trained on over the mix, published once, scored on a task never seen."""
    path, store, out = tmp_path / "mu.yaml", tmp_path / "store", tmp_path / "mu"
    tiny = recipe(published, "lora").model_copy(update={"name": "mu"})
    path.write_text(yaml.safe_dump(tiny.model_dump(mode="json")))
    bank = published.artefact("bank")
    with Store.open(store) as opened:
        opened.add_backbone(published.backbone)
        opened.publish("acme/bank", bank)
    in_store = ("--store", store)
    told = invoke(train, "run", path, "--out", out, "--start", "acme/bank", *in_store)
    run = Run.restored(out)
    started = read_bank(bank)
    moved = [
        (method.a[0] - started[name][0].mean(1).flatten(0, 1)).abs().max().item()
        for name, method in run.model.site_methods().items()
    ]
    assert max(moved) > 1e-3
    (line,) = invoke(publish, out, "--tenant", "acme", "--form", "shared", *in_store).splitlines()
    assert line.split()[-1] == "adapter"
    with Store.open(store) as opened:
        version = opened.resolve("acme/mu")
        assert [one.digest for one in opened.lineage("acme/mu").ancestors] == [bank.digest]
    assert "start" not in version.manifest.provenance["method"]
    rows = write_rows(tmp_path / "unseen.jsonl", "phrase-kebab", test=3)
    common = ("--backbone", published.folder / "backbone", "--data", rows, *in_store, "--json")
    assert json.loads(invoke(evaluate, "acme/mu", *common))["num_examples"] == 3
    shutil.rmtree(out / "start")
    assert invoke(train, "resume", out) == told
    torch.testing.assert_close(outputs(Run.restored(out)), outputs(run))


def test_a_run_that_trained_its_backbone_is_taken_up_on_the_one_it_published(
    published: Published, tmp_path: Path
) -> None:
    begun = Run.build(recipe(published, "lora", published.folder))
    earlier = uniform(Run.restored(published.folder))
    torch.testing.assert_close(outputs(begun), outputs(earlier), atol=1e-5, rtol=0)
    copy = tmp_path / "unpublished"
    copy.mkdir()
    for name in ("recipe.json", "checkpoint.pt"):
        shutil.copy(published.folder / name, copy / name)
    with pytest.raises(UsageError, match="has another backbone"):
        Run.build(recipe(published, "lora", copy))
    shutil.copytree(published.folder / "backbone", copy / "backbone")
    Run.build(recipe(published, "lora", copy))


def test_what_does_not_fit_is_refused(published: Published, folders, tmp_path: Path) -> None:
    def refused(match: str, method: str, source: Path, **changes) -> None:
        with pytest.raises(UsageError, match=match):
            Run.build(recipe(published, method, source, **changes))

    refused("of which .* have skills", "lora", folders["mhr"], sites=("self.q",))
    refused("a of the source is .*; the method's is", "lora", folders["mhr"], rank=3)
    refused("a of the source is .*; the method's is", "mhr", folders["mhr"], num_heads=2)
    refused("Ia3Site cannot begin with LowRankSkills", "ia3", folders["mhr"])
    refused("Ia3Site cannot begin with ScaleSkills", "ia3", folders["mhr_ia3"], side="input")
    refused("HyperSite cannot begin with", "hyper", folders["mhr"])
    refused("of which 0 have skills", "lora", folders["hyper"])
    write_artefact(low_rank(published.backbone), tmp_path / "adapter")
    refused("differ in .* sites", "lora", tmp_path / "adapter")
    sites = ("encoder.0.self.q", "encoder.1.ffn.in")
    Run.build(recipe(published, "lora", tmp_path / "adapter", sites=sites))
    scratch = tiny_recipe("lora").model_copy(
        update={"method": MethodSection(name="lora", start=str(tmp_path / "adapter"))}
    )
    with pytest.raises(UsageError, match=r"needs `backbone\.source`"):
        Run.build(scratch)
    bert = BackboneSection(source=str(save_tiny_bert(tmp_path / "bert")))
    changes = {"backbone": bert, "objective": "classification"}
    other = recipe(published, "lora", tmp_path / "adapter", sites=("self.q",))
    other = other.model_copy(update=changes)
    with pytest.raises(IncompatibleError, match="is for backbone"):
        Run.build(other, [opinion_task()])
    with pytest.raises(UsageError, match="'kv-city' has no labels to classify by"):
        Run.build(other)


@pytest.mark.parametrize("method", ["mhr", "hyper"])
def test_tasks_that_share_no_adapter_are_not_published_as_one(
    folders, tmp_path: Path, method: str
) -> None:
    with pytest.raises(UsageError, match="keeps something of its own for each task"):
        invoke(publish, folders[method], "--tenant", "a", "--form", "shared", "--store", tmp_path)
