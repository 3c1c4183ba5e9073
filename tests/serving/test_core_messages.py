"""Messages survive their way through bytes."""

from __future__ import annotations

import dataclasses

import pytest

from adapters_store.errors import NotFoundError, OverloadedError, UnavailableError
from serving.core.codec import decode, encode
from serving.core.failures import error_from
from serving.core.messages import (
    Cancel,
    Fatal,
    Heartbeat,
    Ready,
    Stats,
    StepReport,
    Stop,
    Submit,
    ToClient,
    ToCore,
)
from serving.engine import (
    Embedded,
    Failed,
    Finished,
    Hypothesis,
    Request,
    Sampling,
    Scored,
    Searched,
    Token,
)

STATS = Stats(1, 2, 3, 4, 5, {"memory": 6, "store": 0}, (0.5, 1.5), 7, 8, 9, 10, 11)
MESSAGES: list[ToCore | ToClient] = [
    Submit(Request("a", "generate", None, (1, 2, 3), Sampling(seed=-1, temperature=0.5))),
    Submit(Request("b", "classify", "sha256:x", (7,), Sampling(logprobs=3))),
    Submit(
        Request(
            "c",
            "generate",
            None,
            (1,),
            Sampling(logit_bias=((3, 0.5), (4, -1.0)), stop_token_ids=(2,), early_stopping="never"),
        )
    ),
    Cancel("é"),
    Stop(),
    Ready("sha256:f", 12, 1.25),
    Heartbeat(STATS),
    Fatal("unavailable", "gone"),
    StepReport((Token("a", 5, -0.25, ((5, -0.25), (6, -2.0))), Token("b", 9)), 0.01, 2, 1, STATS),
    StepReport(
        (Searched("a", (Hypothesis((Token("a", 5, -0.5),), -0.5, "stop"),), 3, 1),), 0.0, 1, 1, None
    ),
    StepReport(
        (Finished("a", "stop", 3, 4), Failed("b", "not_found", "no", "model")), 0.0, 1, 1, None
    ),
]


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_comes_back_equal(message: ToCore | ToClient) -> None:
    assert decode(encode(message)) == message


def test_lists_come_back_as_tuples() -> None:
    events = (Scored("a", [0.5, -1.0], 3), Embedded("b", [1.0], 2))
    back = decode(encode(StepReport(events, 0.0, 2, 0, None)))
    assert [dataclasses.astuple(one)[1] for one in back.events] == [(0.5, -1.0), (1.0,)]


def test_other_types_do_not_travel() -> None:
    with pytest.raises(TypeError, match="not a message"):
        encode(NotFoundError("x"))  # type: ignore[arg-type]


def test_codes_become_their_errors_again() -> None:
    assert type(error_from("overloaded", "full")) is OverloadedError
    assert type(error_from("not_found", "no")) is NotFoundError
    unknown = error_from("code_of_another_release", "nan in logits")
    assert type(unknown) is UnavailableError
    assert unknown.message == "nan in logits"
