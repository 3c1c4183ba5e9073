"""Whole modules in a PEFT file: heads and norms are imported, shared matrices are refused."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from adapters_store.formats.convert import as_stored, zeros
from adapters_store.formats.draft import Draft, describe, piece
from adapters_store.formats.peft.modules import PREFIX
from adapters_store.formats.peft.settings import Settings
from adapters_store.primitives import head
from adapters_store.primitives.head import HeadPart
from adapters_store.primitives.override import OverridePart

EMBEDDINGS = frozenset(
    {
        "embed_tokens",
        "embed_positions",
        "embed_in",
        "embed_out",
        "shared",
        "wte",
        "wpe",
        "word_embeddings",
        "position_embeddings",
        "token_type_embeddings",
        "lm_head",
    }
)
"""Last names of the embeddings and output matrices of the families' models."""

MAX_LABELS = 10_000
"""As many as a signature may name."""


@dataclass(frozen=True, slots=True)
class HeadForm:
    """How a model type classifies: what it pools, and the modules of its head by their paths.

    ``task_type`` is the one that PEFT adapters of the classifier have.
    """

    pooling: Literal["cls", "last", "pooled"]
    output: str
    dense: str | None = None
    has_bias: bool = True
    task_type: str | None = "SEQ_CLS"


_SCORE = HeadForm("last", "score", has_bias=False)
_ROBERTA = HeadForm("cls", "classifier.out_proj", "classifier.dense")
HEAD_FORMS: dict[str, HeadForm] = {
    "bert": HeadForm("pooled", "classifier"),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "gpt2": _SCORE,
    "llama": _SCORE,
    "mistral": _SCORE,
    "qwen2": _SCORE,
    "qwen3": _SCORE,
    "gemma": _SCORE,
    "gemma2": _SCORE,
    "gemma3_text": _SCORE,
    "vit": HeadForm("cls", "classifier", task_type=None),
}
"""By the backbone's model_type, as the ``ForSequenceClassification`` classes compute."""


def refuse_embeddings(draft: Draft) -> None:
    """Reject every adapted or saved embedding and output matrix, with what it holds."""
    found: dict[str, list[str]] = {}
    for name in sorted(draft.tensors):
        steps = name.removeprefix(PREFIX).split(".")
        index = next((i for i, step in enumerate(steps[:-1]) if step in EMBEDDINGS), None)
        if index is not None:
            described = f"{'.'.join(steps[index + 1 :])} ({describe(draft.tensors.pop(name))})"
            found.setdefault(".".join(steps[: index + 1]), []).append(described)
    for path, tensors in found.items():
        draft.reject(
            "base_weights",
            f"{path!r} is the backbone's own and shared by all its adapters; the file changes it "
            f"with {', '.join(tensors)}",
            path,
        )


def plan(draft: Draft, settings: Settings, prefix: str = PREFIX) -> None:
    """Add the head of a sequence classifier and saved norms; reject any other whole module."""
    given = settings.modules_to_save
    saved = (given,) if isinstance(given, str) else tuple(given or ())
    model_type = str(draft.backbone.config.get("model_type"))
    form = HEAD_FORMS.get(model_type)
    is_saved = settings.task_type == "SEQ_CLS" or (form is not None and form.output in saved)
    if form is not None and form.task_type == settings.task_type and is_saved:
        _plan_head(draft, form, prefix)
    elif settings.task_type == "SEQ_CLS":
        draft.reject(
            "unsupported_option",
            f"task_type SEQ_CLS: the head of model_type {model_type!r} is not one that a head "
            f"part computes; known: {sorted(HEAD_FORMS)}",
            "task_type",
        )
    for name in sorted(draft.tensors):
        path, _, parameter = name.removeprefix(prefix).rpartition(".")
        if not _is_inside(path, saved):
            continue
        vector = draft.lookup.vector(f"{path}.{parameter}")
        if vector is not None and vector.is_present:
            value = draft.take(name, (vector.size,))
            part = OverridePart(vector=vector.name, operation="replace")
            draft.add(part, piece(f"{vector.name}/override/value", as_stored, value))
        else:
            _refuse(draft, settings, name)


def _is_inside(path: str, endings: tuple[str, ...]) -> bool:
    """Whether the module at ``path`` is one whose path ends so, or stands inside one."""
    steps = path.split(".")
    return any(".".join(steps[:stop]).endswith(endings) for stop in range(1, len(steps) + 1))


def _refuse(draft: Draft, settings: Settings, name: str) -> None:
    tensor = draft.tensors.pop(name)
    hint = ""
    if settings.task_type != "SEQ_CLS":
        hint = f"; a classifier is imported for task_type SEQ_CLS, found {settings.task_type!r}"
    draft.reject(
        "unsupported_option",
        f"modules_to_save holds {name!r} ({describe(tensor)}), which no primitive replaces{hint}",
        name,
    )


def _plan_head(draft: Draft, form: HeadForm, prefix: str) -> None:
    weight = draft.tensors.get(f"{prefix}{form.output}.weight")
    num_labels = weight.shape[0] if weight is not None and len(weight.shape) == 2 else 0
    size = draft.shapes.hidden_size
    pieces = [
        piece(
            head.WEIGHT,
            as_stored,
            draft.take(f"{prefix}{form.output}.weight", (None, size)),
        )
    ]
    if form.has_bias:
        bias = draft.take(f"{prefix}{form.output}.bias", (num_labels,))
        pieces.append(piece(head.BIAS, as_stored, bias))
    else:
        pieces.append(piece(head.BIAS, partial(zeros, size=num_labels)))
    if form.dense is not None:
        for name, suffix, shape in (
            (head.DENSE_WEIGHT, "weight", (size, size)),
            (head.DENSE_BIAS, "bias", (size,)),
        ):
            taken = draft.take(f"{prefix}{form.dense}.{suffix}", shape)
            pieces.append(piece(name, as_stored, taken))
    if num_labels > MAX_LABELS:
        message = f"the head has {num_labels} labels; at most {MAX_LABELS} are allowed"
        draft.reject("too_large", message, form.output)
    elif num_labels:
        dense_size = size if form.dense is not None else None
        part = HeadPart(num_labels=num_labels, pooling=form.pooling, dense_size=dense_size)
        draft.add(part, *pieces)
