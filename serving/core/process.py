"""The core's process: reads its spec, loads the backbone, warms up, then runs the loop.

It ends when told to (:class:`Stop`, SIGTERM) and when its parent ends: the parent holds the other
end of standard input, and a thread here waits for that pipe to close.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import zmq

from adapters_store.backbone import Backbone
from adapters_store.errors import PatchbayError
from serving.core.codec import encode
from serving.core.loop import CoreLoop
from serving.core.messages import Fatal, Ready
from serving.core.spec import CoreSpec

ORPHAN_GRACE_S = 5.0


def main() -> int:
    """Run a core until it is stopped; returns the process's exit code."""
    started = time.perf_counter()
    spec = CoreSpec.model_validate_json(sys.stdin.buffer.readline())
    context = zmq.Context()
    socket: zmq.Socket[bytes] = context.socket(zmq.PAIR)
    socket.set_hwm(0)
    socket.setsockopt(zmq.LINGER, 1000)
    socket.connect(spec.address)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(stopping,), daemon=True).start()
    try:
        return _serve(spec, socket, stopping, started)
    except PatchbayError as error:
        socket.send(encode(Fatal(error.code, error.message)))
        return error.exit_code
    finally:
        socket.close()
        context.term()


def _serve(
    spec: CoreSpec, socket: zmq.Socket[bytes], stopping: threading.Event, started: float
) -> int:
    backbone = Backbone.from_folder(spec.backbone.folder)
    from serving.core.build import build_core, warm_up

    with build_core(spec, backbone) as core:
        warm_up(core.engine)
        socket.send(encode(Ready(core.fingerprint, os.getpid(), time.perf_counter() - started)))
        loop = CoreLoop(core.engine, socket, stopping, core.loader.take_loads, core.leases.look)
        loop.run()
    return 0


def _end_with_parent(stopping: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        continue
    stopping.set()
    time.sleep(ORPHAN_GRACE_S)
    os._exit(1)
