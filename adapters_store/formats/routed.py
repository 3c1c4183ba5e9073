"""A shared bank with its tasks: what every checkpoint of Poly or multi-head routing becomes.

Legend: S sites, T tasks, H heads, K skills, r rank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from adapters_store.families.site import Site
from adapters_store.formats.draft import Draft
from adapters_store.formats.inspection import Piece, PlannedArtefact, TensorRef
from adapters_store.primitives import Part
from adapters_store.primitives.low_rank import LowRankPart
from adapters_store.primitives.mixture import BankPart
from adapters_store.primitives.routing import LOGITS, WEIGHTS, RoutingPart
from adapters_store.skills import task_as_lora

if TYPE_CHECKING:
    import torch

MAX_TASKS = 2000


@dataclass(frozen=True, slots=True)
class Form:
    """What all sites of a bank have in common; ``scale`` multiplies the mixed update."""

    rank: int
    num_skills: int
    num_heads: int
    scale: float


@dataclass(frozen=True, slots=True)
class BankSite:
    """One site of a bank: pieces that give ``a`` (H, K, in/H, r) and ``b`` (H, K, r, out/H), and
    its stored logits (T, H K), None where the weights are not learnt."""

    site: str
    a: Piece
    b: Piece
    logits: TensorRef | None


@dataclass(frozen=True, slots=True)
class Gate:
    """How weights (..., H, K) come of a task's logits (..., H, K), float32.

    ``is_sigmoid`` says that they are Poly's normalised sigmoids, so that the logits may travel
    along for further training. ``fixed`` gives the weights of a task's row (H, K) where no logits
    are stored.
    """

    weigh: Callable[[torch.Tensor], torch.Tensor]
    is_sigmoid: bool = True
    fixed: Callable[[int], torch.Tensor] | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One task: its row of the logits, the suffix of its name, and what the source calls it."""

    row: int
    suffix: str
    name: str = ""


def numbered(count: int, names: Sequence[str] = ()) -> list[Task]:
    """The tasks of ``count`` rows, at most one too many; ``names`` may be known of the first."""
    rows = range(min(count, MAX_TASKS + 1))
    return [Task(row, f"-task-{row}", names[row] if row < len(names) else "") for row in rows]


def sigmoid_gate(offset: float) -> Gate:
    """Poly's gate in evaluation; ``offset`` is what the source adds to the sum of sigmoids."""
    return Gate(partial(normalised_sigmoids, offset=offset))


def normalised_sigmoids(logits: torch.Tensor, offset: float) -> torch.Tensor:
    """Sigmoids over the last dimension, divided by their sum plus ``offset``."""
    sigmoids = logits.sigmoid()
    return sigmoids / (sigmoids.sum(-1, keepdim=True) + offset)


def fits(draft: Draft, site: Site, path: str, num_heads: int) -> bool:
    """Whether the heads divide both widths of a site; the reason is added where they do not."""
    if site.in_features % num_heads == 0 and site.out_features % num_heads == 0:
        return True
    draft.reject(
        "incompatible",
        f"n_splits {num_heads} does not divide the widths {site.in_features} and "
        f"{site.out_features} of {path!r}",
        path,
    )
    return False


def add(
    draft: Draft, form: Form, sites: Sequence[BankSite], tasks: Sequence[Task], gate: Gate
) -> None:
    """Add the bank and its tasks to ``draft``, or one task as an adapter where that was asked for.

    Parts that the draft holds already are of every task. What cannot be becomes a reason.
    """
    wanted = draft.options.poly_task
    if len(tasks) > MAX_TASKS:
        message = f"it holds more tasks than the {MAX_TASKS} that are imported at once"
        draft.reject("too_large", message)
    elif wanted is not None and wanted not in range(len(tasks)):
        draft.reject(
            "unsupported_option",
            f"task {wanted} was asked for; the file has tasks 0 to {len(tasks) - 1}",
        )
    elif wanted is not None:
        for one in sites:
            _add_update(draft, form, one, tasks[wanted], gate)
    elif others := sorted({p.primitive for p in draft.parts if "routing" not in p.kinds}):
        draft.reject(
            "unsupported_option",
            f"the file gives {', '.join(others)} parts, which a routing does not carry; import "
            "one task as a plain adapter",
        )
    elif sites and not draft.reasons:
        own_parts, own_pieces = draft.parts, draft.pieces
        draft.parts, draft.pieces = [], []
        _add_bank(draft, form, sites)
        for task in tasks:
            draft.artefacts.append(_routing(form, sites, task, gate, own_parts, own_pieces))


