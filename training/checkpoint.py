"""Checkpoints of a run: weights, optimiser, schedule and loss scale, in one file.

A checkpoint is written beside the old one and renamed over it, so a run killed while saving
still has the last good one.
"""

from __future__ import annotations

import os
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from adapters_store.errors import IncompatibleError, TrainingError
from training.recipe import Keep

_NAME = "checkpoint.pt"
_BEST = "best.pt"
_OTHER_RECIPE = "Resume with the recipe that the run was started with."


def _read(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, mmap=True, map_location="cpu")
    except (RuntimeError, EOFError, UnpicklingError) as error:
        raise TrainingError(
            f"checkpoint {path} cannot be read: {error}", hint="Start the run again."
        ) from error
    return state


def _write(path: Path, state: dict[str, Any]) -> None:
    temporary = path.with_name(path.name + ".part")
    torch.save(state, temporary)
    os.replace(temporary, path)


def kept(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What trains, and what a method drew once and keeps: a random routing."""
    return {n: p for n, p in model.named_parameters() if p.requires_grad or ".method." in n}


def save(
    folder: Path,
    step: int,
    model: torch.nn.Module,
    optimizer: Any,
    scheduler: Any,
    scaler: Any = None,
) -> None:
    """Write the state after ``step`` steps, replacing the previous checkpoint at once.

    ``scaler`` is that of float16, None otherwise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "step": step,
        "weights": {name: p.detach() for name, p in kept(model).items()},
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
    }
    _write(folder / _NAME, state)


def latest_step(folder: Path) -> int | None:
    """The step of the stored checkpoint, or None."""
    path = folder / _NAME
    return int(_read(path)["step"]) if path.exists() else None


def resume(
    folder: Path, model: torch.nn.Module, optimizer: Any, scheduler: Any, scaler: Any = None
) -> int:
    """Load the stored checkpoint, if any, into the parts; returns the step to go on from."""
    path = folder / _NAME
    if not path.exists():
        return 0
    state = _read(path)
    load_weights(model, state["weights"])
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    if scaler is not None and state.get("scaler"):
        scaler.load_state_dict(state["scaler"])
    return int(state["step"])


def load_weights(model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Copy named weights into the model's own; names and shapes must agree exactly."""
    own = kept(model)
    if own.keys() != weights.keys():
        raise IncompatibleError(
            f"checkpoint names differ from the model's: missing {sorted(own.keys() - weights)}, "
            f"extra {sorted(weights.keys() - own.keys())}",
            hint=_OTHER_RECIPE,
        )
    for name, parameter in own.items():
        if parameter.shape != weights[name].shape:
            raise IncompatibleError(
                f"checkpoint weight {name} has shape {tuple(weights[name].shape)}; the model's is "
                f"{tuple(parameter.shape)}",
                hint=_OTHER_RECIPE,
            )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])


def offer_best(folder: Path, step: int, score: float, model: torch.nn.Module) -> None:
    """Keep the weights of this step beside the checkpoint unless an earlier one scored higher."""
    path = folder / _BEST
    if not path.exists() or _read(path)["score"] <= score:
        weights = {name: p.detach() for name, p in kept(model).items()}
        _write(path, {"step": step, "score": score, "weights": weights})


def drop_best(folder: Path) -> None:
    """Forget the best weights: a run begins anew."""
    (folder / _BEST).unlink(missing_ok=True)


def stored(folder: Path, keep: Keep = "last") -> tuple[int, dict[str, torch.Tensor]]:
    """Step and weights by parameter name: those of the checkpoint, or the best on dev so far.

    The last ones stand for the best while none has been scored.
    """
    path = folder / _BEST if keep == "best" and (folder / _BEST).exists() else folder / _NAME
    state = _read(path)
    return int(state["step"]), state["weights"]


def stored_weights(folder: Path, keep: Keep = "last") -> dict[str, torch.Tensor]:
    """The weights alone."""
    return stored(folder, keep)[1]
