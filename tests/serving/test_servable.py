"""What the engine says it cannot run, part by part."""

from __future__ import annotations

import pytest
from serve_kit import adapter_of, label_adapter, routing_task, skill_bank, text_adapter

from adapters_store.backbone import Backbone
from adapters_store.errors import NotServedError
from adapters_store.manifest import HeadPart, TaskSignature
from adapters_store.primitives import PRIMITIVES
from adapters_store.primitives.prefix import PrefixPart
from adapters_store.primitives.prompt import PromptPart
from serving import primitives
from serving.servable import check_servable

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


def test_every_primitive_is_served() -> None:
    assert set(primitives.PRIMITIVES) == set(PRIMITIVES)


def test_what_has_no_serving_primitive_is_refused_by_name_and_told_once(
    byte_t5: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [
        PromptPart(input=name, num_tokens=2, has_positions=False) for name in ("encoder", "decoder")
    ]
    prefix = PrefixPart(attention="encoder.0.self", num_tokens=2, shifts_positions=False)
    manifest = adapter_of(byte_t5, *parts, prefix).manifest
    check_servable(manifest)
    for name in ("prompt", "prefix"):
        monkeypatch.delitem(primitives.PRIMITIVES, name)
    with pytest.raises(NotServedError, match="primitive 'prompt', 'prefix'; served: low_rank"):
        check_servable(manifest)


def test_a_head_of_every_pooling_is_served(word_bert: Backbone) -> None:
    for pooling in ("mean", "cls", "last", "pooled"):
        part = HeadPart.model_validate({"num_labels": 2, "pooling": pooling, "dense_size": 3})
        check_servable(adapter_of(word_bert, part, signature=LABELS).manifest)
