"""Key and value rows put before an attention's own, whatever model the attention belongs to.

Models look their attention function up by the name in their configuration. While rows are there,
that name is one of ours: it puts the rows in front and calls the eager function of the model's own
module, so that grouping, scaling and capping stay the model's. The cache never holds the rows, so
positions, masks and lengths are those of the tokens. Legend: R batch rows, H heads, P prefix rows,
T query tokens, K key tokens, W width of a head.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from adapters_store.errors import IncompatibleError
from training.reference.stage import Stage

_NAME = "rows_in_front"
_EAGER = "eager_attention_forward"

Bias = Callable[[int, int], torch.Tensor]
"""From the numbers of query and of key tokens to a bias (1, H, T, P + K)."""


@dataclass(frozen=True)
class Rows:
    """``key`` and ``value`` (kv heads, P, W); ``bias`` replaces the model's position bias.

    Without one, the model's bias gets zeros for the rows.
    """

    key: torch.Tensor
    value: torch.Tensor
    bias: Bias | None


_ROWS: WeakKeyDictionary[nn.Module, Rows] = WeakKeyDictionary()


def add_rows(stage: Stage, path: str, rows: Rows) -> None:
    """Put ``rows`` before those of the attention at ``path``.

    Raises UsageError where it has a prefix already, IncompatibleError where the model computes
    its attention in a way that rows cannot enter.
    """
    module = stage.claim(path, "prefix")
    if not hasattr(module, "config") or not hasattr(sys.modules[type(module).__module__], _EAGER):
        raise IncompatibleError(
            f"the {type(module).__name__} at {path} does not look up its attention function; "
            "a prefix cannot enter it",
            hint="Use a transformers version within the supported range.",
        )
    _ROWS[module] = rows
    stage.undo.callback(_ROWS.pop, module)


def take_over(stage: Stage) -> None:
    """Have every attention of the model look up :func:`_attend` until the stage is undone."""
    AttentionInterface.register(_NAME, _attend)
    AttentionMaskInterface.register(_NAME, eager_mask)
    configs = {id(m.config): m.config for m in stage.model.modules() if hasattr(m, "config")}
    present = [(config, config._attn_implementation) for config in configs.values()]
    # Setting a configuration sets those inside it, so the outermost returns first.
    for config, name in reversed(present):
        stage.undo.callback(setattr, config, "_attn_implementation", name)
    for config, _ in present:
        config._attn_implementation = _NAME


def _attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The module's own attention, (R, T, H, W) and weights (R, H, T, P + K), over rows if any."""
    rows = _ROWS.get(module)
    if rows is not None:
        num_keys, num_rows = key.shape[2], rows.key.shape[1]
        key = torch.cat((rows.key.expand(len(key), -1, -1, -1), key), dim=2)
        value = torch.cat((rows.value.expand(len(value), -1, -1, -1), value), dim=2)
        if attention_mask is not None:
            seen = True if attention_mask.dtype == torch.bool else 0.0
            attention_mask = functional.pad(attention_mask, (num_rows, 0), value=seen)
        if rows.bias is not None:
            options["position_bias"] = rows.bias(query.shape[2], num_keys)
        elif options.get("position_bias") is not None:
            options["position_bias"] = functional.pad(options["position_bias"], (num_rows, 0))
    own = getattr(sys.modules[type(module).__module__], _EAGER)
    found: tuple[torch.Tensor, torch.Tensor | None] = own(
        module, query, key, value, attention_mask, **options
    )
    return found
