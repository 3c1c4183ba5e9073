"""The plan of a step: what the adapters of its rows do, place by place.

The transformer calls the plan at every place where an effect may act; a kind of effect that no row
has costs one look into an empty table. :class:`RunPlan` serves prefill, the decode plan of
:mod:`serving.engine.plan` the running batch.

Shapes: ``T`` tokens (or rows), ``D`` input width, ``E`` packed output width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar, get_args

from torch import Tensor

from serving.primitives.backend import MakesRuns
from serving.primitives.bottleneck import Form, deltas
from serving.primitives.layout import PackedSite
from serving.primitives.low_rank import Segments
from serving.primitives.prepared import Prepared
from serving.primitives.prompt import Prompt
from serving.primitives.rows import Entries, Rows, Run, Runs, add_to_rows
from serving.primitives.scale import add_scaled_input, scale_rows, scaled

Kind = Literal["input", "member_input", "output", "bias", "norm", "block"]


class Norm(Protocol):
    """A norm of the transformer, under its canonical name."""

    @property
    def name(self) -> str:
        """Such as ``encoder.0.self.norm``."""

    def __call__(self, x: Tensor, plan: Plan[Any] | None = None, /) -> Tensor:
        """Every row normed, those of the plan by their own vectors."""

    def own(self, x: Tensor, gain: Tensor, bias: Tensor | None = None, /) -> Tensor:
        """Rows (n, ..., D) normed by vectors (n or 1, D) as the model stores them."""


class Effect(NamedTuple):
    """Tensors of one adapter at one place: a packed site's index or a place's canonical name.

    Rows of one ``variant`` run together.
    """

    kind: Kind
    place: int | str
    variant: Hashable
    tensors: tuple[Tensor, ...]


def effects(sites: Sequence[PackedSite], prepared: Prepared) -> Iterator[Effect]:
    """Everything an adapter does that is kept in tables of rows: all but its low-rank products."""
    for index, scale in prepared.scales.items():
        for member, v in scale.inputs.items():
            kind: Kind = "member_input" if sites[index].shares_input else "input"
            yield Effect(kind, index, member, (v,))
        if scale.output is not None:
            yield Effect("output", index, None, (scale.output,))
    for index, bias in prepared.biases.items():
        yield Effect("bias", index, None, (bias.shift,))
    for name, own in prepared.norms.items():
        yield Effect("norm", name, None, (own.gain,) if own.bias is None else (own.gain, own.bias))
    for block, found in prepared.bottlenecks.items():
        for part in found.parts:
            yield Effect("block", block, part.form, part.tensors)


Table = TypeVar("Table", bound=Entries)


class Plan(ABC, Generic[Table]):
    """What a transformer asks of a step's adapters. Subclasses fill the tables."""

    def __init__(self, sites: Sequence[PackedSite]) -> None:
        self._sites = sites
        self._tables: dict[Kind, dict[int | str, dict[Hashable, Table]]] = {
            kind: {} for kind in get_args(Kind)
        }

    @abstractmethod
    def _add_products(self, index: int, x_TD: Tensor, y_TE: Tensor) -> None:
        """Add the rows' low-rank products at packed site ``index`` to ``y_TE`` in place."""

    def enter(self, place: int, x_TD: Tensor) -> None:
        """Put in the rows of prompts that enter at ``place``, a layer or the embedding."""

    def scaled(self, index: int, x_TD: Tensor) -> Tensor:
        """What the frozen product at ``index`` reads: ``x_TD``, or a copy with scaled rows."""
        for table in self._at("input", index):
            x_TD = scaled(x_TD, table)
        return x_TD

    def apply(
        self, index: int, x_TD: Tensor, y_TE: Tensor, product: Callable[[Tensor], Tensor]
    ) -> None:
        """Add the rows' effects at packed site ``index`` to ``y_TE`` in place.

        ``x_TD`` is the site's input before any scale, ``product`` the site's frozen product.
        """
        width = self._sites[index].member_width
        for member, table in self._tables["member_input"].get(index, {}).items():
            assert isinstance(member, int)
            columns = slice(member * width, (member + 1) * width)
            add_scaled_input(x_TD, y_TE, columns, product, table)
        for table in self._at("bias", index):
            add_to_rows(y_TE, table)
        self._add_products(index, x_TD, y_TE)
        for table in self._at("output", index):
            scale_rows(y_TE, table)

    def renorm(self, norm: Norm, x: Tensor, y: Tensor) -> None:
        """Norm the rows of ``x`` (T, ..., D) that have their own vectors, into ``y``."""
        for table in self._at("norm", norm.name):
            for rows, vectors in table.entries(x):
                rows.put(y, norm.own(rows.take(x), *vectors))

    @property
    def has_blocks(self) -> bool:
        """True where some row changes what a sub-layer adds."""
        return bool(self._tables["block"])

    def after(
        self, block: str, x_TD: Tensor, u_TD: Tensor, f_TD: Tensor, norm: Norm | None
    ) -> None:
        """Add the rows' bottlenecks to what the sub-layer adds, ``f_TD``, in place.

        ``x_TD`` is the residual stream, ``u_TD`` what the sub-layer read, ``norm`` the norm over
        ``x + f`` where norms stand behind.
        """
        forms = self._tables["block"].get(block)
        if forms is None:
            return
        read = {"output": f_TD, "residual": x_TD, "input": u_TD}
        found: list[tuple[Rows, Tensor]] = []
        for form, table in forms.items():
            assert isinstance(form, Form)
            if form.reads == "sum" and "sum" not in read:
                total = x_TD + f_TD
                read["sum"] = total if norm is None else norm(total, self)
            found += deltas(form, read[form.reads], table)
        for rows, delta in found:
            rows.add(f_TD, delta)

    def _at(self, kind: Kind, place: int | str) -> Iterator[Table]:
        yield from self._tables[kind].get(place, {}).values()


class RunPlan(Plan[Runs]):
    """The plan of packed prefill rows, from runs of tokens that share an adapter.

    ``runs`` holds ``(start, stop, prepared)`` with half-open token ranges; ``prompts`` says where
    each prompt lies in a stack that it enters, and which of its rows are there. ``segments`` makes
    what adds the runs' low-rank products.
    """

    def __init__(
        self,
        sites: Sequence[PackedSite],
        runs: Sequence[tuple[int, int, Prepared]],
        prompts: Sequence[tuple[int, Prompt, slice]] = (),
        segments: MakesRuns = Segments,
    ) -> None:
        super().__init__(sites)
        self._prompts: dict[int, list[tuple[int, Tensor]]] = {}
        for start, prompt, chosen in prompts:
            for layer, rows in prompt.rows.items():
                self._prompts.setdefault(layer, []).append((start, rows[chosen]))
        products = [(start, stop, p.factors) for start, stop, p in runs if p.factors]
        self._segments = segments(sites, products)
        for start, stop, prepared in runs:
            for kind, place, variant, tensors in effects(sites, prepared):
                tables = self._tables[kind].setdefault(place, {})
                tables.setdefault(variant, Runs()).append(Run(start, stop), tensors)

    def enter(self, place: int, x_TD: Tensor) -> None:
        """Write the rows over what stands in their places."""
        for start, rows_PD in self._prompts.get(place, ()):
            x_TD[start : start + rows_PD.shape[0]] = rows_PD

    def _add_products(self, index: int, x_TD: Tensor, y_TE: Tensor) -> None:
        self._segments.apply(index, x_TD, y_TE)
