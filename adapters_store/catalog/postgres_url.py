"""The URL of a PostgreSQL catalog: parsed once, its password never printed."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from sqlalchemy import URL

from adapters_store.errors import UsageError

DEFAULT_SCHEMA = "public"
EXPECTED = "postgresql://user:${PGPASSWORD}@host:5432/database?schema=name"
# What libpq lets a URL say and a catalog passes on; everything else is refused by name.
DRIVER_OPTIONS = frozenset(
    {
        "application_name",
        "channel_binding",
        "connect_timeout",
        "gssencmode",
        "host",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "passfile",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslmode",
        "sslnegotiation",
        "sslrootcert",
        "target_session_attrs",
        "tcp_user_timeout",
    }
)

_ENCODE = "Percent-encode reserved characters of a password, or write it as ${PGPASSWORD}."
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class PostgresUrl:
    """Where a catalog stands; ``location`` is the text for messages, without the password.

    Parts that are None are left to libpq, whose defaults and ``PG*`` variables then apply.
    """

    user: str | None
    password: str | None = field(repr=False)
    host: str | None
    port: int | None
    database: str | None
    schema: str
    driver_options: dict[str, str]

    @property
    def driver_url(self) -> URL:
        """The URL for psycopg 3."""
        return URL.create(
            "postgresql+psycopg", self.user, self.password, self.host, self.port, self.database
        )

    @property
    def location(self) -> str:
        """``postgresql://user@host:port/database?schema=name``, without password or options."""
        user = f"{self.user}@" if self.user else ""
        host = self.host or self.driver_options.get("host", "")
        port = f":{self.port}" if self.port else ""
        where = f"postgresql://{user}{host}{port}/{self.database or ''}"
        return where if self.schema == DEFAULT_SCHEMA else f"{where}?schema={self.schema}"


def parse_postgres_url(url: str) -> PostgresUrl:
    """Parse a catalog's URL and fill in ``${VARIABLE}`` from the environment.

    A variable's value stands as it is; other characters that a URL reserves are percent-encoded.
    Raises UsageError, whose message never repeats the URL.
    """
    try:
        parts = urlsplit(url)
        user, password, host, port = _authority(parts.netloc)
    except ValueError:
        # The cause would quote a piece of the URL, which may be a piece of the password.
        raise UsageError(
            f"the catalog's URL cannot be read; expected {EXPECTED}", hint=_ENCODE
        ) from None
    options = _options(parts.query)
    schema = options.pop("schema", DEFAULT_SCHEMA)
    if not _SCHEMA.fullmatch(schema) or schema.startswith("pg_"):
        raise UsageError(
            f"schema {schema!r} in the catalog's URL; expected lower-case letters, digits and '_', "
            "not beginning with a digit or 'pg_'"
        )
    if parts.fragment or "/" in parts.path.removeprefix("/"):
        raise UsageError(
            f"the catalog's URL has a second path or a fragment; expected {EXPECTED}",
            hint=_ENCODE,
        )
    return PostgresUrl(
        user, password, host, port, _filled(parts.path.removeprefix("/")), schema, options
    )


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name != "schema" and name not in DRIVER_OPTIONS:
            raise UsageError(
                f"option {name!r} in the catalog's URL is not known; known: schema, "
                + ", ".join(sorted(DRIVER_OPTIONS)),
                hint="Passwords stand before the host: " + EXPECTED + ".",
            )
        if name in options:
            raise UsageError(f"option {name!r} stands twice in the catalog's URL")
        options[name] = _VARIABLE.sub(lambda match: _variable(match[1]), value)
    return options


def _authority(netloc: str) -> tuple[str | None, str | None, str | None, int | None]:
    """User, password, host and port; raises ValueError."""
    account, _, address = netloc.rpartition("@")
    user, _, password = account.partition(":")
    if address.startswith("["):
        host, _, rest = address[1:].partition("]")
        empty, _, port = rest.partition(":")
        if empty:
            raise ValueError("text between host and port")
    else:
        host, _, port = address.partition(":")
    number = _filled(port)
    if number is not None and not 0 < int(number) < 65536:
        raise ValueError("port out of range")
    return _filled(user), _filled(password), _filled(host), int(number) if number else None


def _filled(text: str) -> str | None:
    """A part of the URL, decoded, with its variables filled in; None where it is empty."""
    pieces = _VARIABLE.split(text)
    pieces[::2] = [unquote(piece) for piece in pieces[::2]]
    pieces[1::2] = [_variable(name) for name in pieces[1::2]]
    return "".join(pieces) or None


def _variable(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise UsageError(
            f"the catalog's URL names the environment variable {name!r}, which is not set"
        )
    return value
