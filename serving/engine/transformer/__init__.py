"""A generic transformer over flat tokens, driven by a family's record."""
