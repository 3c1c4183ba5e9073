"""Names and references: the only grammar by which tenants' artefacts are addressed.

``tenant/name`` (alias ``prod``, else the newest version), ``tenant/name@alias``,
``tenant/name:7``, ``tenant/name@sha256:<hex>`` and the pinned form ``tenant/name:7@sha256:<hex>``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from adapters_store.errors import InvalidNameError

DEFAULT_ALIAS = "prod"
LATEST_ALIAS = "latest"
MAX_VERSION = 2**53

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_VERSION = re.compile(r"[1-9][0-9]{0,15}")
_RESERVED_ALIAS = re.compile(r"latest|v?[0-9]+")


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference; ``str()`` gives the text that parses back to an equal value.

    At most one of ``alias`` and ``version`` is set; ``digest`` excludes ``alias``. With none of
    them the default applies: alias ``prod``, else the newest version.
    """

    tenant: str
    name: str
    alias: str | None = None
    version: int | None = None
    digest: str | None = None

    @property
    def full_name(self) -> str:
        """``tenant/name`` without version, alias or digest."""
        return f"{self.tenant}/{self.name}"

    @property
    def is_bare(self) -> bool:
        """True where neither alias, version nor digest is given."""
        return self.alias is None and self.version is None and self.digest is None

    def __str__(self) -> str:
        text = self.full_name
        if self.version is not None:
            text += f":{self.version}"
        pointer = self.digest if self.digest is not None else self.alias
        return text if pointer is None else f"{text}@{pointer}"


def check_name(text: str, what: str) -> str:
    """Return ``text`` if it is a legal tenant, adapter, alias or backbone name.

    ``what`` says in the error which name it is. Raises
    :class:`~adapters_store.errors.InvalidNameError` otherwise.
    """
    if not _NAME.fullmatch(text):
        raise InvalidNameError(
            f"{what} {text[:80]!r} is not a legal name; expected lower-case letters, digits, "
            "'.', '_' or '-', at most 63 characters, beginning with a letter or digit",
            param=what,
        )
    return text


def check_alias(text: str) -> str:
    """Return ``text`` if an alias of that name may be set; raises InvalidNameError otherwise.

    ``latest`` always means the newest version, and ``v7`` or ``7`` would read like a version.
    """
    check_name(text, "alias")
    if _RESERVED_ALIAS.fullmatch(text):
        raise InvalidNameError(
            f"alias {text!r} is reserved; 'latest', 'v<digits>' and digits cannot be set",
            hint="Choose a word such as prod, canary or stable; versions read tenant/name:7.",
            param="alias",
        )
    return text


def is_digest(text: str) -> bool:
    """True for ``sha256:`` followed by 64 lower-case hexadecimal digits."""
    return _DIGEST.fullmatch(text) is not None


def parse_name(text: str) -> Reference:
    """Parse ``tenant/name`` alone; raises InvalidNameError where anything is appended."""
    reference = parse_reference(text)
    if not reference.is_bare:
        raise InvalidNameError(
            f"{text!r} carries a version, alias or digest; expected tenant/name", param="name"
        )
    return reference


def parse_reference(text: str) -> Reference:
    """Parse a reference; raises :class:`~adapters_store.errors.InvalidNameError`."""
    path, at, pointer = text.partition("@")
    path, colon, number = path.partition(":")
    tenant, slash, name = path.partition("/")
    if not slash:
        raise InvalidNameError(
            f"reference {text[:120]!r} has no tenant; expected tenant/name", param="reference"
        )
    check_name(tenant, "tenant")
    check_name(name, "name")
    version = _version(number, text) if colon else None
    if not at:
        return Reference(tenant, name, version=version)
    if pointer.startswith("sha256:"):
        if not is_digest(pointer):
            raise InvalidNameError(
                f"digest in {text[:200]!r} is not 'sha256:' and 64 lower-case hexadecimal digits",
                param="reference",
            )
        return Reference(tenant, name, version=version, digest=pointer)
    if version is not None:
        raise InvalidNameError(
            f"reference {text[:120]!r} has both a version and an alias; expected one of them",
            param="reference",
        )
    if pointer != LATEST_ALIAS:
        check_alias(pointer)
    return Reference(tenant, name, alias=pointer)


def parsed(reference: str | Reference) -> Reference:
    """A reference from itself or from its text; raises InvalidNameError."""
    return reference if isinstance(reference, Reference) else parse_reference(reference)


def _version(number: str, text: str) -> int:
    if not _VERSION.fullmatch(number) or int(number) > MAX_VERSION:
        raise InvalidNameError(
            f"version {number[:40]!r} in {text[:120]!r} is not a positive whole number",
            param="reference",
        )
    return int(number)
