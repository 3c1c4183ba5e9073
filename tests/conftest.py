"""Services that any test may use; each starts when the first test asks for it."""

from __future__ import annotations

pytest_plugins = (
    "services.backbones",
    "services.catalogs",
    "services.hub",
    "services.postgres",
    "services.s3",
)
