"""The demo's requests: what a visitor is shown, over HTTP like any client's calls."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click
import httpx

from adapters_store.store import Store
from patchbay import bundled

SHOWCASE = Path(__file__).parent / "showcase.json"
TEACHING_TENANT = "acme"
NUM_EXAMPLES = 32
NUM_MIXED_REQUESTS = 96
TIMEOUT_S = 120.0


@dataclass
class Tour:
    """One visitor's requests against a running system; counts the answers shown and right."""

    url: str
    store: Store
    names: dict[str, str]
    num_shown: int = 0
    num_right: int = 0
    _taught: tuple[str, str] | None = None
    _client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=TIMEOUT_S))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._client.close()

    def complete(self, model: str, prompt: str) -> tuple[str, str]:
        """The answer of ``model`` and the resolved version that gave it."""
        response = self._client.post(
            f"{self.url}/v1/completions", json={"model": model, "prompt": prompt}
        )
        response.raise_for_status()
        text: str = response.json()["choices"][0]["text"]
        return text, response.headers["x-adapter-version"]

    def answer_tasks(self) -> None:
        """Ask one question of each showcased task and print it beside what is expected."""
        cases = json.loads(SHOWCASE.read_text(encoding="utf-8"))["tasks"]
        click.echo(f"\n1. {len(cases)} tasks of different tenants on one frozen backbone\n")
        click.echo(f"   {'model':34} {'input':56} {'output':28} expected")
        for case in cases:
            name = self.names[case["task"]]
            answer, _ = self.complete(name, case["input"])
            self._show(f"{name:34} {_flat(case['input']):56}", answer, case["output"])

    def _show(self, head: str, answer: str, expected: str) -> None:
        self.num_shown += 1
        self.num_right += answer == expected
        mark = "" if answer == expected else "  <- WRONG"
        click.echo(f"   {head} {_flat(answer):28} {_flat(expected)}{mark}")

    def teach_new_task(self) -> None:
        """Teach a held-out task by routing alone, register it while serving, and query it."""
        from adapters_store.artefact import read_artefact
        from training.adapt import AdaptConfig, Teacher
        from training.recipe import TasksSection
        from training.sources import suite_task

        case = json.loads(SHOWCASE.read_text(encoding="utf-8"))["held_out"]
        task = suite_task(case["task"], TasksSection(num_train=NUM_EXAMPLES, num_dev=0))
        name = f"{TEACHING_TENANT}/{task.name}"
        click.echo(f"\n2. A new task, {name}: {task.description}")
        bank = read_artefact(bundled.BANK_FOLDER)
        neighbours = [
            read_artefact(bundled.ROUTING_FOLDER / known) for known in bundled.task_names()
        ]
        teacher = Teacher.open(bundled.BACKBONE_FOLDER)
        untaught = teacher.untaught_score(task, bank)
        taught = teacher.teach(task, AdaptConfig(**case["config"]), bank, neighbours)
        version = self._register(name, taught.artefact)
        click.echo(
            f"   learnt from {len(task.train)} examples in {taught.metrics['seconds']:.1f} s by "
            f"routing only ({taught.metrics['num_trained']:,} numbers); exact match on "
            f"{len(task.test)} unseen inputs {untaught:.2f} before, "
            f"{taught.metrics['test']:.2f} after"
        )
        click.echo(f"   registered while serving as {version}")
        for text, expected in case["queries"]:
            answer, _ = self.complete(name, text)
            self._show(f"{name:34} {_flat(text):56}", answer, expected)
        self._taught = (name, case["queries"][0][0])

    def _register(self, name: str, artefact: Any) -> str:
        response = self._client.post(
            f"{self.url}/v1/adapters",
            data={"name": name},
            files={
                "manifest": ("manifest.json", artefact.manifest.canonical, "application/json"),
                "data": ("data.safetensors", artefact.data, "application/octet-stream"),
            },
        )
        response.raise_for_status()
        reference: str = response.json()["reference"]
        return reference

    def mix_tasks(self) -> None:
        """Send many requests of many tasks at once and say how many shared a step."""
        click.echo(
            f"\n3. {NUM_MIXED_REQUESTS} requests at once, dealt over {len(self.names)} tasks"
        )
        right, seconds = asyncio.run(self._mixed())
        rows, distinct = (
            self._metric("patchbay_batch_rows"),
            self._metric("patchbay_batch_distinct_adapters"),
        )
        click.echo(
            f"   answered in {seconds:.1f} s; up to {distinct} distinct tasks shared one step of "
            f"up to {rows} rows"
        )
        click.echo(f"   {right} of {NUM_MIXED_REQUESTS} answers are what each task gives alone")
        self.num_shown += NUM_MIXED_REQUESTS
        self.num_right += right

    async def _mixed(self) -> tuple[int, float]:
        import time

        inputs = {task: self.store.resolve(name).manifest for task, name in self.names.items()}
        requests = []
        for index in range(NUM_MIXED_REQUESTS):
            task = list(self.names)[index % len(self.names)]
            about = inputs[task].signature
            examples = about.examples if about else ()
            text = examples[(index // len(self.names)) % len(examples)].input
            requests.append((self.names[task], text))
        alone = [self.complete(name, text)[0] for name, text in requests]
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
            began = time.monotonic()
            responses = await asyncio.gather(
                *(
                    client.post(f"{self.url}/v1/completions", json={"model": name, "prompt": text})
                    for name, text in requests
                )
            )
            seconds = time.monotonic() - began
        mixed = [response.json()["choices"][0]["text"] for response in responses]
        return sum(a == b for a, b in zip(alone, mixed)), seconds

    def _metric(self, histogram: str) -> int:
        """The largest bucket of a histogram that holds an observation."""
        text = self._client.get(f"{self.url}/metrics").text
        best, last = 0.0, 0.0
        for line in text.splitlines():
            if line.startswith(f"{histogram}_bucket"):
                bound = line.partition('le="')[2].partition('"')[0]
                count = float(line.rsplit(" ", 1)[1])
                if count > last and bound != "+Inf":
                    best = float(bound)
                last = count
        return int(best)

    def print_next_commands(self) -> None:
        """Lines to paste into another terminal."""
        name, text = self._taught or next(iter(self.names.items()))
        body = json.dumps({"model": name, "prompt": text})
        stream = json.dumps({"model": name, "prompt": text, "stream": True})
        click.echo("\n4. Try it from another terminal\n")
        for line in (
            f"curl -s {self.url}/v1/models",
            f"curl -s {self.url}/v1/completions -H 'content-type: application/json' -d '{body}'",
            f"curl -sN {self.url}/v1/completions -H 'content-type: application/json' -d '{stream}'",
            f"curl -s {self.url}/v1/tasks/{name}",
            f"curl -s {self.url}/v1/completions -H 'content-type: application/json' "
            '-d \'{"model": "acme/unknown", "prompt": "?"}\'',
            f"curl -s {self.url}/metrics | grep distinct",
        ):
            click.echo(f"   {line}")


def _flat(text: str) -> str:
    return text.replace("\n", "\\n")
