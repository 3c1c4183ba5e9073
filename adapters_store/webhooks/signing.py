"""Signatures of deliveries: HMAC-SHA256 over the time and the body."""

from __future__ import annotations

import hashlib
import hmac
import time

SCHEME = "v1"
TOLERANCE_S = 300.0

DELIVERY_HEADER = "x-patchbay-delivery"
EVENT_HEADER = "x-patchbay-event"
TIMESTAMP_HEADER = "x-patchbay-timestamp"
SIGNATURE_HEADER = "x-patchbay-signature"


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """``v1=<hex>`` of HMAC-SHA256 under the secret over ``{timestamp}.{body}``."""
    message = timestamp.encode() + b"." + body
    return f"{SCHEME}={hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()}"


def verify_signature(
    secret: str,
    timestamp: str,
    body: bytes,
    signature: str,
    *,
    tolerance_s: float = TOLERANCE_S,
    now_s: float | None = None,
) -> bool:
    """True where the signature is of these bytes and the time is within the tolerance.

    ``timestamp`` and ``signature`` are the headers' text, ``body`` the bytes as received;
    ``now_s`` is the receiver's Unix time, by default its clock.
    """
    if not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 12:
        return False
    present_s = time.time() if now_s is None else now_s
    if abs(present_s - int(timestamp)) > tolerance_s:
        return False
    return hmac.compare_digest(sign(secret, timestamp, body).encode(), signature.encode())
