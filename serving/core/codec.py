"""Messages to bytes and back: msgpack, each dataclass an extension type of its fields in order."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import msgpack

from serving.core import messages
from serving.engine import events, request

_TYPES: tuple[type[Any], ...] = (
    messages.Submit,
    messages.Cancel,
    messages.Stop,
    messages.Ready,
    messages.Stats,
    messages.StepReport,
    messages.Heartbeat,
    messages.Fatal,
    request.Request,
    request.Sampling,
    events.Token,
    events.Finished,
    events.Scored,
    events.Embedded,
    events.Failed,
    events.Hypothesis,
    events.Searched,
    events.Prompt,
)
_CODES = {type_: code for code, type_ in enumerate(_TYPES)}
_FIELDS = {type_: tuple(field.name for field in fields(type_)) for type_ in _TYPES}


def encode(message: messages.ToCore | messages.ToClient) -> bytes:
    """Bytes of one message; raises TypeError for types outside the table."""
    packed: bytes = msgpack.packb(message, default=_pack)
    return packed


def decode(data: bytes) -> Any:
    """The message of these bytes; sequences come back as tuples."""
    return msgpack.unpackb(data, ext_hook=_unpack, use_list=False, strict_map_key=False)


def _pack(value: Any) -> msgpack.ExtType:
    code = _CODES.get(type(value))
    if code is None:
        raise TypeError(f"{type(value).__name__} is not a message")
    values = tuple(getattr(value, name) for name in _FIELDS[type(value)])
    return msgpack.ExtType(code, msgpack.packb(values, default=_pack))


def _unpack(code: int, data: bytes) -> Any:
    values = msgpack.unpackb(data, ext_hook=_unpack, use_list=False, strict_map_key=False)
    return _TYPES[code](*values)
