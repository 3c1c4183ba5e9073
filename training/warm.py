"""A run that begins where an earlier one ended: at its skills, or at their average.

Whatever was learnt is read as skills by site: a bank as it is, an adapter as its only skill. A bank
of the same sizes goes on with every skill and a fresh routing; one adapter for all tasks begins at
the skills' uniform average, which is MHR-mu (Caccia et al. 2023) before its further training.

Legend: H heads, K skills, P private tasks, r rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from adapters_store.artefact import Artefact, read_artefact
from adapters_store.backbone import Backbone
from adapters_store.errors import UsageError
from adapters_store.manifest import MANIFEST_FILE, LowRankPart
from adapters_store.primitives.scale import ScalePart
from training import checkpoint
from training.export import BACKBONE_FOLDER
from training.injection import AdaptedLinear
from training.methods.base import MethodConfig, SiteMethod
from training.methods.effects import Side
from training.methods.ia3 import Ia3Site, MhrIa3Site
from training.methods.lora import LoraSite
from training.methods.mhr import MhrSite, average
from training.model import AdaptedModel
from training.recipe import BackboneSection, Recipe
from training.restore import check_backbone, check_parts, read_bank, read_pairs, read_vectors


@dataclass(frozen=True, slots=True)
class LowRankSkills:
    """``a`` (H, K, in/H, r) and ``b`` (H, K, r, out/H) with the scale in front of their product."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float


@dataclass(frozen=True, slots=True)
class ScaleSkills:
    """``v`` (H, K, width/H) and the side that it multiplies."""

    v: torch.Tensor
    side: Side


Skills = dict[str, LowRankSkills | ScaleSkills]


@torch.no_grad()
def begin(model: AdaptedModel, recipe: Recipe, earlier: Recipe | None, source: Path) -> None:
    """Set the method's parameters from ``source``: an artefact's folder, or with ``earlier`` a run.

    Raises :class:`UsageError` where sites, sizes or the kind of skill differ and
    :class:`IncompatibleError` for an artefact of another backbone.
    """
    if earlier is None:
        artefact = read_artefact(source)
        check_backbone(artefact, _folder(recipe.backbone))
        skills = artefact_skills(artefact)
    else:
        _check_same(recipe.backbone, earlier.backbone, source)
        skills = run_skills(model, earlier, source)
    methods = model.site_methods()
    if differing := sorted(methods.keys() ^ skills.keys()):
        raise UsageError(
            f"{source} and the method differ in {len(differing)} sites, such as {differing[0]}",
            hint="Give `method.sites` as the source was trained with.",
        )
    for name, method in methods.items():
        _take(method, skills[name])


def artefact_skills(artefact: Artefact) -> Skills:
    """The skills of a bank, or an adapter as one; raises UsageError for parts of other kinds."""
    kind = artefact.manifest.kind
    if kind == "bank":
        return {name: LowRankSkills(*found) for name, found in read_bank(artefact).items()}
    check_parts(artefact, LowRankPart | ScalePart, "a run")
    found: Skills = {
        name: LowRankSkills(a[None, None], b[None, None], scale)
        for name, (a, b, scale) in read_pairs(artefact).items()
    }
    vectors = read_vectors(artefact)
    if both := sorted(found.keys() & vectors.keys()):
        raise UsageError(f"the adapter has two parts at site {both[0]}; a method has one")
    return found | {name: ScaleSkills(v[None, None], side) for name, (v, side) in vectors.items()}


def run_skills(model: AdaptedModel, earlier: Recipe, folder: Path) -> Skills:
    """The skills in the checkpoint of a run on the same backbone; ``model`` has the sites' names.

    Raises UsageError for a method that keeps no skills.
    """
    weights = checkpoint.stored_weights(folder, earlier.train.keep)
    config = MethodConfig(
        earlier.method.name,
        rank=earlier.method.rank,
        alpha=earlier.method.alpha,
        side=earlier.method.side,
    )
    found: Skills = {}
    for prefix, module in model.named_modules():
        if not isinstance(module, AdaptedLinear):
            continue
        site, stem = module.method.site, f"{prefix}.method"
        if f"{stem}.v" in weights:
            v = _by_heads(weights[f"{stem}.v"], 3)
            found[site.name] = ScaleSkills(v, config.side_at(site))
        elif f"{stem}.b" in weights:
            a, b = (_by_heads(weights[f"{stem}.{one}"], 4) for one in "ab")
            found[site.name] = LowRankSkills(a, b, config.scale)
    num_stored = len({n.rpartition(".method.")[0] for n in weights if ".method." in n})
    if len(found) != num_stored:
        raise UsageError(
            f"{folder} has {num_stored} sites, of which {len(found)} have skills that this method "
            f"could begin with; it was trained by {earlier.method.name!r}"
        )
    return found


def _by_heads(stored: torch.Tensor, num_axes: int) -> torch.Tensor:
    """Skills with leading (H, K); private or shared ones (P, ...) are P skills of one head."""
    return stored if stored.dim() == num_axes else stored[None]


def _take(method: SiteMethod, skills: LowRankSkills | ScaleSkills) -> None:
    match method, skills:
        case LoraSite(), LowRankSkills(a, b, scale):
            a, b = average(a, b)
            values = {"a": a, "b": b * (scale / method.scale)}
        case MhrSite(), LowRankSkills(a, b, scale):
            values = {"a": a, "b": b * (scale / method.scale)}
        case Ia3Site(), ScaleSkills(v, side) if side == method.side:
            values = {"v": v.mean(1).flatten()}
        case MhrIa3Site(), ScaleSkills(v, side) if side == method.side:
            values = {"v": v}
        case _:
            raise UsageError(
                f"site {method.site.name}: {type(method).__name__} cannot begin with "
                f"{type(skills).__name__} of the source",
                hint="`lora` and `ia3` begin at an average, a bank with one of its own kind.",
            )
    for name, value in values.items():
        own = method.get_parameter(name)
        is_average = isinstance(method, LoraSite | Ia3Site)  # one for all, or one for each task
        if own.shape[1:] != value.shape if is_average else own.shape != value.shape:
            raise UsageError(
                f"site {method.site.name}: {name} of the source is {tuple(value.shape)}; the "
                f"method's is {tuple(own.shape[is_average:])}",
                hint="Give rank, num_skills and num_heads as the source was trained with.",
            )
        own.copy_(value)


def _folder(section: BackboneSection) -> Backbone:
    if section.source is None or not Path(section.source).is_dir():
        raise UsageError("method.start needs `backbone.source`: the folder that it was trained on")
    return Backbone.from_folder(Path(section.source))


def _check_same(section: BackboneSection, earlier: BackboneSection, folder: Path) -> None:
    """Raise UsageError unless the run in ``folder`` ended with the section's backbone."""
    expected = str(folder / BACKBONE_FOLDER) if earlier.is_trained else earlier.source
    if section.source is not None and section.source == expected:
        return
    if expected is None or not Path(expected).is_dir():
        raise UsageError(
            f"the run in {folder} has another backbone: {expected or 'one from scratch'}",
            hint="Publish that run, which writes its backbone, and give it as `backbone.source`.",
        )
    found, wanted = _folder(section).fingerprint, Backbone.from_folder(Path(expected)).fingerprint
    if found != wanted:
        raise UsageError(f"backbone.source is {found}; the run in {folder} is over {wanted}")


def is_artefact(path: Path) -> bool:
    """Whether the folder holds an artefact rather than a run."""
    return (path / MANIFEST_FILE).is_file()
