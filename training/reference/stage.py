"""Where the parts of one artefact meet one model: its modules by path, and how all is undone."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from adapters_store.errors import IncompatibleError, UsageError
from adapters_store.families.shapes import BackboneShapes
from adapters_store.manifest import Manifest
from adapters_store.primitives.head import HeadPart

_CLAIMS: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()


class Call:
    """One call of a module, its arguments by name or by index as ``forward`` declares ``names``.

    What was given by position stays so: wrappers around ``forward`` may add arguments by name.
    """

    def __init__(
        self, names: Sequence[str], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        self.args, self.kwargs = list(args), dict(kwargs)
        self._names = names

    def get(self, argument: int | str) -> Any:
        """The argument's value, None where it was not given."""
        index, name = self._find(argument)
        return self.args[index] if index < len(self.args) else self.kwargs.get(name)

    def set(self, argument: int | str, value: Any) -> None:
        """Give the argument another value."""
        index, name = self._find(argument)
        if index < len(self.args):
            self.args[index] = value
        else:
            self.kwargs[name] = value

    def _find(self, argument: int | str) -> tuple[int, str]:
        if isinstance(argument, int):
            return argument, self._names[argument]
        is_declared = argument in self._names
        return self._names.index(argument) if is_declared else len(self._names), argument


@dataclass
class Stage:
    """A model while an artefact is applied to it.

    ``tensors`` are the artefact's, in the model's dtype and on its device; ``bank`` and
    ``bank_tensors`` are those of a routing's bank; ``mixing`` holds a routing's weights (H, K) by
    site. What parts leave for later: the ``head``, and ``prompt_rows``, the rows of a prompt before
    the tokens by stack.
    """

    model: Any
    shapes: BackboneShapes
    tensors: Mapping[str, torch.Tensor]
    undo: ExitStack
    bank: Manifest | None = None
    bank_tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    mixing: Mapping[str, torch.Tensor] = field(default_factory=dict)
    head: HeadPart | None = None
    prompt_rows: dict[str, int] = field(default_factory=dict)

    def module(self, path: str) -> nn.Module:
        """The module at a path of the family's tables; raises IncompatibleError if it has none."""
        base = self.model.base_model
        try:
            module: nn.Module = base.get_submodule(path)
        except AttributeError as error:
            raise IncompatibleError(
                f"a {type(base).__name__} has no module {path!r}",
                hint="Give the model class that holds every place the artefact acts on.",
            ) from error
        return module

    def before(self, path: str, hook: Callable[[Call], None], *, is_first: bool = False) -> None:
        """Run ``hook`` on the arguments of each call; ``is_first`` lets it see them untouched."""
        target, names = self._target(path)

        def pre_hook(module: nn.Module, args: Any, kwargs: Any) -> Any:
            call = Call(names, args, kwargs)
            hook(call)
            return tuple(call.args), call.kwargs

        handle = target.register_forward_pre_hook(pre_hook, prepend=is_first, with_kwargs=True)
        self.undo.callback(handle.remove)

    def after(self, path: str, hook: Callable[[Call, torch.Tensor], torch.Tensor]) -> None:
        """Replace a module's first output by what ``hook`` makes of the call and that output."""
        target, names = self._target(path)

        def post_hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            call = Call(names, args, kwargs)
            if isinstance(output, tuple):
                return (hook(call, output[0]), *output[1:])
            return hook(call, output)

        handle = target.register_forward_hook(post_hook, with_kwargs=True)
        self.undo.callback(handle.remove)

    def _target(self, path: str) -> tuple[nn.Module, list[str]]:
        module = self.module(path)
        return module, list(inspect.signature(module.forward).parameters)

    def swap(self, path: str, change: Callable[[torch.Tensor | None], torch.Tensor]) -> None:
        """Put ``change(present value)`` in a parameter's place; the value is None if there is none.

        The same parameter object returns to its place afterwards.
        """
        module_path, _, leaf = path.rpartition(".")
        module = self.module(module_path)
        present = getattr(module, leaf, None)
        value = change(None if present is None else present.detach())
        setattr(module, leaf, nn.Parameter(value, requires_grad=False))
        self.undo.callback(setattr, module, leaf, present)

    def claim(self, path: str, effect: str) -> nn.Module:
        """The module, for one ``effect`` at a time; raises UsageError where it is taken."""
        module = self.module(path)
        taken = _CLAIMS.setdefault(module, set())
        if effect in taken:
            raise UsageError(
                f"{path} already has a {effect} from an artefact that is applied",
                hint="Apply one of the two artefacts at a time.",
            )
        taken.add(effect)
        self.undo.callback(taken.discard, effect)
        return module
