"""Names of tensors in a PEFT file: ``base_model.model.<module path>.<suffix>``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from adapters_store.families.site import Site
from adapters_store.formats.draft import Draft

PREFIX = "base_model.model."
BASE_PREFIXES: dict[str, str] = {
    "bart": "model.",
    "mbart": "model.",
    "bert": "bert.",
    "distilbert": "distilbert.",
    "gpt2": "transformer.",
    "gemma": "model.",
    "gemma2": "model.",
    "gemma3_text": "model.",
    "llama": "model.",
    "mistral": "model.",
    "qwen2": "model.",
    "qwen3": "model.",
    "roberta": "roberta.",
    "xlm-roberta": "roberta.",
    "vit": "vit.",
    "audio-spectrogram-transformer": "audio_spectrogram_transformer.",
}
"""By model_type, where classes with a head keep the base model; T5's generating class is one."""


@dataclass(slots=True)
class Module:
    """One module of the file: its path in the model, and its tensors by their suffix."""

    path: str
    names: dict[str, str] = field(default_factory=dict)

    def name(self, suffix: str) -> str:
        """The tensor's name, also where the file lacks it."""
        return f"{PREFIX}{self.path}{suffix}"


def group(draft: Draft, suffixes: Sequence[str]) -> list[Module]:
    """The modules with a tensor of one of ``suffixes``, sorted by path.

    Every name without the prefix is a reason to reject: PEFT passes over such a tensor in silence.
    """
    found: dict[str, Module] = {}
    for name in sorted(draft.tensors):
        if not name.startswith(PREFIX):
            draft.tensors.pop(name)
            message = f"{name!r} does not begin with {PREFIX!r}; PEFT passes over it in silence"
            draft.reject("extra_tensor", message, name)
            continue
        path = name.removeprefix(PREFIX)
        suffix = next((end for end in suffixes if path.endswith(end)), None)
        if suffix is not None:
            module = path.removesuffix(suffix)
            found.setdefault(module, Module(module)).names[suffix] = name
    return list(found.values())


def sites(
    draft: Draft, modules: Sequence[Module], task_type: str | None
) -> Iterator[tuple[Module, Site]]:
    """Every module with its site; unknown modules and repeated sites are reasons to reject.

    ``task_type`` says whether the base model stands inside a class with a head.
    """
    has_head = task_type not in (None, "FEATURE_EXTRACTION")
    model_type = str(draft.backbone.config.get("model_type"))
    base_prefix = BASE_PREFIXES.get(model_type, "") if has_head else ""
    seen: dict[str, str] = {}
    for module in modules:
        site = draft.lookup.site(module.path)
        if site is None:
            problem = (
                f"is not a linear site of backbone {draft.backbone.name!r} "
                f"({draft.backbone.family})"
            )
            _refuse(draft, module, "incompatible", problem)
        elif base_prefix and module.path == site.module_path:
            problem = (
                f"lacks {base_prefix!r} in front, where a {task_type} model keeps it; PEFT passes "
                "over its tensors in silence"
            )
            _refuse(draft, module, "extra_tensor", problem)
        elif site.name in seen:
            problem = f"and {seen[site.name]!r} are both site {site.name!r}"
            _refuse(draft, module, "extra_tensor", problem)
        else:
            seen[site.name] = draft.paths[site.name] = module.path
            yield module, site


def _refuse(draft: Draft, module: Module, code: str, problem: str) -> None:
    draft.drop(module.names.values())
    draft.reject(code, f"module {module.path!r} {problem}", module.path)
