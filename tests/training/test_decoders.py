"""Decoders learn text to text: the target continues the prompt, Conv1D maps adapt like Linear."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters_store.backbone import Backbone
from adapters_store.errors import TrainingError, UsageError
from training import backbones
from training.adapt import AdaptConfig, Teacher
from training.compile import bank_sites, compile_bank, compile_task, signature
from training.evaluation import artefact_accuracy
from training.export import export_backbone, plain_weights
from training.objectives.continuation import Continuation
from training.recipe import BackboneSection, MethodSection, Recipe, TrainSection
from training.restore import read_logits, restore
from training.run import Run
from training.suite import Example
from training.task import Task

GOLDEN = Path(__file__).parents[1] / "golden" / "families"
ROOM = {"vocab_size": 384, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1}


@dataclass(frozen=True)
class Trained:
    """A run with its exported backbone and the weights that it began with."""

    run: Run
    backbone: Backbone
    folder: Path
    before: dict[str, torch.Tensor]


def scratch(model_type: str) -> dict[str, Any]:
    """A tiny model of that type with room for byte tokens."""
    config: dict[str, Any] = json.loads((GOLDEN / f"{model_type}.json").read_text())
    return config | ROOM


def vowel_task() -> Task:
    """One letter in, whether it is a vowel out."""
    rows = [Example(letter, "y" if letter in "aeiou" else "n") for letter in "abcdefghijkl"]
    return Task("vowel", train=rows, dev=rows, test=rows)


def recipe(model_type: str, method: str, steps: int) -> Recipe:
    """A run on a frozen random decoder."""
    return Recipe(
        name="decoder",
        backbone=BackboneSection(scratch=scratch(model_type), tokenizer="bytes"),
        method=MethodSection(name=method, rank=4, num_skills=3, num_heads=4),
        train=TrainSection(steps=steps, rows_per_step=12, learning_rate=2e-2, log_every=1, seed=3),
        max_input_tokens=8,
        max_output_tokens=4,
    )


@pytest.fixture(scope="module", params=[(t, m) for t in ("llama", "gpt2") for m in ("lora", "mhr")])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A finished run on a frozen decoder, with its backbone exported in float32."""
    folder = tmp_path_factory.mktemp("decoder")
    run = Run.build(recipe(*request.param, steps=60), [vowel_task()])
    before = {name: one.clone() for name, one in plain_weights(run.model).items()}
    run.train(folder)
    backbone = export_backbone(run.model, run.tokenizer, folder / "plain", dtype=torch.float32)
    return Trained(run, backbone, folder, before)


def test_a_decoder_learns_a_task_on_its_frozen_weights(trained: Trained) -> None:
    losses = [
        entry["loss"]
        for entry in map(json.loads, (trained.folder / "log.jsonl").read_text().splitlines())
        if "loss" in entry
    ]
    assert losses[-1] < losses[0] - 0.3
    assert trained.run.dev_scores(12) == {"vowel": 1.0}
    after = plain_weights(trained.run.model)
    assert after.keys() == trained.before.keys()
    assert all(torch.equal(after[name], one) for name, one in trained.before.items())


def test_an_exported_decoder_has_the_names_of_the_plain_model(trained: Trained) -> None:
    section = BackboneSection(source=str(trained.backbone.folder))
    loaded = backbones.load_model(section, "text2text")
    assert set(plain_weights(trained.run.model)) == set(loaded.state_dict())
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, trained.before[name])


def test_a_compiled_task_computes_what_the_run_computes(trained: Trained) -> None:
    run, backbone = trained.run, trained.backbone
    about = signature(run.tasks[0], "text2text", (8, 4))
    bank = compile_bank(run.model, backbone) if bank_sites(run.model) else None
    task = compile_task(run.model, 0, backbone, about, bank=bank)
    assert task.manifest.kind == ("routing" if bank else "adapter")
    batch = run.objective.collate([(0, example) for example in run.tasks[0].dev])
    section = BackboneSection(source=str(backbone.folder))
    for artefact in (task, compile_task(run.model, 0, backbone, about)):
        fresh = backbones.load_model(section, "text2text")
        with torch.no_grad():
            expected = run.model(**batch).logits
            found = restore(fresh, backbone, artefact, bank)(**batch).logits
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert artefact_accuracy(backbone.folder, task, bank, run.tasks[0].test) == 1.0


