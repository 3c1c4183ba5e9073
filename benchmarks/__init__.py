"""Benchmarks: a ratio against a named baseline measured in the same run, as table and JSON."""
