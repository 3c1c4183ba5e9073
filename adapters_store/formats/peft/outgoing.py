"""What is written for PEFT: a configuration and tensors under PEFT's names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from adapters_store.artefact import Artefact, load_tensors
from adapters_store.backbone import BackboneRecord
from adapters_store.errors import RejectedArtefactError
from adapters_store.formats.peft.modules import BASE_PREFIXES, PREFIX
from adapters_store.formats.peft.saved import HEAD_FORMS
from adapters_store.primitives import Part, head
from adapters_store.primitives.head import HeadPart
from adapters_store.primitives.override import OverridePart

if TYPE_CHECKING:
    import torch

PartType = TypeVar("PartType", bound=Part)


class Outgoing:
    """Collects the options and tensors of one adapter on one backbone.

    Paths are those of the model class that fits the task: with a classifier, with an output over
    tokens, or the base model alone.
    """

    def __init__(self, artefact: Artefact, backbone: BackboneRecord, bank: Artefact | None) -> None:
        self.artefact = artefact
        self.backbone = backbone
        self.bank = bank
        self.shapes = backbone.shapes
        self.given = load_tensors(artefact)
        self.tensors: dict[str, torch.Tensor] = {}
        self.model_type = str(backbone.config.get("model_type"))
        self.task_type = self._task_type()
        has_head = self.task_type != "FEATURE_EXTRACTION"
        self.base = BASE_PREFIXES.get(self.model_type, "") if has_head else ""
        self.options: dict[str, Any] = {
            "base_model_name_or_path": backbone.name,
            "inference_mode": True,
            "task_type": self.task_type,
        }

    def parts(self, kind: type[PartType]) -> list[PartType]:
        """The artefact's parts of one type, in the manifest's order."""
        return [part for part in self.artefact.manifest.parts if isinstance(part, kind)]

    def path(self, module_path: str) -> str:
        """The path of a module of the base model inside the class that fits the task."""
        return self.base + module_path

    def put(self, module_path: str, suffix: str, tensor: torch.Tensor) -> None:
        """Add a tensor of a module of the base model."""
        self.tensors[f"{PREFIX}{self.path(module_path)}{suffix}"] = tensor

    def vector_path(self, vector: str) -> tuple[str, str]:
        """The module and the parameter (``weight`` or ``bias``) of a named vector."""
        module, _, parameter = self.shapes.vector(vector).parameter_path.rpartition(".")
        return module, parameter

    def is_bias(self, part: OverridePart) -> bool:
        """True where the part concerns the bias of a linear site."""
        return part.vector.removesuffix(".bias") in self.shapes.sites

    def put_norms(self, parts: Sequence[OverridePart], suffix: str = "") -> list[str]:
        """Add norms of the task's own, with ``suffix`` before their parameters' names; returns
        their modules' paths. Raises RejectedArtefactError for anything but whole norms."""
        names = {part.vector for part in parts if part.operation == "replace"}
        found: dict[str, None] = {}
        for part in parts:
            module, parameter = self.vector_path(part.vector)
            if not self.vectors_of(module) <= names or self.is_bias(part):
                raise RejectedArtefactError(
                    f"PEFT has no place for the override of {part.vector!r} ({part.operation}) "
                    "here; norms may be replaced whole, and beside low_rank parts biases"
                )
            value = self.given[f"{part.vector}/override/value"]
            self.put(module, f"{suffix}.{parameter}", value)
            found[self.path(module)] = None
        return list(found)

    def vectors_of(self, module: str) -> set[str]:
        """The named vectors that are parameters of a module of the base model."""
        return {
            vector.name
            for vector in self.shapes.anatomy.vectors
            if vector.parameter_path.rpartition(".")[0] == module
        }

    def save_norms(self, parts: Sequence[OverridePart]) -> None:
        """Add norms as modules that are saved whole; raises as :meth:`put_norms` does."""
        for path in self.put_norms(parts):
            self._save(path)

    def save_head(self, prefix: str = PREFIX) -> None:
        """Add the classifier, if there is one; raises RejectedArtefactError for another form."""
        part = self.artefact.manifest.head_part
        if part is None:
            return
        form = HEAD_FORMS[self.model_type]
        found = (part.pooling, part.dense_size)
        expected = (form.pooling, self.shapes.hidden_size if form.dense else None)
        if found != expected:
            raise RejectedArtefactError(
                f"the head pools {found[0]!r} with a dense layer of {found[1]}; the classifier "
                f"of model_type {self.model_type!r} pools {expected[0]!r} with {expected[1]}"
            )
        self.tensors[f"{prefix}{form.output}.weight"] = self.given[head.WEIGHT]
        bias = self.given[head.BIAS]
        if form.has_bias:
            self.tensors[f"{prefix}{form.output}.bias"] = bias
        elif bool(bias.any()):
            raise RejectedArtefactError(
                f"the head has a bias; the classifier of model_type {self.model_type!r} has none"
            )
        if form.dense is not None:
            self.tensors[f"{prefix}{form.dense}.weight"] = self.given[head.DENSE_WEIGHT]
            self.tensors[f"{prefix}{form.dense}.bias"] = self.given[head.DENSE_BIAS]
        self._save(form.output.partition(".")[0])

    def _save(self, module: str) -> None:
        saved = self.options.setdefault("modules_to_save", [])
        if module not in saved:
            saved.append(module)

    def _task_type(self) -> str | None:
        if self.parts(HeadPart):
            if self.model_type not in HEAD_FORMS:
                raise RejectedArtefactError(
                    f"PEFT has no place for a head on model_type {self.model_type!r}; known: "
                    f"{sorted(HEAD_FORMS)}"
                )
            return HEAD_FORMS[self.model_type].task_type
        signature = self.artefact.manifest.signature
        if signature is None or signature.task != "text2text":
            return "FEATURE_EXTRACTION"
        return "SEQ_2_SEQ_LM" if len(self.shapes.anatomy.inputs) == 2 else "CAUSAL_LM"
