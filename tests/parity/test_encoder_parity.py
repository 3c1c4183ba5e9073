"""Every encoder family that the engine runs against transformers, adapters merged one by one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from merged_reference import merged_model

from adapters_store.backbone import Backbone
from adapters_store.errors import UsageError
from adapters_store.families import MODEL_TYPES, load_family
from benchmarks.drive import answers
from benchmarks.synthetic import MemoryLoader, make_bank, make_lora, make_routing
from serving.engine import Engine, Request

GOLDEN = Path(__file__).parents[1] / "golden" / "families"


def _config(model_type: str) -> dict:
    return json.loads((GOLDEN / f"{model_type}.json").read_text())


ENCODERS = [
    model_type
    for model_type, name in MODEL_TYPES.items()
    if load_family(name).runner is not None
    and not load_family(name).anatomy(_config(model_type)).can_generate
]


@torch.no_grad()
def _save(model_type: str, folder: Path) -> Backbone:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(**_config(model_type))
    model = transformers.AutoModel.from_config(config)
    for parameter in model.parameters():
        parameter.normal_(0.0, 0.3)
    model.save_pretrained(folder)
    return Backbone.from_folder(folder, name="random-encoder")


def test_every_encoder_is_named():
    assert ENCODERS == ["bert", "roberta", "xlm-roberta", "distilbert"]


@pytest.mark.parametrize("model_type", ENCODERS)
def test_encoder_outputs_equal_transformers(model_type: str, tmp_path: Path):
    backbone = _save(model_type, tmp_path)
    longest = backbone.architecture.max_positions
    loader = MemoryLoader()
    lora = make_lora(backbone, rank=3, effect=0.7, num_labels=3)
    bank = make_bank(backbone, rank=2, num_skills=3, num_heads=2)
    routed = make_routing(backbone, bank, num_labels=4)
    for artefact in (lora, bank, routed):
        loader.add(artefact)
    generator = torch.Generator().manual_seed(0)
    tasks = [None, lora, routed]
    requests = []
    for i, length in enumerate((1, 2, 15, 16, 17, 40, longest, 5, 33)):
        ids = tuple(torch.randint(3, 40, (length,), generator=generator).tolist())
        task = tasks[i % 3]
        requests.append(Request(f"{i}", "embed", task.digest if task else None, ids))
    engine = Engine(backbone, loader)
    outcomes = answers(engine, requests)
    with pytest.raises(UsageError, match=f"expected 1 to {longest}"):
        engine.submit(Request("long", "embed", None, (3,) * (longest + 1)))
    engine.close()
    models = [merged_model(backbone, task, bank) for task in tasks]
    for i, request in enumerate(requests):
        with torch.inference_mode():
            hidden = models[i % 3](torch.tensor([request.input_ids])).last_hidden_state[0]
        expected = torch.nn.functional.normalize(hidden.mean(0), dim=0)
        assert outcomes[request.id].vector == pytest.approx(expected.tolist(), abs=1e-5)
