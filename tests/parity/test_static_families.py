"""Steps over fixed memory answer as the reference does, for every way to see and to norm.

Mates whose effects such a step does not hold make it a plain one, and it goes on when they left.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from primitives_kit import World

from benchmarks.drive import answers

pytest.importorskip("triton")
from serving.engine.static_step import StaticStep

HELD = (None, "low_rank", "routing")
OTHERS = ("scale of outputs", "prefix that shifts")


@pytest.mark.parametrize("name", ["gemma2", "gpt2", "bart", "qwen3"])
def test_families_answer_alike_with_and_without_mates_that_are_not_held(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: Counter[bool] = Counter()
    plain = StaticStep.logits

    def watch(self: StaticStep, *values: Any) -> Any:
        logits = plain(self, *values)
        steps[logits is not None] += 1
        return logits

    monkeypatch.setattr(StaticStep, "logits", watch)
    world = World(name)
    engine = world.engine(kernels="triton", graphs="unrecorded", max_rows=4)
    ids = world.inputs()[0]
    for kinds in (HELD, (*HELD, OTHERS[0]), (None, OTHERS[1]), HELD):
        requests = [world.request(f"{kind}", kind, ids) for kind in kinds]
        found = answers(engine, requests)
        for kind in kinds:
            world.check(found[f"{kind}"], kind, ids)
    assert steps[True] > 0
    assert steps[False] > 0
    world.close()
