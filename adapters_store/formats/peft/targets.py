"""What a configuration's targets say, compared with the tensors, which are the truth."""

from __future__ import annotations

from collections.abc import Sequence

from adapters_store.errors import InvalidArtefactError
from adapters_store.families.site import Site
from adapters_store.formats.draft import Draft
from adapters_store.formats.peft.modules import Module
from adapters_store.formats.peft.patterns import Pattern
from adapters_store.formats.peft.settings import FactorSettings, Names, TargetSettings

_ALL_LINEAR = "all-linear"


def report_targets(
    draft: Draft, settings: TargetSettings, modules: Sequence[tuple[Module, Site]]
) -> None:
    """Note where the targets and the modules with tensors differ; nothing here rejects."""
    if not modules:
        return
    module, site = modules[0]
    known: list[str] = []
    if module.path.endswith(site.module_path):
        prefix = module.path.removesuffix(site.module_path)
        known = [prefix + site.module_path for site in draft.shapes.sites.values()]
    try:
        Targets(settings, draft).report([module.path for module, _ in modules], known)
    except InvalidArtefactError as error:
        draft.note("unmatched_target", f"not compared with the tensors: {error.message}")


class NameMatcher:
    """PEFT's rule for module names: an expression over the whole path, or a list of endings."""

    def __init__(self, names: Names, draft: Draft) -> None:
        self.names = names if isinstance(names, list) else []
        self.is_everything = isinstance(names, str) and names.lower() == _ALL_LINEAR
        has_pattern = isinstance(names, str) and names != "" and not self.is_everything
        self.pattern = Pattern(str(names), draft.meter) if has_pattern else None
        self._names = frozenset(self.names)

    def __bool__(self) -> bool:
        return bool(self.names) or self.is_everything or self.pattern is not None

    def matches(self, path: str) -> bool:
        """True where ``path`` is named; raises InvalidArtefactError as a Pattern does."""
        if self.pattern is not None:
            return self.pattern.matches(path)
        return self.is_everything or any(ending in self._names for ending in endings(path))


def endings(path: str) -> list[str]:
    """The path and everything behind one of its dots: ``a.b.c``, ``b.c``, ``c``."""
    steps = path.split(".")
    return [".".join(steps[start:]) for start in range(len(steps))]


class Targets:
    """The targets of a configuration as PEFT applies them when it makes the model."""

    def __init__(self, settings: TargetSettings, draft: Draft) -> None:
        self._draft = draft
        self._targets = NameMatcher(settings.target_modules, draft)
        self._excluded = NameMatcher(settings.exclude_modules, draft)
        layers: int | list[int] | None = None
        given: Names = None
        if isinstance(settings, FactorSettings):
            layers, given = settings.layers_to_transform, settings.layers_pattern
        self._layers = [layers] if isinstance(layers, int) else (layers or [])
        patterns = [given] if isinstance(given, str) else (given or [])
        self._layer_patterns = [
            Pattern(rf"(?:.*\.)?(?:{text})", draft.meter) for text in patterns if text
        ]

    def report(self, paths: Sequence[str], site_paths: Sequence[str]) -> None:
        """Note targets that name nothing, modules that no target names, and targets unanswered.

        ``paths`` are the file's modules, ``site_paths`` all linear sites in the file's spelling.
        """
        if not self._targets:
            return
        known = {ending for path in (*paths, *site_paths) for ending in endings(path)}
        for name in sorted(set(self._targets.names) - known):
            self._note("unmatched_target", f"target {name!r} names no module", name)
        targeted = {path for path in {*paths, *site_paths} if self.names(path)}
        if outside := [path for path in paths if path not in targeted]:
            self._note("outside_targets", f"{_some(outside)} with tensors but no target")
        if absent := sorted(targeted - set(paths)):
            self._note("unmatched_target", f"{_some(absent)} targeted but without tensors")

    def names(self, path: str) -> bool:
        """True where PEFT would adapt the module at ``path``."""
        if self._excluded and self._excluded.matches(path):
            return False
        if not self._targets.matches(path):
            return False
        is_listed = path in self._targets.names
        return is_listed or not self._layers or self._layer(path) in self._layers

    def _layer(self, path: str) -> int | None:
        """The first number in the path that a layers pattern, or else two names, stand before."""
        steps = path.split(".")
        numbers = [i for i, step in enumerate(steps[:-1]) if step.isdecimal()]
        for pattern in self._layer_patterns:
            for i in numbers:
                if pattern.matches(".".join(steps[:i])):
                    return int(steps[i])
        if self._layer_patterns:
            return None
        return next((int(steps[i]) for i in numbers if i > 1), None)

    def _note(self, code: str, message: str, where: str = "") -> None:
        self._draft.note(code, message, where or "target_modules")


def _some(paths: Sequence[str]) -> str:
    shown = ", ".join(repr(path) for path in paths[:3])
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return f"{shown}{more} {'is' if len(paths) == 1 else 'are'}"
