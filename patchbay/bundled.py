"""What ships with the distribution: a backbone, a bank of skills and the routing of seen tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adapters_store.store import Store

FOLDER = Path(__file__).parent / "bundled"
BACKBONE_FOLDER = FOLDER / "backbone"
BANK_FOLDER = FOLDER / "bank"
ROUTING_FOLDER = FOLDER / "routing"
BACKBONE_NAME = "bytes-small"
BANK_NAME = "patchbay/skills"


def task_names() -> list[str]:
    """Names of the bundled tasks, without a tenant."""
    return sorted(path.name for path in ROUTING_FOLDER.iterdir() if path.is_dir())


def register(store: Store, tenants: tuple[str, ...]) -> dict[str, str]:
    """Publish the bank and every bundled task; answers task name -> reference.

    Tasks are dealt to the tenants in turn. Publishing again changes nothing: the same bytes
    under the same name are the same version.
    """
    from adapters_store.artefact import read_artefact
    from adapters_store.backbone import Backbone

    store.add_backbone(Backbone.from_folder(BACKBONE_FOLDER), name=BACKBONE_NAME)
    store.publish(BANK_NAME, read_artefact(BANK_FOLDER))
    names = {
        task: f"{tenants[index % len(tenants)]}/{task}" for index, task in enumerate(task_names())
    }
    store.publish_many([(names[task], read_artefact(ROUTING_FOLDER / task)) for task in names])
    return names
