"""The engine core: a child process that owns one backbone, and its asyncio client."""
