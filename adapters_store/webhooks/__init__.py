"""Webhooks: events of the registry, POSTed to subscribers in order and signed."""

from __future__ import annotations

from adapters_store.webhooks.signing import verify_signature

__all__ = ["verify_signature"]
