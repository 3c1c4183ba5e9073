"""A folder's own generation settings: what ``generate`` writes by them, the engine writes too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from generation_kit import VOCAB, save_generator
from merged_reference import merged_model

from adapters_store.backbone import Backbone
from adapters_store.errors import IncompatibleError
from benchmarks.drive import answers
from benchmarks.synthetic import MemoryLoader, make_lora
from serving.engine import Engine, EngineConfig, Request, Searched
from serving.engine.defaults import Defaults, generation_defaults

MAX_TOKENS = 12
LENGTHS = (1, 2, 7, 15)
SETTINGS: list[dict[str, Any]] = [
    {},
    {"forced_bos_token_id": 7, "forced_eos_token_id": 2},
    {"forced_eos_token_id": [9]},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2, "min_length": 9},
    {"no_repeat_ngram_size": 3, "repetition_penalty": 1.4, "min_new_tokens": 6},
    {"suppress_tokens": [4, 5, 6, 11], "begin_suppress_tokens": [8, 9, 12, 20]},
    {"begin_suppress_tokens": [8, 9, 12, 20], "forced_bos_token_id": 7},
    {
        "bad_words_ids": [[11], [14, 14], [3, 9], [20, 21, 22], [2]],
        "forced_bos_token_id": 3,
        "forced_eos_token_id": 2,
        "min_length": 5,
        "no_repeat_ngram_size": 3,
        "length_penalty": 2.0,
        "early_stopping": True,
    },
]


@pytest.fixture(scope="module", params=["bart", "llama"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = Path(tmp_path_factory.mktemp(request.param))
    save_generator(path, request.param, vocab_size=VOCAB)
    return path


def settled(folder: Path, said: dict[str, Any]) -> Backbone:
    """The backbone with a ``generation_config.json`` that says no more than that."""
    config = json.loads((folder / "config.json").read_text())
    own = {
        n: config[n]
        for n in ("eos_token_id", "pad_token_id", "decoder_start_token_id")
        if n in config
    }
    (folder / "generation_config.json").write_text(json.dumps(own | said))
    return Backbone.from_folder(folder, name="random-generator")


def inputs() -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(3)
    return [tuple(torch.randint(3, VOCAB, (n,), generator=generator).tolist()) for n in LENGTHS]


def reference(model: Any, ids: tuple[int, ...], **more: Any) -> list[int]:
    """What ``generate`` writes with the folder's settings, without what ends it."""
    with torch.inference_mode():
        found = model.generate(torch.tensor([ids]), max_new_tokens=MAX_TOKENS, **more)
    start = 1 if model.config.is_encoder_decoder else len(ids)
    tokens = found[0].tolist()[start:]
    end = model.generation_config.eos_token_id
    return tokens[: tokens.index(end)] if end in tokens else tokens


@pytest.mark.parametrize("said", SETTINGS, ids=lambda one: "+".join(one) or "none")
@pytest.mark.parametrize("num_beams", [1, 3])
def test_requests_that_say_nothing_write_what_generate_writes(
    folder: Path, said: dict[str, Any], num_beams: int
) -> None:
    said = said | {"num_beams": num_beams}
    backbone = settled(folder, said)
    if num_beams == 1:
        for name in ("length_penalty", "early_stopping"):
            said.pop(name, None)
    lora = make_lora(backbone, rank=3, seed=1, effect=0.5)
    loader = MemoryLoader()
    loader.add(lora)
    defaults = generation_defaults(backbone)
    assert not defaults.not_applied
    requests, expected = [], {}
    for number, artefact in enumerate((None, lora)):
        model = merged_model(backbone, artefact, None)
        model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
        for ids in inputs():
            sampling = defaults.sampling(len(ids), max_tokens=MAX_TOKENS)
            assert sampling.num_beams == num_beams
            digest = None if artefact is None else artefact.digest
            name = f"{number}-{len(ids)}"
            requests.append(Request(name, "generate", digest, ids, sampling))
            expected[name] = reference(model, ids)
    engine = Engine(backbone, loader, EngineConfig(max_rows=32))
    found = answers(engine, requests)
    engine.close()
    assert {name: one.tokens for name, one in found.items()} == expected
    if num_beams > 1:
        assert all(isinstance(one.events[0], Searched) for one in found.values())


def test_what_a_request_states_goes_before_the_defaults(folder: Path) -> None:
    said = {"num_beams": 4, "min_length": 30, "no_repeat_ngram_size": 2, "do_sample": False}
    said |= {"temperature": 0.7, "top_p": 0.9, "forced_eos_token_id": 2, "length_penalty": 2.0}
    defaults = generation_defaults(settled(folder, said))
    own = 1 if defaults.is_encoder_decoder else 5
    plain = defaults.sampling(5, max_tokens=64)
    assert (plain.num_beams, plain.temperature, plain.length_penalty) == (4, 0.0, 2.0)
    assert (plain.min_tokens, plain.no_repeat_ngram_size) == (30 - own, 2)
    assert plain.forced_eos_token_ids == (2,)
    stated = defaults.sampling(5, max_tokens=8, temperature=0.5, no_repeat_ngram_size=0)
    assert (stated.num_beams, stated.temperature, stated.top_p) == (1, 0.5, 0.9)
    assert (stated.min_tokens, stated.no_repeat_ngram_size) == (8, 0)
    assert defaults.sampling(5, max_tokens=8, ignore_eos=True).forced_eos_token_ids == ()
    sampled = generation_defaults(settled(folder, {"do_sample": True, "top_k": 7}))
    assert (sampled.sampling(1).temperature, sampled.sampling(1).top_k) == (1.0, 7)
    assert sampled.sampling(1, temperature=0.0).temperature == 0


def test_a_folder_without_the_file_is_read_from_its_configuration(folder: Path) -> None:
    (folder / "generation_config.json").unlink(missing_ok=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"no_repeat_ngram_size": 3}))
    try:
        defaults = generation_defaults(Backbone.from_folder(folder, name="random-generator"))
        assert defaults.values["no_repeat_ngram_size"] == 3
    finally:
        (folder / "config.json").write_text(json.dumps(config))


def test_what_is_not_applied_is_named_and_what_is_impossible_refused(folder: Path) -> None:
    neutral = {"typical_p": 1.0, "num_return_sequences": 1, "diversity_penalty": 0.0}
    assert generation_defaults(settled(folder, neutral)).not_applied == ()
    active = {"typical_p": 0.9, "encoder_no_repeat_ngram_size": 3, "do_sample": True}
    defaults = generation_defaults(settled(folder, active | {"num_beams": 2}))
    assert defaults.not_applied == ("do_sample", "encoder_no_repeat_ngram_size", "typical_p")
    assert isinstance(defaults, Defaults)
    wrongs: list[dict[str, Any]] = [{"top_p": 3.0}, {"num_beams": "many"}, {"bad_words_ids": 5}]
    wrongs += [{"min_length": "a"}, {"suppress_tokens": [-1]}, {"forced_bos_token_id": VOCAB}]
    for wrong in wrongs:
        with pytest.raises(IncompatibleError, match="generation settings"):
            generation_defaults(settled(folder, wrong))
