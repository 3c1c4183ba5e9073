"""Webhooks: events of the registry, POSTed to subscribers in order and signed."""

from __future__ import annotations

from adapters_store.webhooks.deliverer import Deliverer, DeliveryCounts, DeliveryPolicy
from adapters_store.webhooks.records import DeadLetter, Webhook
from adapters_store.webhooks.registry import Webhooks
from adapters_store.webhooks.signing import verify_signature

__all__ = [
    "DeadLetter",
    "Deliverer",
    "DeliveryCounts",
    "DeliveryPolicy",
    "Webhook",
    "Webhooks",
    "verify_signature",
]
