"""mttl's checkpoints written and computed independently of the importer, axis by axis.

Legend: T tasks, H heads, K skills, r rank.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers
from golden_kit import golden_backbone
from safetensors.torch import save_file

from adapters_store.formats import ImportOptions, Inspection, inspect
from adapters_store.formats.importing import import_from
from adapters_store.formats.pickles import convert_pickle
from adapters_store.formats.source import FolderSource
from training.reference import applied

Tensors = dict[str, torch.Tensor]
MODELS = {"t5": transformers.AutoModelForSeq2SeqLM, "llama": transformers.AutoModelForCausalLM}
ADAPTED = {
    "t5": ("SelfAttention.q", "EncDecAttention.v", "DenseReluDense.wi_1", "DenseReluDense.wo"),
    "llama": ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"),
}
Delta = Callable[[torch.Tensor], torch.Tensor]


@lru_cache
def hf_model(family: str) -> Any:
    """The golden backbone's model with its head, in evaluation."""
    return MODELS[family].from_pretrained(golden_backbone(family).folder).eval()


def adapted_modules(family: str) -> dict[str, torch.nn.Linear]:
    """The linear modules that a checkpoint of these tests adapts, by their path."""
    modules = hf_model(family).named_modules()
    return {path: one for path, one in modules if path.endswith(ADAPTED[family])}


def draw(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator) * 0.5


def batch(family: str) -> dict[str, torch.Tensor]:
    """Two rows of tokens."""
    generator = torch.Generator().manual_seed(11)
    ids = torch.randint(3, 60, (2, 7), generator=generator)
    found = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if family == "t5":
        found["decoder_input_ids"] = torch.randint(3, 60, (2, 5), generator=generator)
    return found


@contextmanager
def with_deltas(model: Any, deltas: dict[str, Delta]) -> Iterator[Any]:
    """The model with ``delta(x)`` added to the output of every module named."""
    modules = dict(model.named_modules())
    hooks = [
        modules[path].register_forward_hook(
            lambda module, given, output, delta=delta: output + delta(given[0])
        )
        for path, delta in deltas.items()
    ]
    try:
        yield model
    finally:
        for hook in hooks:
            hook.remove()


def expected_logits(family: str, deltas: dict[str, Delta]) -> torch.Tensor:
    """What the checkpoint computes by the equations alone; it differs from the bare model."""
    model = hf_model(family)
    with torch.inference_mode():
        bare = model(**batch(family)).logits
        with with_deltas(model, deltas):
            found: torch.Tensor = model(**batch(family)).logits
    assert (found - bare).abs().max() > 1e-2
    return found


def our_logits(family: str, artefact: Any, bank: Any = None) -> torch.Tensor:
    """What the reference computes with an imported artefact."""
    backbone = golden_backbone(family)
    with torch.inference_mode(), applied(hf_model(family), backbone, artefact, bank) as adapted:
        found: torch.Tensor = adapted(**batch(family)).logits
    return found


def converted(folder: Path) -> Path:
    """The folder with its pickles made safetensors, as a user converts it."""
    return convert_pickle(folder, folder.with_name(f"{folder.name}-converted")).folder


def imported(family: str, folder: Path, options: ImportOptions | None = None) -> dict[str, Any]:
    """The artefacts of a converted folder by the suffix of their names."""
    return dict(import_from(FolderSource(folder), golden_backbone(family).record, options))


def verdict(family: str, folder: Path, options: ImportOptions | None = None) -> Inspection:
    """The inspection against a golden backbone."""
    return inspect(FolderSource(folder), golden_backbone(family).record, options)


