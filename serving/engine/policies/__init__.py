"""Scheduling policies: a lazy table from name to the class that orders the waiting rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters_store.lazy import resolve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serving.engine.policies.base import Policy

POLICIES: dict[str, str] = {
    "fair": "serving.engine.policies.fair:FairPolicy",
    "fifo": "serving.engine.policies.fifo:FifoPolicy",
}


def build_policy(
    name: str, weights: Mapping[str, float], max_wait_s: float, burst_tokens: int
) -> Policy:
    """The policy of that name; raises UsageError for an unknown one.

    ``weights`` are tenants' shares (1 where a tenant is not named), ``max_wait_s`` the seconds
    after which a row passes priorities, ``burst_tokens`` the work that a tenant below its share
    may save up.
    """
    kind = resolve(POLICIES, name, "scheduling policy")
    policy: Policy = kind(weights, max_wait_s, burst_tokens)
    return policy


__all__ = ["POLICIES", "build_policy"]