def _add_bank(draft: Draft, form: Form, sites: Sequence[BankSite]) -> None:
    for one in sites:
        part = BankPart(
            site=one.site,
            rank=form.rank,
            num_skills=form.num_skills,
            num_heads=form.num_heads,
            scale=form.scale,
        )
        draft.add(part, one.a, one.b)
    draft.artefacts.append(
        PlannedArtefact(
            "bank", tuple(draft.parts), tuple(draft.pieces), suffix="-bank", paths=draft.paths
        )
    )


def _routing(
    form: Form,
    sites: Sequence[BankSite],
    task: Task,
    gate: Gate,
    own_parts: Sequence[Part],
    own_pieces: Sequence[Piece],
) -> PlannedArtefact:
    part = RoutingPart(
        sites=tuple(one.site for one in sites),
        num_skills=form.num_skills,
        num_heads=form.num_heads,
    )
    if gate.fixed is not None:
        make = partial(_fixed, row=task.row, num_sites=len(sites), fixed=gate.fixed)
        pieces = [Piece(WEIGHTS, (), make)]
    else:
        sources = tuple(one.logits for one in sites if one.logits is not None)
        select = partial(_logits, row=task.row, num_heads=form.num_heads)
        pieces = [Piece(WEIGHTS, sources, partial(_weights, select=select, weigh=gate.weigh))]
        if gate.is_sigmoid:
            pieces.append(Piece(LOGITS, sources, select))
    return PlannedArtefact(
        "routing", (part, *own_parts), (*pieces, *own_pieces), suffix=task.suffix, task=task.name
    )


def _add_update(draft: Draft, form: Form, one: BankSite, task: Task, gate: Gate) -> None:
    """One task's mixed factors at a site."""
    sources = (*one.a.sources, *one.b.sources)
    if gate.fixed is None and one.logits is not None:
        sources += (one.logits,)
    mix = partial(_mixed, form=form, site=one, task=task, gate=gate)
    draft.add(
        LowRankPart(site=one.site, rank=form.rank, scale=form.scale),
        Piece(f"{one.site}/low_rank/a", sources, partial(mix, index=0)),
        Piece(f"{one.site}/low_rank/b", sources, partial(mix, index=1)),
    )


def _logits(tensors: Sequence[torch.Tensor], *, row: int, num_heads: int) -> torch.Tensor:
    """One task's logits (S, H, K) from those of every site (T, H K)."""
    import torch

    return torch.stack([logits[row].reshape(num_heads, -1) for logits in tensors])


def _weights(
    tensors: Sequence[torch.Tensor],
    *,
    select: Callable[[Sequence[torch.Tensor]], torch.Tensor],
    weigh: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """One task's weights (S, H, K) after the gate, float32 as its library computes them."""
    return weigh(select(tensors).float())


def _fixed(
    tensors: Sequence[torch.Tensor],
    *,
    row: int,
    num_sites: int,
    fixed: Callable[[int], torch.Tensor],
) -> torch.Tensor:
    """One task's weights, equal at every site (S, H, K)."""
    return fixed(row).expand(num_sites, -1, -1).contiguous()


def _mixed(
    tensors: Sequence[torch.Tensor],
    *,
    form: Form,
    site: BankSite,
    task: Task,
    gate: Gate,
    index: int,
) -> torch.Tensor:
    """One task's ``a`` (index 0) or ``b`` (index 1), float32, from a bank's sources and logits."""
    num_a, num_b = len(site.a.sources), len(site.b.sources)
    a = site.a.make(tensors[:num_a]).float()
    b = site.b.make(tensors[num_a : num_a + num_b]).float()
    if gate.fixed is not None:
        weights = gate.fixed(task.row)
    else:
        weights = gate.weigh(tensors[-1][task.row].float().reshape(form.num_heads, -1))
    return task_as_lora(a, b, weights)[index].contiguous()
