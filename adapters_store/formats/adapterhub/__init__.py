"""Directories of the library ``adapters`` (AdapterHub)."""
