"""The two rows of mttl: a checkpoint of the paper's release, and what its main branch saves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from adapters_store.backbone import BackboneRecord
from adapters_store.errors import InvalidArtefactError, UnsafeArtefactError
from adapters_store.formats.draft import Draft
from adapters_store.formats.inspection import ROUTED, ImportOptions, Plan
from adapters_store.formats.mttl import CONFIG_FILE, FACTS, META, MODEL_CONFIG_FILE, PICKLE, release
from adapters_store.formats.mttl.documents import (
    WEIGHTS,
    files,
    object_in,
    read_object,
    try_object,
    unconverted,
)
from adapters_store.formats.mttl.library import plan_checkpoint, plan_folder, plan_library
from adapters_store.formats.mttl.settings import ReleaseSettings, relevant
from adapters_store.formats.options import read_settings
from adapters_store.formats.source import Source, read_tensor_table
from adapters_store.limits import Limits

_Reader = Callable[[Source, str], Mapping[str, Any]]


class ReleaseFormat:
    """One checkpoint of branch ``mhr_camera_ready``, made safetensors, with its options.

    They stand in ``<checkpoint>.ckpt.json``, which a conversion writes, or in ``config.json``.
    """

    name = "mttl_mhr"

    def recognises(self, source: Source) -> bool:
        """True beside a converted checkpoint's options, for a run's, and for a pickle alone."""
        if _is_main_branch(source):
            return False
        weights, facts = files(source, WEIGHTS), files(source, FACTS)
        if any(name.removesuffix(FACTS) + WEIGHTS in weights for name in facts):
            return True
        if "model_modifier" in self._options(source, try_object):
            return True
        return bool(files(source, PICKLE)) and not weights

    def plan(
        self, source: Source, backbone: BackboneRecord, options: ImportOptions, limits: Limits
    ) -> Plan:
        """See :class:`~adapters_store.formats.protocol.Format`."""
        weights = _only_weights(source)
        config = self._options(source, read_object)
        if "model_modifier" not in config:
            raise InvalidArtefactError(
                f"{source.location} has no {CONFIG_FILE} with a model_modifier, and no options in "
                f"the checkpoint"
            )
        tensors = read_tensor_table(source, weights, limits)
        draft = Draft(self.name, source, backbone, options, limits, weights, tensors)
        settings = read_settings(draft, ReleaseSettings, relevant(config))
        if settings is not None:
            release.plan(draft, settings)
        is_plain = config["model_modifier"] == "lora"
        return draft.finish("LORA" if is_plain else ROUTED)

    @staticmethod
    def _options(
        source: Source, read: Callable[[Source, str], Mapping[str, Any]]
    ) -> Mapping[str, Any]:
        """The checkpoint's own options where it has some, else those of the run's folder."""
        for name in files(source, FACTS):
            if own := object_in(read(source, name), "hyper_parameters"):
                return own
        return read(source, CONFIG_FILE) if CONFIG_FILE in source.sizes() else {}


class MainFormat:
    """A library of experts, a model of experts, or one expert's checkpoint of the main branch."""

    name = "mttl"

    def recognises(self, source: Source) -> bool:
        """True for ``mttl_config.json``, metadata of experts, or a checkpoint's expert_info."""
        return _is_main_branch(source)

    def plan(
        self, source: Source, backbone: BackboneRecord, options: ImportOptions, limits: Limits
    ) -> Plan:
        """See :class:`~adapters_store.formats.protocol.Format`."""
        given = (self.name, source, backbone, options, limits)
        if MODEL_CONFIG_FILE in source.sizes():
            return plan_folder(given, read_object(source, MODEL_CONFIG_FILE))
        if files(source, META) or files(source, f"{META}.json"):
            return plan_library(given)
        return plan_checkpoint(given, _only_weights(source))


def _is_main_branch(source: Source) -> bool:
    if MODEL_CONFIG_FILE in source.sizes():
        return True
    weights = {name.removesuffix(WEIGHTS) for name in files(source, WEIGHTS)}
    pickles = {name.removesuffix(PICKLE) for name in files(source, PICKLE)}
    experts = {name.removesuffix(META) for name in files(source, META)}
    converted = {name.removesuffix(f"{META}.json") for name in files(source, f"{META}.json")}
    if experts & pickles or converted & weights:
        return True
    facts = (try_object(source, name) for name in files(source, FACTS))
    return any(object_in(one, "expert_info") for one in facts)


def _only_weights(source: Source) -> str:
    """The one file of weights; raises where it is a pickle, absent, or one of several."""
    weights, pickles = files(source, WEIGHTS), files(source, PICKLE)
    if len(weights) == 1:
        return weights[0]
    if weights:
        raise InvalidArtefactError(
            f"{source.location} holds {len(weights)} files of weights: {', '.join(weights[:3])}",
            hint="Keep the checkpoint to import, such as the best one.",
        )
    if pickles:
        raise UnsafeArtefactError(unconverted(pickles[0]))
    raise InvalidArtefactError(f"{source.location} holds no checkpoint's {WEIGHTS} file")
