"""A child's end of the pipe: one JSON line asks for a run, one JSON line answers.

Standard library alone, and imported by its bare name: the scripts beside it run in a peer's
interpreter, where nothing of this project is installed.
"""

import json
import os
import sys
import time


def open_pipe():
    """The reply stream; whatever libraries print from now on goes to standard error."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return replies


def settings():
    """The job that the parent wrote: folders, dtype, sizes and inputs."""
    with open(sys.argv[1], encoding="utf-8") as file:
        return json.load(file)


def serve(replies, answer, **facts):
    """Say ``facts``, then answer every line ``{"kind": ..., "count": ...}`` until the pipe closes.

    ``answer(kind, count)`` returns the rows' tokens. A reply holds them with the seconds that the
    answer took by the wall and by this process's processor clock.
    """
    print(json.dumps({"pid": os.getpid(), **facts}), file=replies)
    for line in sys.stdin:
        order = json.loads(line)
        wall, busy = time.perf_counter(), time.process_time()
        tokens = answer(order["kind"], order["count"])
        wall, busy = time.perf_counter() - wall, time.process_time() - busy
        print(json.dumps({"wall_s": wall, "busy_s": busy, "tokens": tokens}), file=replies)
