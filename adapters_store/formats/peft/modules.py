"""Names of tensors in a PEFT file: ``base_model.model.<module path>.<suffix>``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from adapters_store.families.anatomy import Vector
from adapters_store.families.family import Family
from adapters_store.families.site import Site
from adapters_store.formats.peft.draft import Draft

PREFIX = "base_model.model."


@dataclass(slots=True)
class Module:
    """One module of the file: its path in the model, and its tensors by their suffix."""

    path: str
    names: dict[str, str] = field(default_factory=dict)


def group(draft: Draft, suffixes: Sequence[str]) -> list[Module]:
    """The modules with a tensor of one of ``suffixes``, in the file's order of names.

    Every name without the prefix is a reason to reject: PEFT passes over such a tensor in silence.
    """
    found: dict[str, Module] = {}
    for name in sorted(draft.tensors):
        path = split(draft, name)
        suffix = next((end for end in suffixes if path is not None and path.endswith(end)), None)
        if path is not None and suffix is not None:
            module = path.removesuffix(suffix)
            found.setdefault(module, Module(module)).names[suffix] = name
    return list(found.values())


def split(draft: Draft, name: str) -> str | None:
    """The path behind the prefix, or None where the name lacks it."""
    return name.removeprefix(PREFIX) if name.startswith(PREFIX) else None


def sites(draft: Draft, modules: Sequence[Module]) -> Iterator[tuple[Module, Site]]:
    """Every module with its site; unknown modules and repeated sites are reasons to reject."""
    seen: dict[str, str] = {}
    for module in modules:
        site = find_site(draft, module.path)
        if site is None:
            for name in module.names.values():
                draft.tensors.pop(name, None)
            draft.reject(
                "incompatible",
                f"module {module.path!r} is not a linear site of backbone "
                f"{draft.backbone.name!r} ({draft.backbone.family})",
                module.path,
            )
        elif site.name in seen:
            for name in module.names.values():
                draft.tensors.pop(name, None)
            draft.reject(
                "extra_tensor",
                f"modules {seen[site.name]!r} and {module.path!r} are both site {site.name!r}",
                module.path,
            )
        else:
            seen[site.name] = module.path
            yield module, site


def find_site(draft: Draft, path: str) -> Site | None:
    """The linear site at a module path of this file, or None."""
    known = {site.module_path: site for site in draft.shapes.sites.values()}
    return next((known[p] for p in _spellings(draft.family, path) if p in known), None)


def find_vector(draft: Draft, path: str) -> Vector | None:
    """The named vector at a parameter path of this file, or None."""
    known = {vector.parameter_path: vector for vector in draft.shapes.anatomy.vectors}
    return next((known[p] for p in _spellings(draft.family, path) if p in known), None)


def _spellings(family: Family, path: str) -> Iterator[str]:
    yield path
    for prefix in family.prefixes:
        if path.startswith(prefix):
            yield from _spellings(family, path.removeprefix(prefix))
