"""The bundled backbone, bank and routing: sound, small, and as good as their card says."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from adapters_store.artefact import read_artefact
from adapters_store.backbone import Backbone
from adapters_store.store import Store
from patchbay import bundled
from patchbay.tour import SHOWCASE
from serving.engine import Engine, EngineConfig, Request, Sampling, Token
from training.suite import HELD_OUT, SEEN, TASKS, generate

MAX_BACKBONE_BYTES = 25_000_000
NUM_ASKED = 3
Answers = dict[tuple[str, str], str]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone.from_folder(bundled.BACKBONE_FOLDER)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store.open(tmp_path_factory.mktemp("store"))
    bundled.register(store, ("acme", "globex"))
    return store


def ask(store: Store, backbone: Backbone, questions: list[tuple[str, str]]) -> Answers:
    """The answers of (task, input) pairs, all rows in one engine, mixed as they come."""

    class Loader:
        def load(self, digest: str):  # type: ignore[no-untyped-def]
            return store.manifest(digest), store.tensors(digest)

    names = dict(zip(bundled.task_names(), bundled.register(store, ("acme", "globex")).values()))
    tokenizer = AutoTokenizer.from_pretrained(bundled.BACKBONE_FOLDER)
    engine = Engine(backbone, Loader(), EngineConfig(num_threads=1))
    tokens: dict[str, list[int]] = {}
    for index, (task, text) in enumerate(questions):
        digest = store.resolve(names[task]).digest
        ids = tuple(tokenizer(text)["input_ids"])
        engine.submit(Request(str(index), "generate", digest, ids, Sampling(max_tokens=48)))
        tokens[str(index)] = []
    while engine.has_work:
        engine.wait(0.1)
        for event in engine.step():
            if isinstance(event, Token):
                tokens[event.id].append(event.token)
    engine.close()
    decoded = tokenizer.batch_decode(list(tokens.values()), skip_special_tokens=True)
    return dict(zip(questions, decoded))


def test_every_seen_task_is_bundled_and_no_held_out_one() -> None:
    assert set(bundled.task_names()) == set(SEEN)
    assert not set(bundled.task_names()) & set(HELD_OUT)
    assert len(SEEN) >= 32
    assert len(HELD_OUT) >= 8


def test_the_bundle_is_sound_and_belongs_together(store: Store, backbone: Backbone) -> None:
    bank = read_artefact(bundled.BANK_FOLDER)
    part = bank.manifest.bank_parts[0]
    assert (part.num_skills, part.num_heads >= 4) == (8, True)
    for name in bundled.task_names():
        routing = read_artefact(bundled.ROUTING_FOLDER / name).manifest
        assert (routing.kind, routing.bank) == ("routing", bank.digest)
        assert routing.backbone == backbone.fingerprint
    assert store.verify() == []


def test_the_backbone_is_small() -> None:
    size = sum(path.stat().st_size for path in bundled.BACKBONE_FOLDER.iterdir())
    assert size <= MAX_BACKBONE_BYTES


def test_the_card_states_good_scores_for_every_task() -> None:
    scores = json.loads((bundled.FOLDER / "scores.json").read_text(encoding="utf-8"))
    assert scores.keys() == set(SEEN)
    assert sum(scores.values()) / len(scores) >= 0.90
    assert min(scores.values()) >= 0.60
    card = (bundled.FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")
    for name, score in scores.items():
        assert f"| `{name}` | {score:.3f} |" in card


def test_unseen_inputs_of_all_tasks_are_answered_in_one_mixed_engine(
    store: Store, backbone: Backbone
) -> None:
    expected = {
        (name, example.input): example.output
        for name in SEEN
        for example in generate(name, "test", NUM_ASKED, seed=4242)
    }
    answers = ask(store, backbone, list(expected))
    right = sum(answers[question] == output for question, output in expected.items())
    assert right / len(expected) >= 0.85


def test_the_showcase_is_answered_right(store: Store, backbone: Backbone) -> None:
    cases = json.loads(SHOWCASE.read_text(encoding="utf-8"))
    assert len(cases["tasks"]) >= 12
    assert cases["held_out"]["task"] in HELD_OUT
    expected = {(case["task"], case["input"]): case["output"] for case in cases["tasks"]}
    assert ask(store, backbone, list(expected)) == expected


def test_registering_twice_changes_nothing(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        first = bundled.register(store, ("acme",))
        numbers = [store.resolve(name).number for name in first.values()]
        assert bundled.register(store, ("acme",)) == first
        assert [store.resolve(name).number for name in first.values()] == numbers
        assert len(first) == len(TASKS) - len(HELD_OUT)
