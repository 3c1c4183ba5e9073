"""The engine: one frozen backbone, rows of any task in one batch.

It imports torch and transformers and nothing of Ray, ZeroMQ or FastAPI. The package itself
imports neither, so that a replica reads requests and events without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from serving.engine.events import (
    Embedded,
    Event,
    Failed,
    Finished,
    Hypothesis,
    Prompt,
    Scored,
    Searched,
    Token,
)
from serving.engine.request import Request, Sampling

if TYPE_CHECKING:
    from serving.engine.config import EngineConfig
    from serving.engine.engine import Engine
    from serving.engine.stats import EngineStats
from serving.engine.weights import Weights, load_weights

_WITH_TORCH = {"Engine": "engine", "EngineConfig": "config", "EngineStats": "stats"}

__all__ = [
    "Embedded",
    "Engine",
    "EngineConfig",
    "EngineStats",
    "Event",
    "Failed",
    "Finished",
    "Hypothesis",
    "Prompt",
    "Request",
    "Sampling",
    "Scored",
    "Searched",
    "Token",
    "Weights",
    "load_weights",
]


def __getattr__(name: str) -> Any:
    if name not in _WITH_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WITH_TORCH[name]}"), name)
