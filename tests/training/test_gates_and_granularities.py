"""Every gate at every granularity trains, resumes bit for bit, and compiles to what it computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from test_loop import train_until
from training_kit import SCRATCH, tiny_recipe

from training import backbones
from training.export import export_backbone
from training.methods.routing import GATES, Granularity
from training.publish import run_artefacts
from training.recipe import BackboneSection, Recipe
from training.restore import restore
from training.run import Run

SMALLER: dict[str, Any] = SCRATCH | {"d_model": 16, "d_ff": 16, "num_layers": 1}


def recipe(gate: str, granularity: str) -> Recipe:
    tiny = tiny_recipe(router_learning_rate=1.0)
    changes = {"gate": gate, "granularity": granularity, "sites": ("*.q", "ffn.*")}
    return tiny.model_copy(
        update={
            "backbone": BackboneSection(scratch=SMALLER, tokenizer="bytes"),
            "method": tiny.method.model_copy(update=changes),
        }
    )


@pytest.mark.parametrize("granularity", get_args(Granularity))
@pytest.mark.parametrize("gate", list(GATES))
def test_it_trains_resumes_and_compiles(gate: str, granularity: str, tmp_path: Path) -> None:
    chosen = recipe(gate, granularity)
    run = Run.build(chosen)
    fresh = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    run.train(tmp_path / "straight")
    trained = {name: p for name, p in run.model.named_parameters() if p.requires_grad}
    assert any(name.endswith(".router.logits") for name in trained)
    assert all(not torch.equal(fresh[name], p) for name, p in trained.items())
    train_until(Run.build(chosen), tmp_path / "broken", 2)
    resumed = Run.build(chosen)
    resumed.train(tmp_path / "broken")
    for name, parameter in resumed.model.named_parameters():
        assert torch.equal(parameter, dict(run.model.named_parameters())[name]), name
    folder = tmp_path / "straight"
    backbone = export_backbone(run.model, run.tokenizer, folder / "model", dtype=torch.float32)
    for form in ("routing", "adapter"):
        bank, tasks = run_artefacts(run, folder, backbone, form)  # type: ignore[arg-type]
        for index, task in enumerate(run.tasks):
            batch = run.objective.collate([(index, example) for example in task.dev])
            section = BackboneSection(source=str(backbone.folder))
            plain = backbones.load_model(section, "text2text")
            with torch.no_grad():
                expected = run.model(**batch).logits
                batch["task_of_row"].zero_()
                found = restore(plain, backbone, tasks[task.name], bank)(**batch).logits
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
