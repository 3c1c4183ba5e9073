"""Our engine in this process, started like the peers: a script, a job file and a pipe."""

from __future__ import annotations

import pipe

replies = pipe.open_pipe()

from pathlib import Path  # noqa: E402

import torch  # noqa: E402

from benchmarks.drive import answers  # noqa: E402
from benchmarks.peers.world import open_world  # noqa: E402
from serving.engine import Engine, EngineConfig, Request, Sampling  # noqa: E402

job = pipe.settings()
world = open_world(Path(job["folder"]), sites=job["sites"])
num_rows = len(job["inputs"])
engine = Engine(
    world.backbone,
    world.loader,
    EngineConfig(
        dtype=job["dtype"],
        num_threads=1,
        max_rows=num_rows,
        max_step_tokens=num_rows * job["num_input"],
        prefix_cache_bytes=0,
    ),
)
sampling = Sampling(max_tokens=job["num_output"], ignore_eos=True)
tasks = {"bare": [None], "lora": world.loras, "routed": world.routings}


def answer(kind: str, count: int) -> list[list[int]]:
    """Tokens of every row; row i asks for task ``i % count``."""
    digests = tasks[kind][: max(count, 1)]
    requests = [
        Request(f"{i}", "generate", digests[i % len(digests)], tuple(ids), sampling)
        for i, ids in enumerate(job["inputs"])
    ]
    outcomes = answers(engine, requests)
    return [outcomes[f"{i}"].tokens for i in range(num_rows)]


pipe.serve(
    replies,
    answer,
    package="patchbay",
    num_threads=torch.get_num_threads(),
)
