"""IA3: ``scale`` parts on the input of feed-forward modules, on the output of all others."""

from __future__ import annotations

from collections.abc import Sequence

from adapters_store.errors import InvalidArtefactError
from adapters_store.formats.convert import flattened
from adapters_store.formats.draft import Draft, piece
from adapters_store.formats.peft import saved
from adapters_store.formats.peft.modules import group, sites
from adapters_store.formats.peft.patterns import Pattern
from adapters_store.formats.peft.settings import Ia3Settings
from adapters_store.formats.peft.targets import report_targets
from adapters_store.primitives.scale import ScalePart

VECTOR = ".ia3_l"


def plan(draft: Draft, settings: Ia3Settings) -> None:
    """Add what the adapter becomes to ``draft``, or the reasons why it cannot be."""
    saved.refuse_embeddings(draft)
    placed = list(sites(draft, group(draft, (VECTOR,)), settings.task_type))
    try:
        feed_forward = _named(draft, settings, [module.path for module, _ in placed])
    except InvalidArtefactError as error:
        draft.reject("unsupported_option", error.message, "feedforward_modules")
        return draft.stop()
    for module, site in placed:
        is_input = module.path in feed_forward
        shape = (1, site.in_features) if is_input else (site.out_features, 1)
        vector = draft.take(module.names[VECTOR], shape)
        if vector is not None:
            part = ScalePart(site=site.name, side="input" if is_input else "output")
            draft.add(part, piece(f"{site.name}/scale/{part.side}", flattened, vector))
    saved.plan(draft, settings)
    report_targets(draft, settings, placed)
    if settings.fan_in_fan_out:
        draft.note("recorded", "fan_in_fan_out concerns merging only", "fan_in_fan_out")


def _named(draft: Draft, settings: Ia3Settings, paths: Sequence[str]) -> set[str]:
    """The paths that ``feedforward_modules`` names; raises InvalidArtefactError if unreadable.

    Of a list, PEFT compares the ends of names, whether a dot stands before them or not.
    """
    names = settings.feedforward_modules
    if isinstance(names, str):
        pattern = Pattern(names, draft.meter)
        return {path for path in paths if pattern.matches(path)}
    return {path for path in paths if path.endswith(tuple(names or ()))}
