"""Ed25519 signatures over an artefact's digest.

What is signed is a domain, so that the signature means nothing elsewhere, and the digest: it says
"this key vouches for this artefact" of exactly these bytes, under whatever name they are stored.
Keys are written ``ed25519:<base64 of 32 bytes>``, signatures ``ed25519:<key>:<signature>`` in
base64. Source: RFC 8032. ``cryptography`` is imported by what needs it (extra ``signing``).
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from adapters_store.canonical import digest_of
from adapters_store.errors import (
    ConflictError,
    InvalidArtefactError,
    NotFoundError,
    UnavailableError,
    UnsignedError,
    UsageError,
)
from adapters_store.names import check_name, is_digest
from adapters_store.refused import as_typed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

DOMAIN = b"patchbay-artefact-signature/1\0"
ALGORITHM = "ed25519"
_KEY_BYTES, _SIGNATURE_BYTES = 32, 64
_MAX_FILE_BYTES = 10_000


@dataclass(frozen=True, slots=True)
class PublicKey:
    """32 bytes; ``str()`` gives the text that parses back to an equal key."""

    raw: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """A key from ``ed25519:<base64>``; raises UsageError."""
        algorithm, _, encoded = text.partition(":")
        raw = _decoded(encoded, _KEY_BYTES)
        if algorithm != ALGORITHM or raw is None:
            raise UsageError(
                f"public key {text[:100]!r}; expected {ALGORITHM}:<base64 of {_KEY_BYTES} bytes>",
                hint="`patchbay adapters keys show FILE` prints the public key of a key file.",
            )
        return cls(raw)

    @property
    def id(self) -> str:
        """``sha256:<hex>`` of the key."""
        return digest_of(self.raw)

    def __str__(self) -> str:
        return f"{ALGORITHM}:{_encoded(self.raw)}"


@dataclass(frozen=True, slots=True)
class Signature:
    """A key's signature; ``str()`` gives the text that parses back to an equal one."""

    key: PublicKey
    raw: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """A signature from its text; raises InvalidArtefactError."""
        steps = text.strip().split(":")
        if len(steps) == 3 and steps[0] == ALGORITHM:
            key, raw = _decoded(steps[1], _KEY_BYTES), _decoded(steps[2], _SIGNATURE_BYTES)
            if key is not None and raw is not None:
                return cls(PublicKey(key), raw)
        raise InvalidArtefactError(
            f"signature {text[:40]!r}; expected {ALGORITHM}:<base64 key>:<base64 signature>",
            hint="`patchbay adapters sign` prints a signature in this form.",
            param="signature",
        )

    def is_valid(self, digest: str) -> bool:
        """True where the key signed that artefact digest.

        Raises UnavailableError where ``cryptography`` is not installed.
        """
        _require_cryptography()
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.key.raw).verify(self.raw, message(digest))
        except (InvalidSignature, ValueError):
            return False
        return True

    def check(self, digest: str) -> None:
        """Raise InvalidArtefactError unless it is valid for that artefact digest."""
        if not self.is_valid(digest):
            raise InvalidArtefactError(
                f"the signature by key {self.key.id} does not fit artefact {digest}",
                hint="Sign this artefact's own digest; `patchbay adapters sign` does.",
                param="signature",
            )

    def __str__(self) -> str:
        return f"{self.key}:{_encoded(self.raw)}"


@dataclass(frozen=True, slots=True)
class SignatureRecord:
    """A stored signature of an artefact digest: who added it, and when."""

    digest: str
    signature: Signature
    actor: str
    at: str

    def as_json(self) -> dict[str, Any]:
        """The stable JSON form."""
        return {
            "digest": self.digest,
            "key_id": self.signature.key.id,
            "public_key": str(self.signature.key),
            "signature": str(self.signature),
            "actor": self.actor,
            "at": self.at,
        }


class SigningKey:
    """A private key in a PEM file that its owner alone may read."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private

    @classmethod
    def create(cls, path: str | Path) -> Self:
        """Make a key and write it with mode 0600; raises ConflictError where the file exists."""
        _require_cryptography()
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        private = Ed25519PrivateKey.generate()
        pem = private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise ConflictError(f"{path} exists", hint="Choose another file.") from error
        except OSError as error:
            raise as_typed(error, f"cannot write {path}") from error
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            file.write(pem)
        return cls(private)

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a key file; raises NotFoundError, and UsageError where others may read it."""
        _require_cryptography()
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            with open(path, "rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                pem = file.read(_MAX_FILE_BYTES)
        except FileNotFoundError as error:
            raise NotFoundError(
                f"no key at {path}", hint="Make one with `patchbay adapters keys new FILE`."
            ) from error
        except OSError as error:
            raise as_typed(error, f"cannot read {path}") from error
        if mode & 0o077:
            raise UsageError(
                f"{path} has mode {mode:04o}; a private key must be its owner's alone",
                hint=f"chmod 600 {path}",
            )
        try:
            private = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise UsageError(f"{path} holds no private key in PEM: {error}") from error
        if not isinstance(private, Ed25519PrivateKey):
            raise UsageError(f"{path} holds a key of another kind; expected Ed25519")
        return cls(private)

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return PublicKey(self._private.public_key().public_bytes_raw())

    def sign(self, digest: str) -> Signature:
        """The signature of an artefact digest; raises UsageError for text that is no digest."""
        return Signature(self.public, self._private.sign(message(digest)))


class Trust:
    """Which keys vouch for which tenant; a tenant that is not named needs no signature.

    Raises UsageError for what is no key, UnavailableError where ``cryptography`` is missing.
    """

    def __init__(self, keys: Mapping[str, Sequence[str]]) -> None:
        self._keys = {
            check_name(tenant, "tenant"): frozenset(PublicKey.parse(text) for text in texts)
            for tenant, texts in keys.items()
        }
        if self._keys:
            _require_cryptography()

    def requires_signature(self, tenant: str) -> bool:
        """True where the tenant's artefacts must be signed."""
        return tenant in self._keys

    def check(self, tenant: str, digest: str, signatures: Collection[Signature]) -> None:
        """Raise UnsignedError unless one of the tenant's keys signed that artefact digest."""
        trusted = self._keys.get(tenant)
        if trusted is None:
            return
        by_trusted = [one for one in signatures if one.key in trusted]
        if any(one.is_valid(digest) for one in by_trusted):
            return
        found = "a signature that does not fit it" if by_trusted else "none of them signed it"
        raise UnsignedError(
            f"artefact {digest} of tenant {tenant!r} needs a signature by one of "
            f"{len(trusted)} trusted keys; {found}"
        )


def message(digest: str) -> bytes:
    """What is signed for an artefact digest; raises UsageError for text that is no digest."""
    if not is_digest(digest):
        raise UsageError(f"{digest[:80]!r} is not an artefact digest")
    return DOMAIN + digest.encode()


def _encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _decoded(text: str, num_bytes: int) -> bytes | None:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == num_bytes and _encoded(raw) == text else None


def _require_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ModuleNotFoundError as error:
        raise UnavailableError(
            "signing needs the Python package cryptography",
            hint="Install Patchbay with its extra: pip install 'patchbay[signing]'.",
        ) from error
