"""PEFT on the same weights: decode steps through the Hugging Face decoder with its cache.

``LoraSteps`` serves many adapters in one batch with ``adapter_names``; ``PolySteps`` a Poly bank
with ``task_ids``; ``PlainSteps`` is the unadapted model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from torch import Tensor, nn

from adapters_store.artefact import Artefact, load_tensors
from adapters_store.backbone import Backbone


def load_model(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The checkpoint as transformers runs it: an encoder-decoder or a decoder."""
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    kind = (
        transformers.AutoModelForSeq2SeqLM
        if config.is_encoder_decoder
        else transformers.AutoModelForCausalLM
    )
    return kind.from_pretrained(folder, local_files_only=True, dtype=dtype).eval()


class PlainSteps:
    """Greedy decode steps of a batch; ``extra`` goes to every forward call."""

    def __init__(self, model: Any, inputs: Sequence[Sequence[int]], **extra: Any) -> None:
        self._model = model
        self._extra = extra
        longest = max(len(ids) for ids in inputs)
        ids = torch.tensor([[*i, *[0] * (longest - len(i))] for i in inputs])
        self._mask = torch.tensor([[1] * len(i) + [0] * (longest - len(i)) for i in inputs])
        start = torch.zeros(len(inputs), 1, dtype=torch.long)
        with torch.inference_mode():
            out = model(
                input_ids=ids,
                attention_mask=self._mask,
                decoder_input_ids=start,
                use_cache=True,
                **extra,
            )
        self._cache = out.past_key_values
        self._encoded = (out.encoder_last_hidden_state,)
        self._next = out.logits[:, -1].argmax(dim=1, keepdim=True)
        self.tokens = [self._next.flatten().tolist()]

    @torch.inference_mode()
    def step(self) -> None:
        """Decode one token of every row."""
        out = self._model(
            encoder_outputs=self._encoded,
            attention_mask=self._mask,
            decoder_input_ids=self._next,
            past_key_values=self._cache,
            use_cache=True,
            **self._extra,
        )
        self._next = out.logits[:, -1].argmax(dim=1, keepdim=True)
        self.tokens.append(self._next.flatten().tolist())


def _copy(weight: nn.Parameter, value: Tensor) -> None:
    with torch.no_grad():
        weight.copy_(value)


def lora_model(
    backbone: Backbone, loras: Sequence[Artefact], dtype: torch.dtype = torch.float32
) -> Any:
    """A PEFT model with every LoRA loaded as ``t0``, ``t1``, ...; same factors as the artefacts.

    ``add_adapter`` walks the whole model for every adapter (near a second each); the layers'
    own ``update_layer`` builds the same modules at once.
    """
    parts = loras[0].manifest.low_rank_parts
    paths = {part.site: backbone.sites[part.site].module_path for part in parts}
    config = peft.LoraConfig(
        r=parts[0].rank,
        lora_alpha=parts[0].rank,
        target_modules=sorted({path.rpartition(".")[2] for path in paths.values()}),
        inference_mode=True,
        init_lora_weights=False,
    )
    plain = load_model(backbone.folder, dtype)
    base = getattr(plain, plain.base_model_prefix, plain)
    model = peft.PeftModel(plain, config, adapter_name="t0")
    for number, lora in enumerate(loras):
        name = f"t{number}"
        model.peft_config[name] = config
        tensors = load_tensors(lora)
        for part in lora.manifest.low_rank_parts:
            layer = base.get_submodule(paths[part.site])
            if name not in layer.lora_A:
                layer.update_layer(name, part.rank, lora_alpha=part.rank, config=config)
            _copy(layer.lora_A[name].weight, tensors[f"{part.site}/low_rank/a"].t())
            b = tensors[f"{part.site}/low_rank/b"] * part.scale
            _copy(layer.lora_B[name].weight, b.t())
    return model.eval().to(dtype)


def poly_model(
    backbone: Backbone,
    bank: Artefact,
    routings: Sequence[Artefact],
    dtype: torch.dtype = torch.float32,
) -> Any:
    """A PEFT Poly model whose skills and mixing weights are the bank's and the routings'."""
    parts = bank.manifest.bank_parts
    first = parts[0]
    paths = {p.site: backbone.sites[p.site].module_path for p in parts}
    config = peft.PolyConfig(
        task_type="SEQ_2_SEQ_LM",
        r=first.rank,
        n_tasks=len(routings),
        n_skills=first.num_skills,
        n_splits=first.num_heads,
        target_modules=sorted({path.rpartition(".")[2] for path in paths.values()}),
        inference_mode=True,
    )
    model = peft.get_peft_model(load_model(backbone.folder, dtype), config)
    factors = load_tensors(bank)
    weights_nSHK = torch.stack([load_tensors(r)["routing/weights"] for r in routings])
    logits_nSHK = torch.logit(weights_nSHK.clamp(1e-6, 1 - 1e-6))
    for number, part in enumerate(parts):
        layer = model.base_model.model.get_submodule(paths[part.site])
        _copy(layer.poly_lora_A["default"], factors[f"{part.site}/mixture/a"])
        b = factors[f"{part.site}/mixture/b"] * part.scale * part.rank
        _copy(layer.poly_lora_B["default"], b)
        router = layer.poly_router["default"]
        _copy(router.module_logits, logits_nSHK[:, number].flatten(1))
    return model.eval().to(dtype)
