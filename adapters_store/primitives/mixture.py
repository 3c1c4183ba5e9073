"""``mixture``: a bank's shared low-rank factors at one site, mixed per task and per head.

With routing weights w (H, K) of a task at this site, as in MHR (arXiv 2211.03831):
``A = concat_h sum_k w[h,k] a[h,k]`` (in, rank), ``B = concat_h sum_k w[h,k] b[h,k]`` (rank, out),
``y += scale * (x A) B``. Heads cut ``a`` along the input and ``b`` along the output.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from adapters_store.errors import InvalidArtefactError
from adapters_store.primitives.part import (
    BackboneShapes,
    Count,
    Kind,
    Part,
    Scale,
    SiteName,
    TensorSpec,
    check_rank,
)


class BankPart(Part):
    """Tensors ``{site}/mixture/a`` (H, K, in/H, rank) and ``{site}/mixture/b`` (H, K, rank, out/H).

    ``num_skills`` is K, ``num_heads`` is H; H divides both widths of the site.
    """

    kinds: ClassVar[frozenset[Kind]] = frozenset({"bank"})
    primitive: Literal["mixture"] = "mixture"
    site: SiteName
    rank: Count
    num_skills: Count
    num_heads: Count
    scale: Scale

    @property
    def key(self) -> tuple[str, str]:
        """One part per site."""
        return self.primitive, self.site

    def tensor_specs(self, shapes: BackboneShapes) -> tuple[TensorSpec, ...]:
        """``a`` and ``b``; raises for an unknown site, a rank or a number of heads that misfits."""
        site, heads, skills = shapes.site(self.site), self.num_heads, self.num_skills
        check_rank(self.rank, site)
        if site.in_features % heads or site.out_features % heads:
            raise InvalidArtefactError(
                f"num_heads {heads} at site {self.site!r} does not divide its widths "
                f"{site.in_features} and {site.out_features}"
            )
        a_shape = (heads, skills, site.in_features // heads, self.rank)
        b_shape = (heads, skills, self.rank, site.out_features // heads)
        return (
            TensorSpec(f"{self.site}/mixture/a", a_shape),
            TensorSpec(f"{self.site}/mixture/b", b_shape),
        )
