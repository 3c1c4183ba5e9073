"""The outside reference: a transformers model with one task's adapter merged into its weights."""

from __future__ import annotations

import torch
import transformers

from adapters_store.artefact import load_tensors


def deltas(backbone, artefact, bank=None):
    """Weight updates (in, out) by module path, composed as the formula is written."""
    tensors = load_tensors(artefact)
    found = {}
    for part in artefact.manifest.low_rank_parts:
        a, b = tensors[f"{part.site}/low_rank/a"], tensors[f"{part.site}/low_rank/b"]
        found[backbone.sites[part.site].module_path] = part.scale * a @ b
    if artefact.manifest.routing_part is not None:
        shared = load_tensors(bank)
        for number, part in enumerate(bank.manifest.bank_parts):
            w = tensors["routing/weights"][number]
            a, b = shared[f"{part.site}/mixture/a"], shared[f"{part.site}/mixture/b"]
            H, K = w.shape
            A = torch.cat([sum(w[h, k] * a[h, k] for k in range(K)) for h in range(H)], dim=0)
            B = torch.cat([sum(w[h, k] * b[h, k] for k in range(K)) for h in range(H)], dim=1)
            found[backbone.sites[part.site].module_path] = part.scale * A @ B
    return found


def merged_model(backbone, artefact=None, bank=None):
    """The folder as transformers loads it, with the adapter added to its weights."""
    architecture = backbone.architecture
    auto = transformers.AutoModel
    if architecture.is_encoder_decoder:
        auto = transformers.AutoModelForSeq2SeqLM
    elif architecture.is_decoder_only:
        auto = transformers.AutoModelForCausalLM
    model = auto.from_pretrained(backbone.folder).eval()
    if artefact is not None:
        with torch.no_grad():
            for path, delta in deltas(backbone, artefact, bank).items():
                weight = model.base_model.get_submodule(path).weight
                weight += delta if architecture.has_transposed_linears else delta.t()
    return model


def generate(model, input_ids, max_tokens):
    """Greedy tokens of one input as ``generate`` gives them: without input, start and end."""
    with torch.inference_mode():
        ids = torch.tensor([input_ids])
        found = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_tokens,
            do_sample=False,
            use_cache=False,
            forced_eos_token_id=None,
        )
    out = found[0].tolist()[1 if model.config.is_encoder_decoder else len(input_ids) :]
    eos = model.generation_config.eos_token_id
    return out[: out.index(eos)] if eos in out else out
