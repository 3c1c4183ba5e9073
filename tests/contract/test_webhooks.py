"""Webhooks: who is told, in which order, how failures are retried, and what is given up."""

from __future__ import annotations

import hashlib
import hmac
import json
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest
from services.places import answers
from services.receiver import SECRET, Receiver, receiving
from store_kit import low_rank

from adapters_store.canonical import canonical_json
from adapters_store.errors import ForbiddenError, NotFoundError, UsageError
from adapters_store.ledger.events import EVENT_TYPES
from adapters_store.store import Store
from adapters_store.webhooks import Deliverer, DeliveryPolicy

QUICK = DeliveryPolicy(
    timeout_s=5, lease_s=20, max_attempts=3, first_delay_s=0.01, max_delay_s=0.02
)

PATIENT = DeliveryPolicy(timeout_s=5, lease_s=20, first_delay_s=60)
"""One that tries nothing again while a test runs."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture
def told(store: Store, receiver: Receiver, t5) -> Store:
    """A store whose every event goes to the receiver; acme/task has two versions."""
    store.webhooks.add(receiver.url, SECRET, allow_private=True)
    for seed in (1, 2):
        store.publish("acme/task", low_rank(t5, seed=seed), aliases=())
    return store


def deliverer(store: Store, policy: DeliveryPolicy = QUICK, num_workers: int = 2) -> Deliverer:
    return Deliverer(store, policy=policy, num_workers=num_workers)


def deliver_all(store: Store, policy: DeliveryPolicy = QUICK, num_passes: int = 40) -> None:
    """Passes until nothing waits any more."""
    worker = deliverer(store, policy)
    for _ in range(num_passes):
        worker.deliver_due()
        if all(one.next_at is None for one in store.webhooks.list()):
            return
        time.sleep(0.02)


def test_an_event_arrives_signed_in_its_stable_form(told, receiver):
    told.set_alias("acme/task", "prod", 2, actor="ann", reason="go")
    assert deliverer(told).deliver_due().num_delivered == 3
    event = told.audit.events()[-1]
    assert receiver.bodies[-1] == {
        "id": event.hash,
        "sequence": event.sequence,
        "type": "alias.set",
        "at": event.at,
        "actor": "ann",
        "subject": {
            "tenant": "acme",
            "name": "task",
            "version": 2,
            "alias": "prod",
            "digest": told.resolve("acme/task:2").digest,
        },
        "payload": {"from_version": None, "reason": "go", "evidence": []},
    }
    headers = receiver.headers[-1]
    assert headers["x-patchbay-event"] == "alias.set"
    assert headers["x-patchbay-delivery"] == f"{told.webhooks.list()[0].id}-{event.sequence}"
    assert headers["content-type"] == "application/json"
    assert headers["host"] == receiver.url.split("/")[2]
    signed = headers["x-patchbay-timestamp"].encode() + b"." + canonical_json(receiver.bodies[-1])
    expected = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert headers["x-patchbay-signature"] == f"v1={expected}"
    assert receiver.statuses == [204] * 3


def test_events_arrive_once_and_in_order(told, receiver):
    for number in (1, 2, 1, 2):
        told.set_alias("acme/task", "prod", number)
    deliver_all(told)
    deliver_all(told)
    first = told.webhooks.list()[0].cursor - 5
    assert receiver.taken() == list(range(first, first + 6))
    assert deliverer(told).deliver_due().as_json() == {
        "num_delivered": 0,
        "num_failed": 0,
        "num_dead": 0,
    }


def test_failures_are_retried_with_growing_patience_and_hold_back_what_follows(told, receiver):
    receiver.answer = lambda number, _: 500 if number < 2 else 200
    soon = DeliveryPolicy(first_delay_s=1.5)
    counts = deliverer(told, soon).deliver_due()
    assert (counts.num_delivered, counts.num_failed) == (0, 1)
    waiting = told.webhooks.list()[0]
    assert waiting.next_at is not None
    assert waiting.last_error == "the receiver answered 500"
    deliver_all(told, num_passes=400)
    assert receiver.statuses == [500, 500, 200, 200]
    assert receiver.bodies[0] == receiver.bodies[1] == receiver.bodies[2]
    assert len({one["x-patchbay-delivery"] for one in receiver.headers[:3]}) == 1
    calm = told.webhooks.list()[0]
    assert (calm.next_at, calm.last_error, calm.num_dead) == (None, None, 0)


def test_what_is_never_taken_becomes_a_dead_letter_and_can_be_sent_again(told, receiver):
    receiver.answer = lambda number, _: 503 if number < 3 else 200
    deliver_all(told)
    assert receiver.statuses == [503, 503, 503, 200]
    webhook = told.webhooks.list()[0]
    assert webhook.num_dead == 1
    letter = told.webhooks.dead_letters(webhook.id)[0]
    assert letter.as_json() == {
        "webhook_id": webhook.id,
        "sequence": receiver.bodies[0]["sequence"],
        "type": "adapter_version.created",
        "at": receiver.bodies[0]["at"],
        "attempts": 3,
        "last_error": "the receiver answered 503",
    }
    with pytest.raises(NotFoundError, match="no dead letter 999"):
        told.webhooks.redeliver(webhook.id, 999)
    assert told.webhooks.redeliver(webhook.id, letter.sequence) == 1
    deliver_all(told)
    assert receiver.taken() == [letter.sequence + 1, letter.sequence]
    assert told.webhooks.dead_letters() == []
    assert told.webhooks.redeliver(webhook.id) == 0


def test_a_dead_letter_that_fails_again_dies_again_and_holds_nothing_back(told, receiver):
    receiver.answer = lambda number, _: 500 if number < 3 else 200
    deliver_all(told)
    webhook = told.webhooks.list()[0]
    dead = told.webhooks.dead_letters()[0].sequence
    receiver.answer = lambda _, sequence: 500 if sequence == dead else 200
    told.webhooks.redeliver(webhook.id)
    told.set_alias("acme/task", "prod", 1)
    for _ in range(20):
        deliverer(told).deliver_due()
        time.sleep(0.01)
    assert receiver.taken()[-1] == told.audit.head().sequence
    assert told.webhooks.dead_letters()[0].attempts == 3
    assert told.webhooks.list()[0].num_dead == 1


def test_patterns_and_tenants_choose_what_is_told(store, receiver, t5):
    store.webhooks.add(
        receiver.url,
        SECRET,
        events=("alias.*", "adapter_version.deleted"),
        tenant="acme",
        allow_private=True,
    )
    for name in ("acme/one", "zed/one"):
        store.publish(name, low_rank(t5))
        store.delete(name)
    store.tags.set("acme/one", "k", "v")
    deliver_all(store)
    assert [body["type"] for body in receiver.bodies] == ["alias.set", "adapter_version.deleted"]
    assert {body["subject"]["tenant"] for body in receiver.bodies} == {"acme"}
    assert store.webhooks.list()[0].cursor == store.audit.head().sequence


def test_a_webhook_begins_with_what_comes_after_it(store, receiver, t5):
    store.publish("acme/task", low_rank(t5))
    webhook = store.webhooks.add(receiver.url, SECRET, allow_private=True)
    assert webhook.cursor == store.audit.head().sequence
    deliver_all(store)
    assert receiver.bodies == []
    store.delete("acme/task")
    deliver_all(store)
    assert [body["type"] for body in receiver.bodies] == ["adapter_version.deleted"]


def test_secrets_are_shown_once_and_never_logged(store, receiver):
    made = store.webhooks.add(receiver.url, allow_private=True, actor="ann")
    assert len(made.secret or "") >= 32
    given = store.webhooks.add(receiver.url, SECRET, allow_private=True)
    assert given.secret == SECRET
    for document in (repr(made), json.dumps(made.as_json()), repr(store.webhooks.list())):
        assert made.secret not in document
    told = json.dumps([event.as_json() for event in store.audit.events()])
    assert made.secret not in told
    assert SECRET not in told
    assert "a=b" not in told
    added = store.audit.events(type="webhook.added")[0]
    assert added.payload["host"] == receiver.url.split("/")[2]
    assert added.actor == "ann"


def test_a_removed_webhook_is_told_nothing_more(told, receiver):
    webhook = told.webhooks.list()[0]
    told.webhooks.remove(webhook.id, actor="ann")
    told.delete("acme/task")
    deliver_all(told)
    assert receiver.bodies == []
    assert told.webhooks.list() == []
    for ask in (told.webhooks.remove, told.webhooks.redeliver):
        with pytest.raises(NotFoundError, match="no webhook"):
            ask(webhook.id)
    with told._database.read() as connection:
        assert connection.exec_driver_sql("SELECT secret FROM webhooks").scalar() == ""
    assert told.webhooks.add(receiver.url, SECRET, allow_private=True).id != webhook.id


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"url": "ftp://example.org/x"}, UsageError, "http"),
        ({"url": "http:///x"}, UsageError, "http"),
        ({"url": "https://user:pw@example.org/"}, UsageError, "password"),
        ({"url": "https://example.org/#x"}, UsageError, "fragment"),
        ({"url": "https://exa mple.org/"}, UsageError, "ASCII"),
        ({"url": "https://example.org:99999/"}, UsageError, "cannot be read"),
        ({"url": "https://example.org/" + "x" * 2000}, UsageError, "characters"),
        ({"url": "http://127.0.0.1:80/"}, ForbiddenError, "not a public address"),
        ({"url": "http://localhost/"}, ForbiddenError, "not a public address"),
        ({"url": "http://[::1]/"}, ForbiddenError, "not a public address"),
        ({"url": "http://2130706433/"}, ForbiddenError, "not a public address"),
        ({"url": "http://169.254.169.254/latest"}, ForbiddenError, "not a public address"),
        ({"secret": "short"}, UsageError, "16"),
        ({"events": ()}, UsageError, "at least one"),
        ({"events": ("alias.moved",)}, UsageError, "covers no type"),
        ({"tenant": "Acme"}, UsageError, "tenant"),
    ],
)
def test_subscriptions_outside_the_rules_are_refused(store, options, error, words):
    with pytest.raises(error, match=words):
        store.webhooks.add(**({"url": "https://198.51.100.7/x", "secret": SECRET} | options))
    assert store.webhooks.list() == []
    assert store.audit.events(type="webhook.*") == []


def test_a_name_that_becomes_private_later_is_not_connected_to(told, receiver):
    with told._database.write() as connection:
        connection.exec_driver_sql("UPDATE webhooks SET allow_private = 0")
    counts = deliverer(told, PATIENT).deliver_due()
    assert counts.num_failed == 1
    assert receiver.statuses == []
    assert "not a public address" in (told.webhooks.list()[0].last_error or "")


def test_redirects_are_failures(told, receiver):
    receiver.answer = lambda number, _: 307
    assert deliverer(told, PATIENT).deliver_due().num_failed == 1
    assert len(receiver.statuses) == 1
    assert told.webhooks.list()[0].last_error == "the receiver answered 307"


def test_a_receiver_that_is_slow_or_away_is_a_failure_with_a_deadline(told, receiver):
    receiver.delay_s = 3
    hasty = DeliveryPolicy(timeout_s=0.3, first_delay_s=60)
    began = time.monotonic()
    assert deliverer(told, hasty).deliver_due().num_failed == 1
    assert time.monotonic() - began < 2.5
    assert told.webhooks.list()[0].last_error == "no answer within 0.3 s"
    told.webhooks.remove(told.webhooks.list()[0].id)
    told.webhooks.add("http://127.0.0.1:9/", SECRET, allow_private=True)
    told.delete("acme/task")
    assert deliverer(told, PATIENT).deliver_due().num_failed == 1
    assert "ConnectError" in (told.webhooks.list()[0].last_error or "")
    receiver.wait(1)


def test_two_deliverers_share_the_work_and_never_the_same_attempt(store, t5):
    with receiving() as one, receiving() as two:
        for each in (one, two):
            each.delay_s = 0.02
            store.webhooks.add(each.url, SECRET, allow_private=True)
        start = store.audit.head().sequence
        store.publish_many([(f"acme/t{i}", low_rank(t5)) for i in range(8)], aliases=())
        workers = [deliverer(store, num_workers=3) for _ in range(2)]
        threads = [threading.Thread(target=worker.deliver_due) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        deliver_all(store)
        for each in (one, two):
            assert [n for n in each.taken() if n > start] == list(range(start + 1, start + 9))
            assert each.max_at_once == 1
            assert len(set(each.taken())) == len(each.taken())


DELIVER = """
import sys
from adapters_store.webhooks import Deliverer, DeliveryPolicy
with place.open() as store:
    deliverer = Deliverer(store, policy=DeliveryPolicy(timeout_s=5, lease_s=20), num_workers=2)
    print("ready", flush=True)
    sys.stdin.readline()
    print(deliverer.deliver_due().num_delivered)
