"""Serving: the engine, its primitives and the HTTP application."""
