"""A backbone's weights: from a checkpoint's parameters to runnable stacks over packed sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from adapters_store.backbone import Backbone
from adapters_store.errors import IncompatibleError
from adapters_store.families.architecture import Architecture, Norm
from adapters_store.families.architecture import Stack as StackRecord
from adapters_store.families.site import Site
from serving.engine.checkpoint import Checkpoint
from serving.engine.transformer.embedding import InputEmbedding
from serving.engine.transformer.linear_site import LinearSite
from serving.engine.transformer.norm import Normalisation
from serving.engine.transformer.output import OutputHead
from serving.engine.transformer.relative_bias import RelativeBiasTable
from serving.engine.transformer.sight import sights
from serving.engine.transformer.stack import Layer, Stack
from serving.primitives.backend import Backend, plain_backend
from serving.primitives.layout import PackedSite, SiteLayout


@dataclass(frozen=True, slots=True)
class Weights:
    """Runnable stacks by name, and the output matrix where the backbone writes text.

    ``vectors`` are the norms' and linear maps' vectors by canonical name, as they are stored;
    ``pooler`` is the weight and bias of the backbone's own pooler in float32, where the folder
    holds it. ``backend`` runs the low-rank products of rows.
    """

    layout: SiteLayout
    stacks: dict[str, Stack]
    output: OutputHead | None
    dtype: torch.dtype
    device: torch.device
    vectors: dict[str, Tensor]
    pooler: tuple[Tensor, Tensor] | None
    backend: Backend = field(default_factory=plain_backend)

    @property
    def relative(self) -> frozenset[str]:
        """The self-attentions, such as ``decoder.self``, with a bias of the distance."""
        stacks = [stack.record for stack in self.stacks.values()]
        return frozenset(f"{s.name}.self" for s in stacks if s.relative_bias is not None)

    @property
    def reader(self) -> Stack:
        """The stack that reads inputs: the encoder, or the decoder where there is no other."""
        return self.stacks["encoder" if "encoder" in self.stacks else "decoder"]


def load_weights(
    backbone: Backbone, dtype: torch.dtype, device: torch.device | None = None
) -> Weights:
    """Read a backbone onto ``device``, the CPU unless another is given.

    Raises IncompatibleError when a parameter is missing or misshapen.
    """
    device = torch.device("cpu") if device is None else device
    checkpoint = Checkpoint(backbone, dtype, device)
    architecture = backbone.architecture
    layout = SiteLayout(backbone.sites.values())
    places = backbone.shapes.anatomy.vectors
    norm_names = {
        place.parameter_path.removesuffix(".weight"): place.name.removesuffix(".gain")
        for place in places
        if place.name.endswith(".gain")
    }
    reader = _Reader(checkpoint, layout, architecture, norm_names, dtype, device)
    stacks: dict[str, Stack] = {s.name: reader.stack(s) for s in architecture.stacks}
    found = {place.name: checkpoint.find(place.parameter_path) for place in places}
    vectors = {name: vector for name, vector in found.items() if vector is not None}
    pooler = _pooler(checkpoint, backbone.shapes.anatomy.pooler_path)
    return Weights(layout, stacks, reader.output(), dtype, device, vectors, pooler)


def _pooler(checkpoint: Checkpoint, path: str | None) -> tuple[Tensor, Tensor] | None:
    if path is None or not checkpoint.has(f"{path}.dense.weight"):
        return None
    weight, bias = (checkpoint.get(f"{path}.dense.{leaf}") for leaf in ("weight", "bias"))
    return weight.float(), bias.float()


@dataclass(frozen=True, slots=True)
class _Reader:
    """Makes the runnable parts of a record from a checkpoint; ``norm_names`` are by path."""

    checkpoint: Checkpoint
    layout: SiteLayout
    architecture: Architecture
    norm_names: Mapping[str, str]
    dtype: torch.dtype
    device: torch.device

    def stack(self, record: StackRecord) -> Stack:
        paths = record.embedding
        position, kind = paths.position_path, paths.type_path
        get = self.checkpoint.get
        embedding = InputEmbedding(
            get(f"{paths.token_path}.weight"),
            None if position is None else get(f"{position}.weight")[paths.position_offset :],
            None if kind is None else get(f"{kind}.weight")[0],
            self._norm(record.norm, paths.norm_path),
            paths.scale,
        )
        return Stack(
            record,
            embedding,
            [self._layer(record, i) for i in range(record.num_layers)],
            self._norm(record.norm, record.final_norm_path),
            sights(record, self._biases(record)),
            self.dtype,
            self.device,
        )

    def output(self) -> OutputHead | None:
        architecture = self.architecture
        if architecture.lm_head_path is None:
            return None
        weight_VD = self.checkpoint.get(f"{architecture.lm_head_path}.weight")
        bias_path = architecture.lm_bias_path
        return OutputHead(
            (weight_VD * architecture.lm_head_scale).t(),
            None if bias_path is None else self.checkpoint.get(bias_path).flatten(),
            architecture.logit_softcap,
        )

    def _layer(self, record: StackRecord, i: int) -> Layer:
        def norm(path: str | None) -> Normalisation | None:
            return self._norm(record.norm, None if path is None else path.format(i=i))

        def sites(block: str) -> tuple[PackedSite, ...]:
            return self.layout.sites_of(record.name, i, block)

        self_norm, ffn_norm = norm(record.self_norm_path), norm(record.ffn_norm_path)
        assert self_norm is not None
        assert ffn_norm is not None
        *qkv, o = sites("self")
        *ffn_in, ffn_out = sites("ffn")
        cross = [self._linear([site]) for site in sites("cross")]
        cross_q, cross_kv, cross_o = cross or (None, None, None)
        return Layer(
            self_norm=self_norm,
            self_qkv=self._linear(qkv),
            self_o=self._linear([o]),
            cross_norm=norm(record.cross_norm_path),
            cross_q=cross_q,
            cross_kv=cross_kv,
            cross_o=cross_o,
            ffn_norm=ffn_norm,
            ffn_in=self._linear(ffn_in),
            ffn_out=self._linear([ffn_out]),
            q_norm=norm(record.q_norm_path),
            k_norm=norm(record.k_norm_path),
            self_post_norm=norm(record.self_post_norm_path),
            ffn_post_norm=norm(record.ffn_post_norm_path),
        )

    def _biases(self, record: StackRecord) -> list[RelativeBiasTable]:
        """One table a layer, the same for all where the record has one; none without."""
        bias = record.relative_bias
        if bias is None:
            return []
        paths = [bias.path.format(i=i) for i in range(record.num_layers)]
        tables = {
            path: RelativeBiasTable(bias, self.checkpoint.get(f"{path}.weight"))
            for path in dict.fromkeys(paths)
        }
        return [tables[path] for path in paths]

    def _norm(self, record: Norm, path: str | None) -> Normalisation | None:
        if path is None:
            return None
        get = self.checkpoint.get
        bias = get(f"{path}.bias") if record.kind == "layer" else None
        name = self.norm_names.get(path, path)
        return Normalisation(name, record, get(f"{path}.weight"), bias)

    def _linear(self, sites: Sequence[PackedSite]) -> LinearSite:
        members = [member for site in sites for member in site.members]
        weights = [self._weight(member) for member in members]
        biases = [self.checkpoint.find(f"{member.module_path}.bias") for member in members]
        if all(bias is None for bias in biases):
            bias_E = None
        else:
            bias_E = torch.cat(
                [
                    torch.zeros(member.out_features, dtype=self.dtype, device=self.device)
                    if bias is None
                    else bias
                    for member, bias in zip(members, biases, strict=True)
                ]
            )
        return LinearSite(sites, torch.cat(weights, dim=1), bias_E)

    def _weight(self, site: Site) -> Tensor:
        weight_DE = self.checkpoint.get(f"{site.module_path}.weight")
        if not self.architecture.has_transposed_linears:
            weight_DE = weight_DE.t()
        expected = (site.in_features, site.out_features)
        if tuple(weight_DE.shape) != expected:
            raise IncompatibleError(
                f"{site.module_path} is {tuple(weight_DE.shape)} (in, out); expected {expected}"
            )
        return weight_DE
