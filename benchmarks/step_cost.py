"""What a decode step must read and multiply, and what this machine does in that time.

Read once a step: the frozen matrices of the stack that writes and the output matrix, the factors of
every distinct task at those sites, and the keys and values of all rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from statistics import median

import torch
from torch.nn import functional

from adapters_store.artefact import Artefact, load_tensors
from adapters_store.backbone import Backbone
from adapters_store.families.site import Site

_COPY_BYTES, _GPU_COPY_BYTES = 2**28, 2**30


def decode_sites(backbone: Backbone) -> list[Site]:
    """The linear maps of a decode step; cross keys and values are made once, with the input."""
    return [
        site
        for site in backbone.sites.values()
        if site.stack == "decoder" and site.role not in ("cross.k", "cross.v")
    ]


def num_frozen(backbone: Backbone) -> int:
    """Elements of the frozen matrices that a decode step reads."""
    matrices = sum(site.in_features * site.out_features for site in decode_sites(backbone))
    return matrices + backbone.architecture.vocab_size * backbone.shapes.hidden_size


def num_factors(artefact: Artefact, bank: Artefact | None = None) -> int:
    """Elements of one task's own tensors that a decode step reads; composed, for a routing."""
    if bank is None:
        tensors = load_tensors(artefact)
        return sum(one.numel() for name, one in tensors.items() if _is_read(name))
    num_skills = bank.manifest.bank_parts[0].num_skills
    return num_factors(bank) // num_skills


def _is_read(name: str) -> bool:
    site = name.split("/", 1)[0]
    return site.startswith("decoder.") and not site.endswith(("cross.k", "cross.v"))


def num_kv(backbone: Backbone, num_input: int, num_steps: float) -> float:
    """Elements of one row's keys and values, ``num_steps`` tokens after its input."""
    total = 0.0
    has_encoder = any(site.stack == "encoder" for site in backbone.sites.values())
    for site in backbone.sites.values():
        if site.stack == "decoder" and site.role in ("self.k", "self.v"):
            total += site.out_features * (num_steps + (0 if has_encoder else num_input))
        elif site.role in ("cross.k", "cross.v"):
            total += site.out_features * num_input
    return total


def copy_bytes_per_s(device: torch.device | None = None) -> float:
    """Bytes read plus bytes written a second by a copy far larger than the caches."""
    num_bytes = _COPY_BYTES if device is None or device.type == "cpu" else _GPU_COPY_BYTES
    source = torch.ones(num_bytes // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    return 2 * num_bytes / _median_s(lambda: target.copy_(source)[-1].item(), 8)


def products_s(backbone: Backbone, num_rows: int, dtype: torch.dtype) -> float:
    """Seconds of the frozen products of a decode step and nothing else, site by site."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(site.out_features, site.in_features) for site in decode_sites(backbone)]
    shapes.append((backbone.architecture.vocab_size, backbone.shapes.hidden_size))
    weights = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    inputs = {
        size: torch.randn(num_rows, size, generator=generator).to(dtype)
        for size in {size for _, size in shapes}
    }

    @torch.inference_mode()
    def products() -> None:
        for weight in weights:
            functional.linear(inputs[weight.shape[1]], weight)

    return _median_s(products, 12)


def _median_s(call: Callable[[], object], num_times: int) -> float:
    times = []
    for number in range(num_times + 2):
        start = time.perf_counter()
        call()
        if number >= 2:
            times.append(time.perf_counter() - start)
    return median(times)


def num_task_elements(tasks: Iterable[Artefact | None], banks: Mapping[str, Artefact]) -> int:
    """Elements that a decode step reads of all distinct tasks; ``banks`` by digest."""
    distinct = {task.digest: task for task in tasks if task is not None}
    own = (
        num_factors(task, banks[task.manifest.bank] if task.manifest.bank else None)
        for task in distinct.values()
    )
    return sum(own)
