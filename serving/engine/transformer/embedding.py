"""Input embedding of flat tokens: token table, optional positions and type, optional norm."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import embedding

from serving.engine.transformer.norm import Normalisation
from serving.primitives.plan import Plan
from serving.primitives.prompt import EMBEDDING


class InputEmbedding:
    """Tables are (entries, D); ``type_D`` is the vector of token type 0.

    ``scale`` multiplies the token's vector, rounded to the table's dtype first.
    """

    def __init__(
        self,
        token_VD: Tensor,
        position_PD: Tensor | None = None,
        type_D: Tensor | None = None,
        norm: Normalisation | None = None,
        scale: float = 1.0,
    ) -> None:
        self._token = token_VD
        self._position = position_PD
        self._type = type_D
        self._norm = norm
        self._scale = None if scale == 1.0 else token_VD.new_full((), scale)

    def __call__(self, ids_T: Tensor, positions_T: Tensor, plan: Plan[Any] | None = None) -> Tensor:
        """Hidden states (T, D) of token ids and positions, both (T,) int64.

        Rows of a prompt that has positions take the place of what the token table gives.
        """
        x = embedding(ids_T, self._token)
        if self._scale is not None:
            x = x * self._scale
        if plan is not None:
            plan.enter(EMBEDDING, x)
        if self._type is not None:
            x = x + self._type
        if self._position is not None:
            x = x + embedding(positions_T, self._position)
        return x if self._norm is None else self._norm(x, plan)
