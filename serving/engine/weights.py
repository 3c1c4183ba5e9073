"""A backbone's weights, from an unmodified Hugging Face checkpoint folder to packed sites.

transformers reads the folder (it knows old parameter names and tied weights); nothing of its
forward code runs afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn

from adapters_store.backbone import Backbone
from adapters_store.errors import IncompatibleError
from adapters_store.families.architecture import Norm
from adapters_store.families.architecture import Stack as StackRecord
from adapters_store.families.site import Site
from serving.engine.transformer.embedding import InputEmbedding
from serving.engine.transformer.linear_site import LinearSite
from serving.engine.transformer.norm import Normalisation
from serving.engine.transformer.relative_bias import RelativeBiasTable
from serving.engine.transformer.stack import Layer, Stack
from serving.primitives.layout import PackedSite, SiteLayout


@dataclass(frozen=True, slots=True)
class Weights:
    """Runnable stacks by name, their relative biases, and the output matrix (hidden, vocab).

    ``vectors`` are the norms' and linear maps' vectors by canonical name, as they are stored;
    ``pooler`` is the weight and bias of the backbone's own pooler in float32, where the folder
    holds it.
    """

    layout: SiteLayout
    stacks: dict[str, Stack]
    biases: dict[str, RelativeBiasTable | None]
    lm_head: Tensor | None
    dtype: torch.dtype
    device: torch.device
    vectors: dict[str, Tensor]
    pooler: tuple[Tensor, Tensor] | None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' load report and progress bar: missing parameters are checked here."""
    logging = transformers.logging
    verbosity, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bar:
            logging.enable_progress_bar()


class _Checkpoint:
    """Parameters by dotted path; every one asked for must come from the folder."""

    def __init__(self, backbone: Backbone, dtype: torch.dtype) -> None:
        is_seq2seq = backbone.architecture.is_encoder_decoder
        auto = transformers.AutoModelForSeq2SeqLM if is_seq2seq else transformers.AutoModel
        self._folder = Path(backbone.folder)
        self._dtype = dtype
        with _quiet():
            self._model: nn.Module
            self._model, info = auto.from_pretrained(
                self._folder, dtype=dtype, local_files_only=True, output_loading_info=True
            )
        self._missing = set(info["missing_keys"])
        self.norm_names = {
            vector.parameter_path.removesuffix(".weight"): vector.name.removesuffix(".gain")
            for vector in backbone.shapes.anatomy.vectors
            if vector.name.endswith(".gain")
        }

    def has(self, path: str) -> bool:
        """True where the folder holds the parameter at ``path``."""
        return path not in self._missing and self.find(path) is not None

    def get(self, path: str) -> Tensor:
        """The parameter at ``path``; raises IncompatibleError when the folder lacks it."""
        tensor = self.find(path)
        if tensor is None or path in self._missing:
            raise IncompatibleError(f"{self._folder} holds no parameter {path!r}")
        return tensor

    def find(self, path: str) -> Tensor | None:
        """The parameter at ``path``, or None where the module has none (a linear without bias)."""
        module_path, _, name = path.rpartition(".")
        try:
            module = self._model.get_submodule(module_path)
        except AttributeError:
            return None
        tensor = getattr(module, name, None)
        return tensor.detach().to(self._dtype) if isinstance(tensor, Tensor) else None


def load_weights(backbone: Backbone, dtype: torch.dtype) -> Weights:
    """Read a backbone; raises IncompatibleError when a parameter is missing or misshapen."""
    checkpoint = _Checkpoint(backbone, dtype)
    architecture = backbone.architecture
    layout = SiteLayout(backbone.sites.values())
    stacks: dict[str, Stack] = {s.name: _stack(checkpoint, s, layout) for s in architecture.stacks}
    biases: dict[str, RelativeBiasTable | None] = {
        s.name: None
        if s.relative_bias is None
        else RelativeBiasTable(s.relative_bias, checkpoint.get(f"{s.relative_bias.path}.weight"))
        for s in architecture.stacks
    }
    lm_head = None
    if architecture.lm_head_path is not None:
        weight_VD = checkpoint.get(f"{architecture.lm_head_path}.weight")
        lm_head = (weight_VD * architecture.lm_head_scale).t().contiguous()
    places = backbone.shapes.anatomy.vectors
    found = {place.name: checkpoint.find(place.parameter_path) for place in places}
    vectors = {name: vector for name, vector in found.items() if vector is not None}
    pooler = _pooler(checkpoint, backbone.shapes.anatomy.pooler_path)
    return Weights(layout, stacks, biases, lm_head, dtype, torch.device("cpu"), vectors, pooler)


