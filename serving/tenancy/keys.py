"""API keys: 256-bit random secrets, stored as SHA-256, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from adapters_store.errors import ForbiddenError, UnauthorizedError

Scope = Literal["infer", "register", "admin"]
ALL_SCOPES: frozenset[Scope] = frozenset({"infer", "register", "admin"})


def new_key(prefix: str = "pb") -> str:
    """A fresh secret with 256 random bits, safe in a header and in a URL."""
    return f"{prefix}-{secrets.token_urlsafe(32)}"


def hash_key(secret: str) -> str:
    """``sha256:<hex>`` of a secret: what is stored and compared."""
    return "sha256:" + hashlib.sha256(secret.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of a request. ``tenant`` None may act for every tenant."""

    name: str
    tenant: str | None
    scopes: frozenset[Scope]

    def require(self, scope: Scope, tenant: str | None = None) -> None:
        """Raise :class:`ForbiddenError` unless this caller may do ``scope`` for ``tenant``.

        ``admin`` implies the other scopes.
        """
        if scope not in self.scopes and "admin" not in self.scopes:
            raise ForbiddenError(f"key {self.name!r} lacks the scope {scope!r}")
        if tenant is not None and self.tenant is not None and tenant != self.tenant:
            raise ForbiddenError(
                f"key {self.name!r} belongs to tenant {self.tenant!r}, not to {tenant!r}",
                hint="Use a key of that tenant.",
            )


class StoredKey(Protocol):
    """What a key ring reads of a configured key."""

    @property
    def hash(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def tenant(self) -> str | None: ...
    @property
    def scopes(self) -> frozenset[Scope]: ...


class KeyRing:
    """Authenticates ``Authorization`` headers against stored key hashes.

    Without keys (development mode) a request without a header is the ``development`` principal
    with every scope; a wrong key is still refused.
    """

    def __init__(self, keys: Iterable[StoredKey] = (), development_hash: str | None = None) -> None:
        self._keys = [(key.hash, Principal(key.name, key.tenant, key.scopes)) for key in keys]
        self.is_open = not self._keys
        self._anonymous = Principal("development", None, ALL_SCOPES)
        if self.is_open and development_hash is not None:
            self._keys.append((development_hash, self._anonymous))

    def authenticate(self, header: str | None) -> Principal:
        """The caller named by an ``Authorization`` header; raises :class:`UnauthorizedError`."""
        if header is None:
            if self.is_open:
                return self._anonymous
            raise UnauthorizedError("the Authorization header is missing")
        scheme, _, secret = header.partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise UnauthorizedError("the Authorization header must read `Bearer <key>`")
        digest = hash_key(secret.strip())
        found = [who for stored, who in self._keys if hmac.compare_digest(stored, digest)]
        if not found:
            raise UnauthorizedError("the key is not known here")
        return found[0]