def test_a_prediction_does_not_depend_on_the_padding_beside_it(trained: Trained) -> None:
    run = trained.run
    examples = [Example(text, "y") for text in ("a", "bcdef", "bc")]
    together = run.objective.predict(run.model, 0, examples)
    alone = [run.objective.predict(run.model, 0, [example])[0] for example in examples]
    assert together == alone


def test_a_published_decoder_is_taught_another_task(trained: Trained) -> None:
    teacher = Teacher.open(trained.backbone.folder)
    assert teacher.kind == "text2text"
    config = AdaptConfig(
        mode="lora",
        steps=120,
        rows_per_step=12,
        learning_rate=2e-2,
        rank=4,
        max_input_tokens=8,
        max_output_tokens=4,
    )
    taught = teacher.teach(vowel_task(), config)
    assert taught.metrics["test"] == 1.0


def test_a_row_is_the_prompt_then_the_target_and_the_end() -> None:
    tokenizer = backbones.load_tokenizer(BackboneSection(tokenizer="bytes"))
    objective = Continuation(tokenizer, max_input_tokens=4, max_output_tokens=3)
    batch = objective.collate([(1, Example("ab", "c")), (0, Example("d", "ef"))])
    a, b, c, d, e, f = (ord(letter) + 3 for letter in "abcdef")
    assert batch["input_ids"].tolist() == [[a, b, 1, c, 1], [d, 1, e, f, 1]]
    assert batch["labels"].tolist() == [[-100, -100, -100, c, 1], [-100, -100, e, f, 1]]
    assert batch["attention_mask"].tolist() == [[1] * 5, [1] * 5]
    assert batch["task_of_row"].tolist() == [1, 0]
    short = objective.collate([(0, Example("a", "c")), (0, Example("abc", "c"))])
    assert short["input_ids"].tolist()[0] == [a, 1, c, 1, 0, 0]
    assert short["labels"].tolist()[0] == [-100, -100, c, 1, -100, -100]
    assert short["attention_mask"].tolist()[0] == [1, 1, 1, 1, 0, 0]
    tokenizer.pad_token = None
    padded = objective.collate([(0, Example("a", "c")), (0, Example("abc", "c"))])
    assert padded["input_ids"].tolist()[0] == [a, 1, c, 1, 1, 1]
    assert padded["attention_mask"].tolist()[0] == [1, 1, 1, 1, 0, 0]


def test_what_does_not_fit_a_row_is_refused() -> None:
    tokenizer = backbones.load_tokenizer(BackboneSection(tokenizer="bytes"))
    objective = Continuation(tokenizer, max_input_tokens=4, max_output_tokens=3)
    with pytest.raises(TrainingError, match="input of 6 tokens is over the limit of 4"):
        objective.collate([(0, Example("abcde", "c"))])
    with pytest.raises(TrainingError, match="output of 4 tokens is over the limit of 3"):
        objective.collate([(0, Example("ab", "cde"))])
    tokenizer.eos_token = None
    with pytest.raises(TrainingError, match="no end token"):
        objective.collate([(0, Example("ab", "c"))])
    with pytest.raises(TrainingError, match="an input has no tokens"):
        Continuation(lambda _: {"input_ids": []}).collate([(0, Example("", "c"))])


@pytest.mark.parametrize(
    ("model_type", "objective", "words"),
    [
        ("bert", "text2text", "writes no text"),
        ("bart", "classification", "is an encoder-decoder"),
        ("vit", "classification", "reads patches"),
        ("audio-spectrogram-transformer", "text2text", "reads patches"),
    ],
)
def test_an_objective_that_the_backbone_cannot_learn_is_refused(
    model_type: str, objective: str, words: str
) -> None:
    config = json.loads((GOLDEN / f"{model_type}.json").read_text())
    with pytest.raises(UsageError, match=words):
        backbones.load_model(BackboneSection(scratch=config), objective)


def test_a_decoder_can_start_from_the_neighbour_that_reads_alike(tmp_path: Path) -> None:
    run = Run.build(recipe("gpt2", "mhr", 1), [vowel_task()])
    run.train(tmp_path)
    backbone = export_backbone(run.model, run.tokenizer, tmp_path / "m", dtype=torch.float32)
    bank = compile_bank(run.model, backbone)
    about = signature(vowel_task(), "text2text", (8, 2))
    seen = compile_task(run.model, 0, backbone, about, bank=bank)
    config = AdaptConfig(init="embedding", steps=1, router_learning_rate=1e-9)
    taught = Teacher.open(backbone.folder).teach(vowel_task(), config, bank, [seen])
    torch.testing.assert_close(read_logits(taught.artefact, bank), read_logits(seen, bank))
