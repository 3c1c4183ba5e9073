"""What a backbone family is: one record of functions over a model's configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from adapters_store.errors import IncompatibleError
from adapters_store.families.anatomy import Anatomy
from adapters_store.families.architecture import Architecture
from adapters_store.families.site import Site

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Family:
    """One family; each function takes the mapping of a ``config.json``.

    Module and parameter paths are relative to the base model: what ``AutoModel`` builds, and what
    every other class of the model gives as ``base_model``.

    ``sites`` lists the linear sites in execution order, ``anatomy`` every other place. ``runner``
    describes the whole transformer for the serving engine, None where it cannot run the family
    yet. ``prefixes`` are leading module paths that a model class may put in front of the paths
    here; ``renames`` are (regular expression, replacement) pairs that turn the paths of other
    versions of the model into those here, applied in order.
    """

    name: str
    sites: Callable[[Config], tuple[Site, ...]]
    anatomy: Callable[[Config], Anatomy]
    runner: Callable[[Config], Architecture] | None = None
    prefixes: tuple[str, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()

    def architecture(self, config: Config) -> Architecture:
        """The engine's record of the model; raises IncompatibleError where it cannot run it."""
        if self.runner is None:
            raise IncompatibleError(
                f"the engine does not run backbones of family {self.name!r}; their adapters can "
                "be trained, stored and exchanged",
                hint="docs/registry/families.md lists the families that the engine runs.",
            )
        return self.runner(config)