"""


def test_deliverers_in_several_processes_deliver_each_event_once(store, store_place, receiver, t5):
    store.webhooks.add(receiver.url, SECRET, allow_private=True)
    start = store.audit.head().sequence
    store.publish_many([(f"acme/t{i}", low_rank(t5)) for i in range(12)], aliases=())
    outputs = answers([store_place.start(DELIVER) for _ in range(3)])
    assert sum(int(output.split()[1]) for output in outputs) == 12
    assert receiver.taken() == list(range(start + 1, start + 13))
    assert receiver.max_at_once == 1


def test_a_deliverer_that_died_is_replaced_after_its_lease(told, store_place, receiver):
    process: subprocess.Popen[str] = store_place.start(
        "from adapters_store.webhooks import DeliveryPolicy\n"
        "with place.open() as store:\n"
        "    print(store.webhooks.queue(0.5).claim().id, flush=True)\n"
        "    import os\n    os._exit(9)\n"
    )
    assert process.stdout is not None
    assert process.communicate(timeout=120)[0].strip() == str(told.webhooks.list()[0].id)
    short = DeliveryPolicy(timeout_s=0.2, lease_s=0.5)
    give_up_at = time.monotonic() + 30
    while not receiver.statuses and time.monotonic() < give_up_at:
        deliverer(told, short).deliver_due()
        time.sleep(0.05)
    assert receiver.taken()


def test_a_claim_that_was_lost_records_nothing(told):
    queue = told.webhooks.queue(20)
    claimed = queue.claim()
    assert claimed is not None
    assert queue.claim() is None
    due = queue.next(claimed)
    assert due is not None
    with told._database.write() as connection:
        connection.exec_driver_sql("UPDATE webhooks SET claimed_until = '2020'")
    taken_over = queue.claim()
    assert taken_over is not None
    before = told.webhooks.list()
    queue.succeeded(claimed, due)
    queue.failed(claimed, due, "late", 1.0)
    queue.release(claimed)
    assert told.webhooks.list() == before
    assert queue.next(claimed) is None
    again = queue.next(taken_over)
    assert again is not None
    assert again.event == due.event


def test_a_running_deliverer_tells_events_as_they_come(told, receiver):
    stopping = threading.Event()
    worker = deliverer(told)
    thread = threading.Thread(target=worker.run, args=(stopping,), kwargs={"poll_s": 0.05})
    thread.start()
    try:
        receiver.wait(2)
        told.delete("acme/task:1")
        receiver.wait(3)
    finally:
        stopping.set()
        thread.join(timeout=30)
    assert not thread.is_alive()
    assert [body["type"] for body in receiver.bodies][-1] == "adapter_version.deleted"


def test_patience_doubles_up_to_a_limit_and_ends():
    policy = DeliveryPolicy(first_delay_s=4, max_delay_s=20, max_attempts=6)
    delays = [policy.delay_s(number) for number in range(1, 6)]
    for delay, full in zip(delays, (4, 8, 16, 20, 20), strict=True):
        assert delay is not None
        assert full / 2 <= delay <= full
    assert policy.delay_s(6) is None
    with pytest.raises(UsageError, match="lease"):
        DeliveryPolicy(timeout_s=60, lease_s=60)


def test_every_event_type_can_be_subscribed_to(store, receiver):
    made = store.webhooks.add(receiver.url, SECRET, events=EVENT_TYPES, allow_private=True)
    assert made.events == EVENT_TYPES
