"""Tenancy: who calls, and what they may do."""

from serving.tenancy.keys import KeyRing, Principal, Scope, hash_key, new_key

__all__ = ["KeyRing", "Principal", "Scope", "hash_key", "new_key"]
