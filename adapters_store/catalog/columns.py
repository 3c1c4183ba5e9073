"""Column types that mean the same on every catalog."""

from __future__ import annotations

from sqlalchemy import BigInteger, Integer, String, Text

# SQLite's INTEGER has 64 bits under this name alone, and only this name makes a row id.
INTEGER = BigInteger().with_variant(Integer(), "sqlite")
# Bytewise order, so that pages are alike everywhere and no locale update can break an index.
STRING = String().with_variant(String(collation="C"), "postgresql")
TEXT = Text().with_variant(Text(collation="C"), "postgresql")
