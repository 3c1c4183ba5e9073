"""``prompt``: rows before the tokens, put in where a stack is entered.

The stack is called with embeddings of rows and tokens, a mask and positions for both, so the model
treats the rows as tokens; with a cache, they are put in at the first call alone. Outputs carry the
rows in front. Legend: R batch rows, P prompt rows, T tokens, D width.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from adapters_store.errors import IncompatibleError, InvalidArtefactError, UsageError
from adapters_store.families.anatomy import Input
from adapters_store.primitives.prompt import PromptPart
from training.reference.positions import shift_table
from training.reference.stage import Call, Stage


def install(parts: Sequence[PromptPart], stage: Stage) -> None:
    """Put each input's rows in; raises InvalidArtefactError for deep rows that replace none."""
    of_input: dict[str, list[PromptPart]] = defaultdict(list)
    for part in parts:
        of_input[part.input].append(part)
    for name, group in of_input.items():
        _install(sorted(group, key=lambda part: part.layer), stage, stage.shapes.input(name))


def _install(parts: Sequence[PromptPart], stage: Stage, place: Input) -> None:
    first, deep = parts[0], parts[1:]
    if first.layer != 0:
        raise InvalidArtefactError(
            f"the prompt at layer {first.layer} of {place.name!r} replaces rows that no prompt "
            "at layer 0 put in"
        )
    for part in deep:
        if part.num_tokens != first.num_tokens:
            raise InvalidArtefactError(
                f"the prompt at layer {part.layer} of {place.name!r} has {part.num_tokens} rows; "
                f"at layer 0 it has {first.num_tokens}"
            )
    stack = stage.claim(place.stack_path, f"prompt of the {place.name}")
    rows = {p.layer: stage.tensors[f"{place.name}/prompt/{p.layer}/rows"] for p in parts}
    prompt = _Prompt(stage, place, first.num_tokens, rows, first.has_positions)
    if "input_ids" in inspect.signature(stack.forward).parameters:
        stage.before(place.stack_path, prompt.enter)
        if not first.has_positions:
            _enter_layer(stage, place, 0, prompt.replace(0))
            if place.position_path is not None:
                shift_table(stage, place.position_path, -first.num_tokens)
    elif first.has_positions:
        raise IncompatibleError(
            f"the {place.name} takes no tokens: a prompt cannot have positions of its own there"
        )
    else:
        _enter_layer(stage, place, 0, prompt.insert)
    for part in deep:
        _enter_layer(stage, place, part.layer, prompt.replace(part.layer))
    stage.prompt_rows[place.name] = first.num_tokens
    if place.name == "encoder" and "decoder" in {i.name for i in stage.shapes.anatomy.inputs}:
        stage.before(stage.shapes.input("decoder").stack_path, prompt.show_to_decoder)


def _enter_layer(stage: Stage, place: Input, layer: int, hook: Callable[[Call], None]) -> None:
    """Run ``hook`` before whatever else reads what the layer is called with: it is the stream."""
    stage.before(place.layer_path.format(i=layer), hook, is_first=True)


@dataclass
class _Prompt:
    """One input's rows by layer, (P, D) each. ``is_first`` while rows run through the stack."""

    stage: Stage
    place: Input
    num_rows: int
    rows: Mapping[int, torch.Tensor]
    has_positions: bool
    is_first: bool = False

    def enter(self, call: Call) -> None:
        """Give the stack rows and tokens together."""
        cache = call.get("past_key_values")
        self.is_first = cache is None or not cache.get_seq_length()
        _extend_mask(call, "attention_mask", self.num_rows)
        positions = call.get("position_ids")
        if not self.is_first:
            if positions is not None:
                call.set("position_ids", positions + self.num_rows)
            return
        tokens_RTD = call.get("inputs_embeds")
        if tokens_RTD is None:
            tokens_RTD = self.stage.module(self.place.embedding_path)(call.get("input_ids"))
            call.set("input_ids", None)
        rows = self.rows[0] if self.has_positions else torch.zeros_like(self.rows[0])
        call.set("inputs_embeds", _in_front(rows, tokens_RTD))
        if (types := call.get("token_type_ids")) is not None:
            call.set("token_type_ids", functional.pad(types, (self.num_rows, 0)))
        if positions is not None:
            call.set("position_ids", self._with_rows(positions))

    def _with_rows(self, positions: torch.Tensor) -> torch.Tensor:
        if int(positions.min()) != 0:
            raise UsageError("position_ids beside a prompt count from 0 at the first token")
        own = torch.arange(self.num_rows, device=positions.device).expand(len(positions), -1)
        return torch.cat((own, positions + self.num_rows), dim=1)

    def insert(self, call: Call) -> None:
        """Put the rows in at layer 0, where the stack itself is not called with tokens."""
        self.is_first = True
        call.set(0, _in_front(self.rows[0], call.get(0)))

    def replace(self, layer: int) -> Callable[[Call], None]:
        """What replaces the rows that are there at the input of a layer."""

        def put(call: Call) -> None:
            if self.is_first:
                call.set(0, _in_front(self.rows[layer], call.get(0)[:, self.num_rows :]))

        return put

    def show_to_decoder(self, call: Call) -> None:
        """Let a decoder see the rows of its encoder."""
        mask, hidden = call.get("encoder_attention_mask"), call.get("encoder_hidden_states")
        if mask is not None and mask.shape[-1] + self.num_rows == hidden.shape[1]:
            _extend_mask(call, "encoder_attention_mask", self.num_rows)


def _in_front(rows: torch.Tensor, hidden_RTD: torch.Tensor) -> torch.Tensor:
    return torch.cat((rows.expand(len(hidden_RTD), -1, -1), hidden_RTD), dim=1)


def _extend_mask(call: Call, name: str, num_rows: int) -> None:
    mask: Any = call.get(name)
    if mask is None:
        return
    if mask.dim() != 2:
        raise UsageError(f"{name} beside a prompt has {mask.dim()} dimensions; expected 2")
    call.set(name, functional.pad(mask, (num_rows, 0), value=1))
