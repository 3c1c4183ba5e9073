"""A backbone's parameters by path, from an unmodified Hugging Face checkpoint folder.

transformers reads the folder (it knows old parameter names and tied weights); nothing of its
forward code runs afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from adapters_store.backbone import Backbone
from adapters_store.errors import IncompatibleError
from adapters_store.families.architecture import Architecture


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


class Checkpoint:
    """Parameters by dotted path; every one asked for must come from the folder.

    A path is looked up in the base model first, then in the whole model (output matrix). The
    folder is read into host memory, and each parameter goes to ``device`` when it is asked for.
    """

    def __init__(self, backbone: Backbone, dtype: torch.dtype, device: torch.device) -> None:
        self._folder = Path(backbone.folder)
        self._dtype, self._device = dtype, device
        auto = _auto_class(backbone.architecture)
        self._model: nn.Module
        with _quiet():
            self._model, info = auto.from_pretrained(
                self._folder, dtype=dtype, local_files_only=True, output_loading_info=True
            )
        self._missing = set(info["missing_keys"])
        name = str(self._model.base_model_prefix)
        self._prefixes = (f"{name}.", "") if hasattr(self._model, name) else ("",)

    def has(self, path: str) -> bool:
        """True where the folder holds the parameter at ``path``."""
        found = self._look_up(path)
        return found is not None and found[0] not in self._missing

    def get(self, path: str) -> Tensor:
        """The parameter at ``path``; raises IncompatibleError when the folder lacks it."""
        tensor = self.find(path)
        if tensor is None:
            raise IncompatibleError(f"{self._folder} holds no parameter {path!r}")
        return tensor

    def find(self, path: str) -> Tensor | None:
        """The parameter at ``path``, or None where the module has none (a linear without bias).

        Raises IncompatibleError where the module has one that the folder lacks.
        """
        found = self._look_up(path)
        if found is None:
            return None
        name, tensor = found
        if name in self._missing:
            raise IncompatibleError(f"{self._folder} holds no parameter {path!r}")
        return tensor.detach().to(self._device, self._dtype)

    def _look_up(self, path: str) -> tuple[str, Tensor] | None:
        """The model's own path of the parameter, and its value whether read or not."""
        for prefix in self._prefixes:
            whole = f"{prefix}{path}"
            module_path, _, name = whole.rpartition(".")
            try:
                tensor = getattr(self._model.get_submodule(module_path), name, None)
            except AttributeError:
                continue
            if isinstance(tensor, Tensor):
                return whole, tensor
        return None


def _auto_class(architecture: Architecture) -> Any:
    if architecture.is_encoder_decoder:
        return transformers.AutoModelForSeq2SeqLM
    if architecture.is_decoder_only:
        return transformers.AutoModelForCausalLM
    return transformers.AutoModel
