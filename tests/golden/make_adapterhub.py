"""Write golden adapters of ``adapters`` (AdapterHub): ``python make_adapterhub.py [CASE ...]``.

The library pins an older transformers than the product, so this runs in an environment of its own::

    python -m venv hubenv
    hubenv/bin/pip install adapters==1.3.0 transformers==4.57.6 torch==2.13.0

Each case becomes a folder ``adapterhub/<case>`` with ``adapter/``, as the library saves it but for
the weights, which are random, and ``expected.safetensors``: inputs and the adapted model's outputs.
Attention is eager: without a mask other implementations hide prefix rows from early queries. The
files are committed.
"""

from __future__ import annotations

import os
import shutil
import sys
import zlib
from pathlib import Path
from typing import Any

import adapters
import torch
import transformers
from adapterhub_cases import CASES, Case
from adapters import ADAPTER_CONFIG_MAP, ConfigUnion
from safetensors.torch import save_file
from transformers import PreTrainedModel

GOLDEN = Path(__file__).resolve().parent
NAME = "task"


def make(case: Case, folder: Path) -> None:
    """Write one case into ``folder``."""
    torch.manual_seed(0)
    library = adapters if case.loader == "AutoAdapterModel" else transformers
    loader = getattr(library, case.loader)
    model = loader.from_pretrained(f"backbones/{case.backbone}", attn_implementation="eager")
    if library is transformers:
        adapters.init(model)
    model.add_adapter(NAME, config=_config(case.config), set_active=True)
    if case.head:
        kind = "image_classification" if case.backbone == "vit" else "classification"
        getattr(model, f"add_{kind}_head")(NAME, overwrite_ok=True, **case.head)
    model.eval()
    randomise(model, zlib.crc32(case.name.encode()))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model.save_adapter(str(folder / "adapter"), NAME, use_safetensors=not case.is_pickle)
    inputs = make_inputs(model)
    has_logits = case.head or "SequenceClassification" in case.loader
    with torch.no_grad():
        output = (model if has_logits else model.base_model)(**inputs)
        model.set_active_adapters(None)
        plain = model.base_model(**inputs)["last_hidden_state"]
    found = output["logits" if has_logits else "last_hidden_state"]
    assert has_logits or found.shape != plain.shape or not torch.allclose(found, plain, atol=1e-3)
    expected = inputs | {"logits" if has_logits else "last_hidden_state": found.contiguous()}
    save_file(expected, folder / "expected.safetensors")


def _config(given: Any) -> Any:
    if isinstance(given, list):
        return ConfigUnion(*[_config(item) for item in given])
    name, changes = given
    return ADAPTER_CONFIG_MAP[name].replace(**changes)


def randomise(model: PreTrainedModel, seed: int) -> None:
    """Give every parameter of the adapter and of heads random values, gains around 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if f".{NAME}." not in f".{name}." and not name.startswith(("classifier.", "score.")):
            continue
        draw = torch.randn(parameter.shape, generator=generator)
        is_gain = parameter.dim() == 1 and bool((parameter == 1).all())
        parameter.data = 0.2 * draw + 1.0 if is_gain else 0.25 * draw


def make_inputs(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Two rows; one is shorter where the model sees positions through its mask alone."""
    config, generator = model.config, torch.Generator().manual_seed(1)
    if config.model_type == "vit":
        shape = (2, config.num_channels, config.image_size, config.image_size)
        return {"pixel_values": torch.randn(shape, generator=generator)}
    ids = torch.randint(3, config.vocab_size, (2, 7), generator=generator)
    mask = torch.ones_like(ids)
    if config.model_type not in ("gpt2", "llama", "mistral"):
        ids[1, 5:], mask[1, 5:] = config.pad_token_id, 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    if config.is_encoder_decoder:
        ids = torch.randint(3, config.vocab_size, (2, 4), generator=generator)
        inputs["decoder_input_ids"] = ids
    return inputs


if __name__ == "__main__":
    os.chdir(GOLDEN)
    for case_name in sys.argv[1:] or CASES:
        make(CASES[case_name], GOLDEN / "adapterhub" / case_name)
        print(case_name)
