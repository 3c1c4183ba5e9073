"""The engine: one frozen backbone, rows of any task in one batch.

It imports torch and transformers and nothing of Ray, ZeroMQ or FastAPI.
"""

from serving.engine.config import EngineConfig
from serving.engine.engine import Engine
from serving.engine.events import Embedded, Event, Failed, Finished, Scored, Token
from serving.engine.request import Request, Sampling
from serving.engine.stats import EngineStats

__all__ = [
    "Embedded",
    "Engine",
    "EngineConfig",
    "EngineStats",
    "Event",
    "Failed",
    "Finished",
    "Request",
    "Sampling",
    "Scored",
    "Token",
]
