"""Delivery: events POSTed to their subscribers, signed, in order, at least once.

An attempt has one deadline for everything: name resolution, connection, answer. Redirects are not
followed and proxies of the environment are not used, because either would lead past the check of
the address.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adapters_store.canonical import canonical_json
from adapters_store.errors import PatchbayError, UnavailableError, UsageError
from adapters_store.ledger.events import Event
from adapters_store.webhooks import signing
from adapters_store.webhooks.queue import Claimed, DeliveryQueue, Due
from adapters_store.webhooks.target import Endpoint, check_target

if TYPE_CHECKING:
    import ssl

    import httpx

    from adapters_store.store import Store

_LOG = logging.getLogger(__name__)
_MAX_ANSWER_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """How patient a deliverer is; times in seconds.

    The n-th retry comes after ``first_delay_s * 2 ** (n - 1)``, at most ``max_delay_s``, of which
    up to half is taken off by chance. After ``max_attempts`` an event becomes a dead letter.
    ``lease_s`` is how long a webhook waits for a deliverer that fell silent.
    """

    timeout_s: float = 10.0
    lease_s: float = 60.0
    max_attempts: int = 12
    first_delay_s: float = 5.0
    max_delay_s: float = 3600.0
    max_events_per_claim: int = 100

    def __post_init__(self) -> None:
        if not 0 < self.timeout_s < self.lease_s:
            raise UsageError(
                f"timeout_s is {self.timeout_s:g} and lease_s {self.lease_s:g}; expected a "
                "timeout above 0 and below the lease"
            )

    def delay_s(self, num_failures: int) -> float | None:
        """The time until the next attempt after so many failures, None to give up."""
        if num_failures >= self.max_attempts:
            return None
        delay_s = min(self.first_delay_s * 2.0 ** min(num_failures - 1, 60), self.max_delay_s)
        return delay_s * random.uniform(0.5, 1.0)


@dataclass(frozen=True, slots=True)
class DeliveryCounts:
    """Attempts of one pass by their outcome."""

    num_delivered: int = 0
    num_failed: int = 0
    num_dead: int = 0

    def as_json(self) -> dict[str, int]:
        """The stable JSON form."""
        return {
            "num_delivered": self.num_delivered,
            "num_failed": self.num_failed,
            "num_dead": self.num_dead,
        }

    def plus(self, other: DeliveryCounts) -> DeliveryCounts:
        """The sum of both."""
        return DeliveryCounts(
            self.num_delivered + other.num_delivered,
            self.num_failed + other.num_failed,
            self.num_dead + other.num_dead,
        )


class Deliverer:
    """Serves the webhooks of a store; any number of them, in any processes, share the work.

    Raises UnavailableError where httpx is not installed.
    """

    def __init__(
        self, store: Store, *, policy: DeliveryPolicy | None = None, num_workers: int = 4
    ) -> None:
        self._policy = policy or DeliveryPolicy()
        self._num_workers = num_workers
        self._queue: DeliveryQueue = store.webhooks.queue(self._policy.lease_s)
        self._httpx, self._tls = _load_httpx()

    def deliver_due(self) -> DeliveryCounts:
        """Deliver until nothing is due; failures wait for a later pass."""

        def serve() -> DeliveryCounts:
            total = DeliveryCounts()
            while (counts := self._serve_one(threading.Event())) is not None:
                total = total.plus(counts)
            return total

        with ThreadPoolExecutor(self._num_workers, "webhook-deliverer") as pool:
            workers = [pool.submit(serve) for _ in range(self._num_workers)]
        total = DeliveryCounts()
        for worker in workers:
            total = total.plus(worker.result())
        return total

    def run(self, stopping: threading.Event, *, poll_s: float = 1.0) -> None:
        """Deliver as events come, until ``stopping`` is set and the attempts under way ended.

        A catalog that cannot be used for a while is waited for.
        """

        def serve() -> None:
            while not stopping.is_set():
                try:
                    served = self._serve_one(stopping)
                except PatchbayError as error:
                    _LOG.warning("webhooks wait: %s", error.message)
                    served = None
                if served is None:
                    stopping.wait(poll_s)

        with ThreadPoolExecutor(self._num_workers, "webhook-deliverer") as pool:
            workers = [pool.submit(serve) for _ in range(self._num_workers)]
        for worker in workers:
            worker.result()

    def _serve_one(self, stopping: threading.Event) -> DeliveryCounts | None:
        """Serve the webhook that waits longest, for a bounded while; None where none is due."""
        claimed = self._queue.claim()
        if claimed is None:
            return None
        try:
            return asyncio.run(self._serve(claimed, stopping))
        finally:
            self._queue.release(claimed)

    async def _serve(self, claimed: Claimed, stopping: threading.Event) -> DeliveryCounts:
        counts = DeliveryCounts()
        client = self._httpx.AsyncClient(
            verify=self._tls, trust_env=False, timeout=self._policy.timeout_s
        )
        async with client:
            for _ in range(self._policy.max_events_per_claim):
                due = None if stopping.is_set() else self._queue.next(claimed)
                if due is None:
                    break
                counts = counts.plus(await self._deliver(client, claimed, due))
        return counts

    async def _deliver(
        self, client: httpx.AsyncClient, claimed: Claimed, due: Due
    ) -> DeliveryCounts:
        error = await self._attempt(client, claimed, due.event)
        if error is None:
            self._queue.succeeded(claimed, due)
            return DeliveryCounts(num_delivered=1)
        retry_after_s = self._policy.delay_s(due.num_attempts + 1)
        self._queue.failed(claimed, due, error, retry_after_s)
        if retry_after_s is None:
            _LOG.warning("webhook %d gave up event %d: %s", claimed.id, due.event.sequence, error)
            return DeliveryCounts(num_dead=1)
        return DeliveryCounts(num_failed=1)

    async def _attempt(
        self, client: httpx.AsyncClient, claimed: Claimed, event: Event
    ) -> str | None:
        """Deliver once; what went wrong, or None."""
        timeout_s = self._policy.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                endpoint = await asyncio.to_thread(
                    check_target, claimed.url, allow_private=claimed.allow_private
                )
                status = await self._post(client, claimed, endpoint, event)
        except TimeoutError:
            return f"no answer within {timeout_s:g} s"
        except (self._httpx.HTTPError, OSError) as error:
            return f"{type(error).__name__}: {error}"
        except PatchbayError as error:
            return error.message
        return None if 200 <= status < 300 else f"the receiver answered {status}"

    async def _post(
        self, client: httpx.AsyncClient, claimed: Claimed, endpoint: Endpoint, event: Event
    ) -> int:
        """The status of the first address that takes the connection."""
        body = envelope(event)
        headers = headers_of(claimed, event, body) | {"host": endpoint.host}
        extensions = {"sni_hostname": endpoint.server_name}
        last = len(endpoint.urls) - 1
        for number, url in enumerate(endpoint.urls):
            request = client.stream(
                "POST", url, content=body, headers=headers, extensions=extensions
            )
            try:
                async with request as response:
                    await _skip(response)
                    return response.status_code
            except (self._httpx.ConnectError, self._httpx.ConnectTimeout):
                if number == last:
                    raise
        raise AssertionError("an endpoint has at least one address")


def envelope(event: Event) -> bytes:
    """The body of an event's deliveries, the same bytes at every attempt."""
    document = event.as_json()
    return canonical_json(
        {
            "id": document["hash"],
            "sequence": document["sequence"],
            "type": document["type"],
            "at": document["at"],
            "actor": document["actor"],
            "subject": document["subject"],
            "payload": document["payload"],
        }
    )


def headers_of(claimed: Claimed, event: Event, body: bytes) -> dict[str, str]:
    """The headers of one attempt: what it is, when it is made, and the signature over both."""
    timestamp = str(int(time.time()))
    return {
        "content-type": "application/json",
        "user-agent": "patchbay-webhooks/1",
        signing.DELIVERY_HEADER: f"{claimed.id}-{event.sequence}",
        signing.EVENT_HEADER: event.type,
        signing.TIMESTAMP_HEADER: timestamp,
        signing.SIGNATURE_HEADER: signing.sign(claimed.secret, timestamp, body),
    }


async def _skip(response: httpx.Response) -> None:
    """Read a short answer, so that the connection can be used again; leave a long one."""
    num_bytes = 0
    async for piece in response.aiter_raw():
        num_bytes += len(piece)
        if num_bytes > _MAX_ANSWER_BYTES:
            return


def _load_httpx() -> tuple[Any, ssl.SSLContext]:
    try:
        import httpx
    except ImportError as error:
        raise UnavailableError(
            "delivering webhooks needs the Python package 'httpx', which cannot be imported",
            hint="Install it: pip install 'patchbay[serve]'.",
        ) from error
    return httpx, httpx.create_ssl_context()
