"""What the engine says it cannot run, part by part."""

from __future__ import annotations

import pytest
from serve_kit import adapter_of, label_adapter, routing_task, skill_bank, text_adapter

from adapters_store.backbone import Backbone
from adapters_store.errors import NotServedError
from adapters_store.manifest import HeadPart, Part, TaskSignature
from adapters_store.primitives import PRIMITIVES
from adapters_store.primitives.prefix import PrefixPart
from adapters_store.primitives.prompt import PromptPart
from serving import primitives
from serving.servable import check_servable

UNSERVED: list[Part] = [
    PrefixPart(attention="encoder.0.self", num_tokens=2, shifts_positions=False),
    PromptPart(input="encoder", num_tokens=2, has_positions=False),
]
LABELS = TaskSignature(task="classification", labels=("a", "b"))


def test_what_is_trained_today_is_served(byte_t5: Backbone, word_bert: Backbone) -> None:
    bank = skill_bank(byte_t5)
    for artefact in (
        text_adapter(byte_t5, 1),
        bank,
        routing_task(byte_t5, bank, 2),
        label_adapter(word_bert, 3),
    ):
        check_servable(artefact.manifest)


def test_every_primitive_is_served_or_refused_here() -> None:
    assert {part.primitive for part in UNSERVED} | set(primitives.PRIMITIVES) == set(PRIMITIVES)
    assert not {part.primitive for part in UNSERVED} & set(primitives.PRIMITIVES)


@pytest.mark.parametrize("part", UNSERVED, ids=lambda part: part.primitive)
def test_other_primitives_are_refused_by_name(byte_t5: Backbone, part: Part) -> None:
    with pytest.raises(NotServedError, match=f"primitive '{part.primitive}'; served: low_rank"):
        check_servable(adapter_of(byte_t5, part).manifest)


def test_each_problem_is_told_once(byte_t5: Backbone) -> None:
    many = [
        PromptPart(input=name, num_tokens=2, has_positions=False) for name in ("encoder", "decoder")
    ]
    with pytest.raises(NotServedError) as caught:
        check_servable(adapter_of(byte_t5, *many, UNSERVED[0]).manifest)
    assert caught.value.message.count("'prompt'") == 1
    assert "'prefix'" in caught.value.message


def test_a_head_of_every_pooling_is_served(word_bert: Backbone) -> None:
    for pooling in ("mean", "cls", "last", "pooled"):
        part = HeadPart.model_validate({"num_labels": 2, "pooling": pooling, "dense_size": 3})
        check_servable(adapter_of(word_bert, part, signature=LABELS).manifest)
