"""The page on the ledger: its receiver runs as printed, its table of events is the real one."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

from store_kit import low_rank

from adapters_store.ledger.events import EVENT_TYPES
from adapters_store.webhooks import Deliverer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "registry" / "ledger.md"
SECRET = "a-secret-of-the-page"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    give_up_at = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < give_up_at, "the receiver did not start"
            time.sleep(0.05)


def test_the_receiver_of_the_page_takes_what_is_genuine_and_nothing_else(store, t5):
    source = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[-1]
    port = free_port()
    environment = {**os.environ, "PORT": str(port), "WEBHOOK_SECRET": SECRET}
    process = subprocess.Popen(
        [sys.executable, "-c", source],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    try:
        wait_for(port)
        url = f"http://127.0.0.1:{port}/"
        store.webhooks.add(url, SECRET, events=("adapter_version.*",), allow_private=True)
        forged = store.webhooks.add(url, "another-secret-here", allow_private=True)
        store.publish("acme/task", low_rank(t5))
        counts = Deliverer(store, num_workers=1).deliver_due()
        assert (counts.num_delivered, counts.num_failed) == (1, 1)
        refused = next(one for one in store.webhooks.list() if one.id == forged.id)
        assert refused.last_error == "the receiver answered 401"
    finally:
        process.terminate()
        output = process.communicate(timeout=30)[0]
    created = store.audit.events(type="adapter_version.created")[0]
    assert output == f"{created.sequence} adapter_version.created task\n"


def test_the_page_names_every_type_of_event():
    table = PAGE.read_text(encoding="utf-8").split("| type |")[1].split("\n\n")[0]
    named: set[str] = set()
    for row in table.splitlines()[2:]:
        first = ""
        for word in re.findall(r"`([a-z_.]+)`", row.split("|")[1]):
            first = word if not word.startswith(".") else first
            named.add(word if not word.startswith(".") else first.split(".")[0] + word)
    assert named == set(EVENT_TYPES)