RELEASE = {
    "model_modifier": "poly_lora",
    "n_tasks": 3,
    "n_skills": 4,
    "n_splits": 2,
    "lora_rank": 2,
    "lora_alpha": 3.0,
    "router_selector": "poly",
    "router_granularity": "finegrained",
    "module_logits_relaxed_bernoulli": True,
    "module_logits_straight_through": False,
    "module_logits_learning_rate": 0.1,
    "module_logits_dropout": 0.0,
    "module_logits_l2_norm": False,
    "poly_average_correction": False,
    "poly_use_shared_skill": False,
    "poly_unlikely_loss": 0.0,
    "router_selector_cluster_temp": 1.0,
    "router_weight_decay": None,
    "adapter_type": None,
    "lora_warmup": False,
    "lora_dropout": 0.0,
    "lora_init_scale": 0.01,
    "lora_scaling_rank": 0,
    "lora_randb_init": False,
    "patch_last_k_layers": -1,
    "modify_layers": "q|k|v|o|wi_0|wi_1|wo",
    "task_names": None,
    "tie_params": None,
    "learning_rate": 1e-3,
    "max_grad_norm": float("inf"),
    "dataset": "t0",
}
_STEPS = {"layerwise": ".layer.", "blockwise": ".block.", "coderwise": "coder."}


def sharing(path: str, granularity: str) -> str:
    """The release's bin of a module, told by the number behind a step of its path."""
    if granularity == "finegrained":
        return path
    if granularity == "coarsegrained":
        return "all"
    before, _, behind = path.partition(_STEPS[granularity])
    if granularity == "coderwise":
        return before
    return f"{before}/{behind.split('.')[0]}"


