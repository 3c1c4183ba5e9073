"""Leases for what an engine has in memory, so that a collection never takes it away.

The step loop looks at the cache, a thread here talks to the catalog: no step waits for a database.
"""

from __future__ import annotations

import logging
import os
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable

from adapters_store.errors import NotFoundError, PatchbayError
from adapters_store.ledger.leases import Leases

TTL_S = 120.0
RENEW_S = 30.0
LOOK_S = 1.0

_LOG = logging.getLogger(__name__)
_END = None


class LeaseKeeper:
    """Keeps one owner's leases equal to what ``resident`` gives; times are in seconds.

    A change is told within ``LOOK_S`` and everything is renewed every ``RENEW_S``. While the
    catalog cannot be used the leases last ``TTL_S``, and serving goes on. ``close`` gives them
    back.
    """

    def __init__(self, leases: Leases, backbone: str, resident: Callable[[], set[str]]) -> None:
        self.owner = f"{backbone} on {socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._leases = leases
        self._resident = resident
        self._looked_at = self._told_at = -RENEW_S
        self._told: set[str] = set()
        self._held: set[str] = set()
        self._news: queue.SimpleQueue[set[str] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._keep, name="lease-keeper", daemon=True)
        self._thread.start()

    def look(self) -> None:
        """Called by the step loop, often: pass on what is resident when it is due."""
        at = time.monotonic()
        if at - self._looked_at < LOOK_S:
            return
        self._looked_at = at
        resident = self._resident()
        if resident != self._told or (resident and at - self._told_at >= RENEW_S):
            self._told, self._told_at = resident, at
            self._news.put(resident)

    def close(self, timeout_s: float = 5.0) -> None:
        """Give everything back; returns after ``timeout_s`` at the latest."""
        self._news.put(_END)
        self._thread.join(timeout_s)

    def _keep(self) -> None:
        while (resident := self._news.get()) is not _END:
            try:
                self._hold(resident)
            except PatchbayError as error:
                _LOG.warning("the leases of %s could not be renewed: %s", self.owner, error.message)
        try:
            if self._held:
                self._leases.release(self.owner)
        except PatchbayError as error:
            _LOG.warning("the leases of %s were not given back: %s", self.owner, error.message)

    def _hold(self, resident: set[str]) -> None:
        if resident == self._held:
            try:
                self._leases.renew(self.owner, TTL_S)
            except NotFoundError:
                self._leases.hold(self.owner, resident, TTL_S)
        else:
            self._leases.hold(self.owner, resident, TTL_S)
        self._held = resident
