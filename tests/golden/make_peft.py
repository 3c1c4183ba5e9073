"""Write PEFT adapters with what they compute: ``python tests/golden/make_peft.py [case...]``.

Each case becomes ``tests/golden/peft/<case>/`` with ``adapter_config.json`` and
``adapter_model.safetensors`` as ``save_pretrained`` wrote them, and ``expected.safetensors`` with
the inputs and the outputs of the adapter *as PEFT loads it again* on the backbone in
``tests/golden/backbones``. Adapter weights are random, so that every tensor matters.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
import zlib
from pathlib import Path

import peft
import torch
from make_backbones import BACKBONES
from peft_cases import AUTO_MODELS, CASES, NUM_LABELS, NUM_TASKS, Case
from safetensors.torch import save_file

GOLDEN = Path(__file__).parent / "peft"
LENGTHS = (7, 4, 6)


def base_model(case: Case) -> torch.nn.Module:
    """The frozen model of a case, as a user of PEFT would load it."""
    extra = {"num_labels": NUM_LABELS} if case.task == "SEQ_CLS" else {}
    torch.manual_seed(0)
    return AUTO_MODELS[case.task].from_pretrained(BACKBONES / case.family, **extra).eval()


def inputs(case: Case) -> dict[str, torch.Tensor]:
    """Three rows padded on the right; the decoder's inputs where there is one."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(3, 64, (len(LENGTHS), max(LENGTHS)), generator=generator)
    lengths = (max(LENGTHS),) * 3 if _reads_last_position(case) else LENGTHS
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(lengths)[:, None]).long()
    found = {"input_ids": ids * mask, "attention_mask": mask}
    if case.task == "SEQ_2_SEQ_LM":
        found["decoder_input_ids"] = torch.randint(3, 64, (len(LENGTHS), 5), generator=generator)
    if case.make().peft_type == "POLY":
        found["task_ids"] = torch.arange(NUM_TASKS)
    return found


def _reads_last_position(case: Case) -> bool:
    return case.task == "SEQ_CLS" and case.family in ("llama", "gpt2", "qwen2", "gemma")


def outputs(model: torch.nn.Module, given: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits, or the last hidden state where the model has no head."""
    with torch.inference_mode():
        found = model.eval()(**given)
    return (found.logits if "logits" in found else found.last_hidden_state).contiguous()


def _randomise(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        draw = 0.3 * torch.randn(parameter.shape, generator=generator)
        is_factor = "ia3_l" in name or (parameter.dim() == 1 and bool((parameter == 1).all()))
        parameter.data = (draw + 1.0 if is_factor else draw).to(parameter.dtype)


def write(name: str, folder: Path) -> Path:
    """Make one case; returns its folder."""
    case = CASES[name]
    config = case.make()
    config.task_type = case.task
    model = peft.get_peft_model(base_model(case), config)
    _randomise(model, zlib.crc32(name.encode()))
    if case.dtype != "float32":
        for module in model.modules():
            if hasattr(module, "lora_A"):
                module.lora_A.to(getattr(torch, case.dtype))
                module.lora_B.to(getattr(torch, case.dtype))
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary)
        loaded = peft.PeftModel.from_pretrained(base_model(case), temporary)
        given = inputs(case)
        found = outputs(loaded, given)
        plain = outputs(base_model(case), {k: v for k, v in given.items() if k != "task_ids"})
        assert found.shape[-2] != plain.shape[-2] or (found - plain).abs().max() > 1e-2, name
        folder.mkdir(parents=True, exist_ok=True)
        weights = Path(temporary) / "adapter_model.safetensors"
        (folder / weights.name).write_bytes(weights.read_bytes())
        saved = json.loads((Path(temporary) / "adapter_config.json").read_text())
    saved["base_model_name_or_path"] = f"tests/golden/backbones/{case.family}"
    for key in ("target_modules", "feedforward_modules"):
        if isinstance(saved.get(key), list):
            saved[key] = sorted(saved[key])
    (folder / "adapter_config.json").write_text(json.dumps(saved, indent=2, sort_keys=True) + "\n")
    save_file(given | {"outputs": found}, folder / "expected.safetensors")
    return folder


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for chosen in sys.argv[1:] or list(CASES):
        print(write(chosen, GOLDEN / chosen))