def release_state(family: str, options: dict[str, Any]) -> tuple[Tensors, Tensors]:
    """A checkpoint's tensors, and every module's logits; a shared selector is saved once."""
    generator = torch.Generator().manual_seed(3)
    heads, skills, rank = options["n_splits"], options["n_skills"], options["lora_rank"]
    state: Tensors = {}
    logits: Tensors = {}
    shared: Tensors = {}
    for path, module in adapted_modules(family).items():
        width_in, width_out = module.in_features, module.out_features
        state[f"model.{path}.lora_a"] = draw(generator, heads, skills, width_in // heads, rank)
        state[f"model.{path}.lora_b"] = draw(generator, heads, skills, rank, width_out // heads)
        if options["router_selector"] != "poly":
            continue
        own = sharing(path, options["router_granularity"])
        if own not in shared:
            shared[own] = 3 * draw(generator, options["n_tasks"], heads * skills)
            state[f"model.{path}.selector.module_logits"] = shared[own]
        logits[path] = shared[own]
    return state, logits


def write_release(folder: Path, state: Tensors, options: dict[str, Any]) -> Path:
    """A run's folder after its conversion."""
    folder.mkdir(parents=True)
    save_file(state, folder / "best_model.safetensors")
    facts = {"hyper_parameters": options | {"max_grad_norm": "<inf>"}}
    (folder / "best_model.ckpt.json").write_text(json.dumps(facts))
    (folder / "config.json").write_text(json.dumps({"model_modifier": "another run"}))
    return folder


def write_pickled_release(folder: Path, state: Tensors, options: dict[str, Any]) -> Path:
    """A run's folder as Lightning writes it, with more in the checkpoint than its weights."""
    folder.mkdir(parents=True)
    checkpoint = {
        "epoch": 3,
        "global_step": 1000,
        "state_dict": state,
        "optimizer_states": [{"state": {}, "param_groups": []}],
        "hyper_parameters": options,
    }
    torch.save(checkpoint, folder / "best_model.ckpt")
    (folder / "config.json").write_text(json.dumps({"model_modifier": "another run"}))
    return folder


def release_deltas(
    state: Tensors, weights: dict[str, torch.Tensor], options: dict[str, Any]
) -> dict[str, Delta]:
    """One task's update by the paper's equations, from each module's weights (H, K)."""
    scale = options["lora_alpha"] / options["lora_rank"]

    def delta(path: str, w: torch.Tensor) -> Delta:
        mixed_a = torch.einsum("hk,hkdr->hdr", w, state[f"model.{path}.lora_a"])
        mixed_b = torch.einsum("hk,hkrd->hrd", w, state[f"model.{path}.lora_b"])
        a = torch.cat(list(mixed_a), dim=0)
        b = torch.cat(list(mixed_b), dim=1)
        return lambda x: scale * (x @ a) @ b

    return {path: delta(path, w) for path, w in weights.items()}


def poly_weights(logits: Tensors, task: int, heads: int, eps: float = 1e-12) -> Tensors:
    """Normalised sigmoids (H, K) of one task's row, by module."""
    found = {path: one[task].view(heads, -1).sigmoid() for path, one in logits.items()}
    return {path: gates / (gates.sum(-1, keepdim=True) + eps) for path, gates in found.items()}


LORA = {
    "class_name": "mttl.models.modifiers.lora.LoRAConfig",
    "modify_modules": ".*",
    "modify_layers": "",
    "tie_params": None,
    "lora_rank": 2,
    "lora_alpha": 16.0,
    "lora_dropout": 0.0,
    "lora_init_b_random": False,
}
SKILLED = LORA | {
    "class_name": "mttl.models.modifiers.lora.SkilledLoRAConfig",
    "n_skills": 1,
    "n_splits": 2,
}
POLY = {
    "class_name": "mttl.models.containers.selectors.poly_selector.PolySelectorConfig",
    "router_granularity": "*",
    "lora_merge_after": False,
    "selector_logging": True,
    "num_experts": 0,
    "n_splits": 2,
    "task_names": ["rte", "cb"],
}


def write_model(
    folder: Path, state: Tensors, selector: dict[str, Any] | None, experts: list[dict[str, Any]]
) -> Path:
    """A model of experts, its weights made safetensors."""
    config = {
        "class_name": "mttl.models.expert_model.MultiExpertModelConfig",
        "base_model": "google/t5-v1_1-small",
        "default_expert_name": None,
        "expert_infos": [
            {"expert_name": f"skill{index}", "expert_task_name": None, "expert_config": one}
            for index, one in enumerate(experts)
        ],
        "selector_config": selector,
    }
    folder.mkdir(parents=True)
    save_file(state, folder / "mttl_weights.safetensors")
    (folder / "mttl_config.json").write_text(json.dumps(config))
    return folder


def expert_weights(family: str, seed: int) -> Tensors:
    """A single LoRA of rank 2 under a library's names: (in, r) and (r, out)."""
    generator = torch.Generator().manual_seed(seed)
    state: Tensors = {}
    for path, module in adapted_modules(family).items():
        state[f"{path}.lora_a"] = draw(generator, module.in_features, 2)
        state[f"{path}.lora_b"] = draw(generator, 2, module.out_features)
    return state


def expert_deltas(weights: Tensors, scale: float = 8.0) -> dict[str, Delta]:
    """A single LoRA's update."""

    def delta(path: str) -> Delta:
        a, b = weights[f"{path}.lora_a"], weights[f"{path}.lora_b"]
        return lambda x: scale * (x @ a) @ b

    paths = {name.rpartition(".")[0] for name in weights}
    return {path: delta(path) for path in paths}


def write_expert(folder: Path, name: str, weights: Tensors, **info: Any) -> Path:
    """One expert of a library, made safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "class_name": "mttl.models.library.expert_library.MetadataEntry",
        "expert_name": name,
        "expert_task_name": f"task of {name}",
        "expert_config": LORA,
        "expert_model": "google/t5-v1_1-small",
        "expert_deleted": False,
    }
    save_file(weights, folder / f"{name}.safetensors")
    (folder / f"{name}.meta.json").write_text(json.dumps(about | info))
    return folder


def names_of(paths: Iterable[str], family: str) -> set[str]:
    """The canonical sites at these paths."""
    backbone = golden_backbone(family)
    return {
        site.name
        for site in backbone.sites.values()
        if any(path.endswith(site.module_path) for path in paths)
    }
