"""The program that reads pickled files of weights in a process of its own.

It takes its order as JSON in the first argument and prints a report as JSON. It imports nothing of
this package, so that it runs isolated from the environment and the working directory.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import resource
import sys
from typing import Any

ALIAS = ".prefix_tuning.pool."
DTYPES = (
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "bool",
)


STATES = ("state_dict", "expert_weights")
"""Keys of a trainer's checkpoint that hold its tensors by name."""
FACTS = ("hyper_parameters", "expert_info")
"""Keys of a trainer's checkpoint that hold plain values; they become JSON beside the tensors."""


class RefusedError(Exception):
    """A file that is not converted: ``kind`` is unsafe, too_large or invalid."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def main(order: dict[str, Any]) -> dict[str, str]:
    """Read, check and write every file of the order; the report says how it went."""
    import torch

    torch.set_num_threads(1)
    confine(order)
    for name, new in order["files"].items():
        path, out = os.path.join(order["folder"], name), os.path.join(order["out"], new)
        kind, message = convert(path, out, order)
        if kind != "done":
            return {"kind": kind, "message": f"{name}: {message}"}
    return {"kind": "done", "message": ""}


def convert(path: str, out: str, order: dict[str, Any]) -> tuple[str, str]:
    """Write what one file holds; what became of it, and why."""
    from safetensors.torch import save_file

    try:
        found = load(path)
        if out.endswith(".json"):
            write_facts(found, out, order)
            return "done", ""
        state = next((key for key in STATES if is_named(found) and is_named(found.get(key))), None)
        if state is not None:
            facts = {key: found[key] for key in FACTS if key in found}
            write_facts(facts, f"{out.removesuffix('.safetensors')}.ckpt.json", order)
            found = found[state]
        save_file(plain_tensors(found, order), out)
    except RefusedError as error:
        return error.kind, str(error)
    except pickle.UnpicklingError as error:
        return "unsafe", f"it holds more than tensors: {cause_of(error)}"
    except MemoryError:
        return "too_large", "it needs more memory than is allowed"
    except EOFError:
        return "invalid", "it cannot be read: it is empty or ends early"
    except (RuntimeError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return failure(error), f"it cannot be read: {cause_of(error)}"
    return "done", ""


def confine(order: dict[str, Any]) -> None:
    """Lower this process's limits; torch is loaded already, so memory counts from here."""
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent_s = int(usage.ru_utime + usage.ru_stime) + 1
    limits = {
        resource.RLIMIT_AS: mapped + order["memory_bytes"],
        resource.RLIMIT_CPU: spent_s + order["cpu_s"],
        resource.RLIMIT_FSIZE: order["max_data_bytes"],
        resource.RLIMIT_NOFILE: order["open_files"],
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in limits.items():
        hard = resource.getrlimit(kind)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bound, bound))


def load(path: str) -> Any:
    """What the file holds, by torch's restricted reader; zip archives are mapped, not read."""
    import torch

    with open(path, "rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)


def is_named(found: Any) -> bool:
    """True for a dictionary whose keys are texts."""
    return isinstance(found, dict) and all(type(key) is str for key in found)


def write_facts(found: Any, out: str, order: dict[str, Any]) -> None:
    """Write plain values as JSON; raises RefusedError for anything but a dictionary."""
    if not is_named(found):
        raise RefusedError("unsafe", f"it holds {type(found).__name__}; expected named values")
    text = json.dumps(plain_value(found), indent=2, sort_keys=True, allow_nan=False)
    if len(text) > order["max_facts_bytes"]:
        raise RefusedError(
            "too_large",
            f"its values have {len(text)} bytes; the limit is {order['max_facts_bytes']}",
        )
    with open(out, "w", encoding="utf-8") as file:
        file.write(text + "\n")


def plain_value(value: Any) -> Any:
    """A value as JSON has it; what JSON does not have becomes a text that names its type."""
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else f"<{value}>"
    if isinstance(value, dict):
        return {str(key): plain_value(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return [plain_value(item) for item in value]
    return f"<{type(value).__name__}>"


def plain_tensors(found: Any, order: dict[str, Any]) -> dict[str, Any]:
    """Every tensor by name, each with memory of its own; raises RefusedError for anything else."""
    import torch

    if not isinstance(found, dict) or not found:
        raise RefusedError("unsafe", f"it holds {type(found).__name__}; expected named tensors")
    if len(found) > order["max_tensors"]:
        raise RefusedError(
            "too_large", f"it holds {len(found)} tensors; the limit is {order['max_tensors']}"
        )
    num_bytes = 0
    for name, value in found.items():
        if type(name) is not str or type(value) not in (torch.Tensor, torch.nn.Parameter):
            raise RefusedError(
                "unsafe", f"{str(name)[:200]!r} is {type(value).__name__}; expected a tensor"
            )
        dtype = str(value.dtype).removeprefix("torch.")
        if value.layout is not torch.strided or value.device.type != "cpu" or dtype not in DTYPES:
            raise RefusedError(
                "unsafe", f"{name[:200]!r} is a {value.layout} {dtype} tensor; expected a plain one"
            )
        num_bytes += value.numel() * value.element_size() + len(name)
    if num_bytes > order["max_data_bytes"]:
        raise RefusedError(
            "too_large",
            f"its tensors have {num_bytes} bytes; the limit is {order['max_data_bytes']}",
        )
    return {
        name: value.detach().contiguous().clone()
        for name, value in found.items()
        if not is_repeated(name, found)
    }


def is_repeated(name: str, found: dict[str, Any]) -> bool:
    """True for a layer's own name of a tensor in the pool of prefix tuning.

    ``adapters`` stores the whole pool once more under every layer, and reads it without.
    """
    if ALIAS not in name:
        return False
    wanted = "prefix_tuning." + name.partition(ALIAS)[2]
    for other, value in found.items():
        if other.endswith(wanted) and ALIAS not in other:
            return bool(
                value.data_ptr() == found[name].data_ptr()
                and value.shape == found[name].shape
                and value.stride() == found[name].stride()
            )
    return False


def failure(error: BaseException) -> str:
    """too_large where memory or the size of a file ran out, invalid otherwise."""
    text = str(error).lower()
    ran_out = ("can't allocate memory", "cannot allocate memory", "alloc", "file too large")
    return "too_large" if any(word in text for word in ran_out) else "invalid"


def cause_of(error: BaseException) -> str:
    """What an error says of the file, without torch's advice on how to load it all the same."""
    _, _, cause = str(error).rpartition("WeightsUnpickler error:")
    said = (line.strip().partition(" Please ")[0] for line in cause.splitlines())
    facts = (line for line in said if line and "weights_only" not in line)
    return next(facts, type(error).__name__)[:300]


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))), flush=True)