def _pooler(checkpoint: _Checkpoint, path: str | None) -> tuple[Tensor, Tensor] | None:
    if path is None or not checkpoint.has(f"{path}.dense.weight"):
        return None
    weight, bias = (checkpoint.get(f"{path}.dense.{leaf}") for leaf in ("weight", "bias"))
    return weight.float(), bias.float()


def _norm(checkpoint: _Checkpoint, record: Norm, path: str) -> Normalisation:
    bias = checkpoint.get(f"{path}.bias") if record.kind == "layer" else None
    name = checkpoint.norm_names.get(path, path)
    return Normalisation(name, record, checkpoint.get(f"{path}.weight"), bias)


def _linear(checkpoint: _Checkpoint, site: PackedSite) -> LinearSite:
    weights = [_weight(checkpoint, member) for member in site.members]
    biases = [checkpoint.find(f"{member.module_path}.bias") for member in site.members]
    given = [bias for bias in biases if bias is not None]
    return LinearSite(site, torch.cat(weights, dim=1), torch.cat(given) if given else None)


def _weight(checkpoint: _Checkpoint, site: Site) -> Tensor:
    weight_DE = checkpoint.get(f"{site.module_path}.weight").t()
    expected = (site.in_features, site.out_features)
    if tuple(weight_DE.shape) != expected:
        raise IncompatibleError(
            f"{site.module_path} is {tuple(weight_DE.shape)} (in, out); expected {expected}"
        )
    return weight_DE.contiguous()


def _layer(checkpoint: _Checkpoint, record: StackRecord, layout: SiteLayout, i: int) -> Layer:
    qkv, o = (_linear(checkpoint, site) for site in layout.sites_of(record.name, i, "self"))
    ffn_in, ffn_out = (_linear(checkpoint, site) for site in layout.sites_of(record.name, i, "ffn"))
    cross = [_linear(checkpoint, site) for site in layout.sites_of(record.name, i, "cross")]
    cross_q, cross_kv, cross_o = cross if cross else (None, None, None)
    path = record.cross_norm_path
    return Layer(
        self_norm=_norm(checkpoint, record.norm, record.self_norm_path.format(i=i)),
        self_qkv=qkv,
        self_o=o,
        cross_norm=None if path is None else _norm(checkpoint, record.norm, path.format(i=i)),
        cross_q=cross_q,
        cross_kv=cross_kv,
        cross_o=cross_o,
        ffn_norm=_norm(checkpoint, record.norm, record.ffn_norm_path.format(i=i)),
        ffn_in=ffn_in,
        ffn_out=ffn_out,
    )


def _stack(checkpoint: _Checkpoint, record: StackRecord, layout: SiteLayout) -> Stack:
    paths = record.embedding
    position = paths.position_path
    kind = paths.type_path
    embedding = InputEmbedding(
        checkpoint.get(f"{paths.token_path}.weight"),
        None if position is None else checkpoint.get(f"{position}.weight")[paths.position_offset :],
        None if kind is None else checkpoint.get(f"{kind}.weight")[0],
        None if paths.norm_path is None else _norm(checkpoint, record.norm, paths.norm_path),
    )
    layers = [_layer(checkpoint, record, layout, i) for i in range(record.num_layers)]
    final = record.final_norm_path
    final_norm = None if final is None else _norm(checkpoint, record.norm, final)
    return Stack(record, embedding, layers, final_norm)
