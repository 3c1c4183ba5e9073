"""The HTTP application: one router per resource over one service."""
