"""Modules of an mttl checkpoint: which tensors stand at which site, and who shares a selector."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from adapters_store.families.site import Site
from adapters_store.formats.draft import Draft
from adapters_store.formats.inspection import TensorRef
from adapters_store.formats.mttl import LOGITS

_STEPS = {"layerwise": "layer", "blockwise": "block", "coderwise": "coder"}


@dataclass(slots=True)
class Module:
    """One adapted module: its path in the model, its site, and its tensors by their suffix."""

    path: str
    site: Site
    names: dict[str, str] = field(default_factory=dict)


def group(draft: Draft, prefix: str, ending: re.Pattern[str]) -> list[Module]:
    """The modules with a tensor whose name ends as ``ending`` says, sorted by path.

    A module that is no site and a second one of a site are reasons; a name without ``prefix`` or
    with another end is left for the draft to refuse.
    """
    found: dict[str, dict[str, str]] = {}
    for name in sorted(draft.tensors):
        end = ending.search(name)
        if end is not None and name.startswith(prefix):
            path = name[len(prefix) : end.start()]
            found.setdefault(path, {})[end.group()] = name
    modules: list[Module] = []
    seen: dict[str, str] = {}
    for path, names in found.items():
        site = draft.lookup.site(path)
        if site is None or site.name in seen:
            problem = f"and {seen[site.name]!r} are one site" if site else "is not a linear site"
            draft.drop(names.values())
            code = "extra_tensor" if site else "incompatible"
            where = f"of backbone {draft.backbone.name!r} ({draft.backbone.family})"
            draft.reject(code, f"module {path!r} {problem} {where}", path)
            continue
        seen[site.name] = draft.paths[site.name] = path
        modules.append(Module(path, site, names))
    return modules


def shared_logits(
    draft: Draft,
    modules: Sequence[Module],
    bins: Mapping[str, str],
    shape: Sequence[int | None],
) -> dict[str, TensorRef]:
    """By module path, the logits that its bin shares.

    mttl saves a shared selector once, below the bin's first module; a second one in a bin is left
    as a tensor that nothing explains.
    """
    owners: dict[str, TensorRef | None] = {}
    for module in modules:
        own, name = bins[module.path], module.names.get(LOGITS)
        if name is not None and own not in owners:
            owners[own] = draft.take(name, shape)
    for own in dict.fromkeys(bins[module.path] for module in modules):
        if own not in owners:
            paths = [path for path, one in bins.items() if one == own]
            message = (
                f"no selector is saved for {paths[0]!r} and the {len(paths) - 1} that share it"
            )
            draft.reject("missing_tensor", message, own or paths[0])
    found = {path: owners.get(own) for path, own in bins.items()}
    return {path: ref for path, ref in found.items() if ref is not None}


def release_bin(path: str, granularity: str) -> str | None:
    """The release's name of what shares a selector; None where the path has no such step."""
    if granularity == "finegrained":
        return path
    if granularity == "coarsegrained":
        return ""
    step = f"{_STEPS[granularity]}."
    before, found, behind = path.partition(step)
    return f"{before}{step}{behind.partition('.')[0]}" if found else None


def library_bin(path: str, granularity: str) -> str | None:
    """The main branch's name of what shares a selector; None where the path has no such part."""
    if granularity in ("finegrained", "*"):
        return path
    if granularity == "coarsegrained":
        return ""
    before, found, _ = path.partition(granularity)
    return f"{before}{found}" if found else None


def bins_of(
    draft: Draft, modules: Sequence[Module], granularity: str, *, is_release: bool
) -> dict[str, str]:
    """Every module's bin; a path that the granularity does not divide is a reason."""
    found: dict[str, str] = {}
    for module in modules:
        name = (release_bin if is_release else library_bin)(module.path, granularity)
        if name is None:
            draft.reject(
                "unsupported_option",
                f"router_granularity {granularity!r} names no part of {module.path!r}",
                "router_granularity",
            )
            name = module.path
        found[module.path] = name
    return found
