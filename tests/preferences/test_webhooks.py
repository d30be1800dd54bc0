"""Webhooks: what is told to whom, signed, once, and never to an address inside the network."""

import contextlib
import json
import socket
import threading
import time
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from sqlalchemy import select, update

from annotate_ui.server import start_webhooks
from plumbline.errors import UserError
from plumbline.preferences import webhook_sender
from plumbline.preferences.account_tables import Delivery
from plumbline.preferences.erasure import erase
from plumbline.preferences.store import Store
from plumbline.preferences.webhook_sender import NotSent, Sender, Sent, address_of, post, sign
from plumbline.preferences.webhooks import Subscription, check_url, subscriptions_of
from plumbline.recipe_annotate import AnnotateSection, Webhook
from tests.preferences.conftest import best_first, new_tasks

SECRET = b"a secret of more than sixteen"
EVERYTHING = frozenset({"judgement", "skip", "flag", "progress", "erasure"})


class Receiver:
    """An HTTP server that keeps what it gets and answers as it is told."""

    def __init__(self):
        self.got, self.status, self.location = [], 200, None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.got.append((self.path, dict(self.headers), body))
                self.send_response(outer.status)
                if outer.location:
                    self.send_header("Location", outer.location)
                self.end_headers()

            def log_message(self, *given):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook?x=1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver():
    one = Receiver()
    yield one
    one.server.shutdown()
    one.server.server_close()


@pytest.fixture
def told(service, receiver):
    """A service whose answers are told to the receiver."""
    service.store.subscriptions = [Subscription(receiver.url, EVERYTHING, SECRET)]
    service.add_tasks(new_tasks(20))
    return service


def sender_of(service, **options):
    subscriptions = service.store.subscriptions
    return Sender(service.store, project="support", subscriptions=subscriptions, clock=service.clock, **options)


def answer(service, name="Anna"):
    who = service.sign_in(name).annotator_id
    work = service.lease_next(who)
    return service.judge(work.lease_id, who, best_first(work), idempotency_key=work.lease_id, reason="secret words")


def deliveries(service):
    with service.store.read() as connection:
        return connection.execute(select(Delivery.__table__).order_by(Delivery.id)).all()


def test_an_answer_is_told_signed_and_without_names_or_texts(told, receiver, clock):
    answer_id = answer(told)
    assert sender_of(told).send_due() == Sent(1, 0)
    ((path, headers, body),) = receiver.got
    said = json.loads(body)
    assert path == "/hook?x=1"
    assert (said["event"], said["project"], said["data"]["answer_id"]) == ("judgement", "support", answer_id)
    assert b"Anna" not in body
    assert b"secret words" not in body
    delivery, timestamp = headers["X-Plumbline-Delivery"], headers["X-Plumbline-Timestamp"]
    assert said["id"] == delivery
    assert timestamp == str(int(clock().timestamp()))
    assert headers["X-Plumbline-Signature"] == sign(SECRET, timestamp=timestamp, delivery=delivery, body=body)
    for other in ({"timestamp": "0"}, {"delivery": "x"}, {"body": body + b" "}):
        given = {"timestamp": timestamp, "delivery": delivery, "body": body, **other}
        assert sign(SECRET, **given) != headers["X-Plumbline-Signature"]
    assert sender_of(told).send_due() == Sent(0, 0)
    assert len(receiver.got) == 1


def test_the_signature_is_what_other_programs_make():
    # printf '1.d.{}' | openssl dgst -sha256 -hmac k
    expected = "v1=420642e3e028ffba943f34f4810fe04b3620ebe2af35f563fdfde5f57a73cf10"
    assert sign(b"k", timestamp="1", delivery="d", body=b"{}") == expected


def test_the_event_is_written_with_the_answer_or_not_at_all(told):
    with pytest.raises(RuntimeError), told.store.write():
        answer(told)
        raise RuntimeError("stop")
    assert deliveries(told) == []
    who = told.sign_in("Anna").annotator_id
    told.skip(told.lease_next(who).lease_id, who, reason="no", idempotency_key="s")
    told.flag(told.lease_next(who).lease_id, who, kind="broken", note="x", idempotency_key="f")
    told.skip(told.lease_next(who).lease_id, who, reason="no", idempotency_key="s2")
    assert [row.event for row in deliveries(told)] == ["skip", "flag", "skip"]
    assert deliveries(told)[1].payload["data"]["kind"] == "broken"


def test_only_what_was_asked_for_is_told(told, receiver):
    told.store.subscriptions = [Subscription(receiver.url, frozenset({"flag"}), SECRET)]
    answer(told)
    assert deliveries(told) == []


def test_batches_are_not_told_one_by_one(told):
    with told.store.write():
        answer(told)
        answer(told, "Ben")
    assert deliveries(told) == []


def test_erasure_is_told(told):
    answer(told)
    report = erase(told.store, "Anna", remove_judgements=True)
    (row,) = [row for row in deliveries(told) if row.event == "erasure"]
    assert row.payload["data"]["annotator_id"] == report.annotator_id
    assert "Anna" not in str(row.payload)


def test_progress_is_told_once_for_each_step(told, receiver, clock):
    senders = [sender_of(told), sender_of(told)]
    for _ in range(3):
        answer(told)
        clock.advance(minutes=1)
        for sender in senders:
            sender.tell_progress()
            sender.tell_progress()
    steps = [row.payload["data"] for row in deliveries(told) if row.event == "progress"]
    assert steps == [{"done": number, "required": 20} for number in (1, 2, 3)]


def test_what_does_not_arrive_is_sent_again_until_a_day_has_passed(told, receiver, clock):
    receiver.status = 500
    answer(told)
    sender = sender_of(told)
    waits = []
    while (row := deliveries(told)[0]).next_at is not None:
        waits.append((row.next_at - clock()).total_seconds())
        clock.now = row.next_at
        assert sender.send_due() == Sent(0, 1)
        assert sender.send_due() == Sent(0, 0)
    assert waits[:6] == [0, 10, 20, 40, 80, 160]
    assert max(waits) == 4 * 3600
    assert clock() - row.created_at <= timedelta(hours=24)
    assert clock() - row.created_at > timedelta(hours=19)
    assert row.failure == "status 500"
    assert row.delivered_at is None
    assert {json.loads(body)["id"] for _, _, body in receiver.got} == {row.delivery_id}


def test_it_arrives_when_the_receiver_is_back(told, receiver, clock):
    receiver.status = 503
    answer(told)
    sender = sender_of(told)
    assert sender.send_due() == Sent(0, 1)
    receiver.status = 204
    clock.advance(minutes=1)
    assert sender.send_due() == Sent(1, 0)
    assert deliveries(told)[0].delivered_at == clock()


def test_redirects_are_not_followed(told, receiver):
    inside = Receiver()
    receiver.status, receiver.location = 307, inside.url
    answer(told)
    assert sender_of(told).send_due() == Sent(0, 1)
    assert "redirects are not followed" in deliveries(told)[0].failure
    assert inside.got == []
    inside.server.shutdown()
    inside.server.server_close()


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fd00::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "2002:0a00:0001::1",
        "64:ff9b::a00:1",
    ],
)
def test_names_that_lead_inside_the_network_are_refused(address):
    with pytest.raises(NotSent, match="no public address"):
        address_of("https://hook.example/x", lambda host, port: [address])
    with pytest.raises(NotSent, match="no public address"):
        address_of("https://hook.example/x", lambda host, port: ["93.184.216.34", address])


def test_addresses_that_may_be_sent_to():
    assert address_of("https://hook.example/x", lambda host, port: ["93.184.216.34"]) == "93.184.216.34"
    assert address_of("https://10.1.2.3/x", lambda host, port: []) == "10.1.2.3"  # the recipe names it
    assert address_of("http://localhost:1/x", lambda host, port: ["127.0.0.1"]) == "127.0.0.1"
    with pytest.raises(NotSent, match="not this machine"):
        address_of("http://localhost:1/x", lambda host, port: ["93.184.216.34"])
    with pytest.raises(NotSent, match="no address"):
        address_of("https://hook.example/x", lambda host, port: [])


def test_a_name_is_resolved_once_and_the_connection_made_to_what_was_checked(monkeypatch):
    answers = iter([["93.184.216.34"], ["127.0.0.1"]])
    asked, connected = [], []

    def resolver(host, port):
        asked.append((host, port))
        return next(answers)

    def connect(address, timeout):
        connected.append((address, timeout))
        raise ConnectionRefusedError("nobody there")

    monkeypatch.setattr(webhook_sender.socket, "create_connection", connect)
    with pytest.raises(NotSent, match="nobody there"):
        post("https://hook.example/x", b"{}", {}, resolver=resolver)
    assert asked == [("hook.example", 443)]
    assert connected == [(("93.184.216.34", 443), 5.0)]
    with pytest.raises(NotSent, match="no public address"):  # the name has been changed since
        post("https://hook.example/x", b"{}", {}, resolver=resolver)
    assert len(connected) == 1


def test_an_address_that_left_the_recipe_gets_nothing(told, receiver):
    answer(told)
    sender = Sender(told.store, project="support", subscriptions=[], clock=told.clock)
    assert sender.send_due() == Sent(0, 1)
    assert receiver.got == []
    assert deliveries(told)[0].next_at is None


def test_several_processes_send_each_delivery_once(told, receiver, address):
    for number in range(12):
        answer(told, f"Anna {number % 3}")
    stores = [Store.open(address) for _ in range(4)]
    threads = []
    for store in stores:
        one = Sender(store, project="support", subscriptions=told.store.subscriptions, clock=told.clock)
        threads.append(threading.Thread(target=one.send_due))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in stores:
        store.close()
    ids = [json.loads(body)["id"] for _, _, body in receiver.got]
    assert len(ids) == len(set(ids)) == 12


def test_what_a_dead_process_had_taken_is_sent_by_another(told, receiver, clock):
    answer(told)
    assert sender_of(told)._claim() is not None  # and dies
    assert sender_of(told).send_due() == Sent(0, 0)
    clock.advance(minutes=2)
    assert sender_of(told).send_due() == Sent(1, 0)


def test_the_servers_thread_sends(told, receiver, monkeypatch):
    monkeypatch.setattr(webhook_sender, "SECONDS_BETWEEN", 0.01)
    monkeypatch.setenv("PLUMBLINE_WEBHOOK_SECRET", SECRET.decode())
    hook = Webhook(url=receiver.url, events=["judgement"])
    sender = start_webhooks(told, AnnotateSection(webhooks=[hook]))
    answer(told)
    for _ in range(500):
        if receiver.got:
            break
        time.sleep(0.02)
    sender.stop()
    assert len(receiver.got) == 1
    assert start_webhooks(told, AnnotateSection()) is None


def test_settings_that_are_refused_at_the_start():
    hook = Webhook(url="https://hook.example/x", secret_env="HOOK_SECRET")
    with pytest.raises(UserError, match="HOOK_SECRET is not set"):
        subscriptions_of([hook], {})
    with pytest.raises(UserError, match="fewer than 16"):
        subscriptions_of([hook], {"HOOK_SECRET": "short"})
    assert subscriptions_of([hook], {"HOOK_SECRET": "x" * 32})[0].secret == b"x" * 32
    for url in ("http://hook.example/x", "http://10.0.0.1/x"):
        with pytest.raises(UserError, match="unencrypted"):
            check_url(url)
    for url in ("https://user:word@hook.example/x", "https:///x"):
        with pytest.raises(UserError, match="no address"):
            check_url(url)
    check_url("http://127.0.0.1:9/x")


def test_a_delivery_is_left_alone_while_it_is_not_due(told, clock):
    answer(told)
    with told.store.write() as connection:
        connection.execute(update(Delivery).values(next_at=clock() + timedelta(minutes=1)))
    assert sender_of(told).send_due() == Sent(0, 0)


def test_slow_ones_are_not_sent_by_two(told, clock, monkeypatch):
    """Each takes nearly as long as a claim holds, and another process looks for what is due meanwhile."""
    for name in ("Anna", "Bert", "Cleo"):
        answer(told, name)
    slow, other = sender_of(told), sender_of(told)
    sent = []

    def taking_long(url, body, headers, *, resolver):
        sent.append(headers["X-Plumbline-Delivery"])
        if threading.current_thread() is threading.main_thread():
            clock.advance(minutes=50 / 60)
            beside = threading.Thread(target=other.send_due)
            beside.start()
            beside.join()

    monkeypatch.setattr(webhook_sender, "post", taking_long)
    slow.send_due()
    assert sorted(sent) == sorted(row.delivery_id for row in deliveries(told))


def test_what_ended_long_ago_is_deleted(told, receiver, clock):
    sender = sender_of(told)
    answer(told)
    sender.tell_progress()
    receiver.status = 500
    sender.send_due()
    clock.advance(minutes=25 * 60)
    sender.send_due()  # after a day both are given up
    sender.tidy()
    assert [row.event for row in deliveries(told)] == ["judgement", "progress"]
    clock.advance(minutes=30 * 24 * 60)
    sender.tidy()
    sender.tell_progress()  # the same step is told once
    assert [row.event for row in deliveries(told)] == ["progress"]
    answer(told, "Bert")
    sender.send_due()  # it waits to be sent again
    clock.advance(minutes=61)
    sender.tidy()
    assert [row.event for row in deliveries(told)] == ["progress", "judgement"]


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nX-Slow: "])
def test_an_answer_that_drips_in_is_cut_off(head, monkeypatch):
    monkeypatch.setattr(webhook_sender, "LONGEST", 0.4)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip():
            there, _ = server.accept()
            with there, contextlib.suppress(OSError):
                there.sendall(head)
                for _ in range(100):
                    there.sendall(b"a")
                    time.sleep(0.05)

        threading.Thread(target=drip, daemon=True).start()
        began = time.monotonic()
        with pytest.raises(NotSent, match=r"no whole answer within 0\.4 s"):
            post(f"http://127.0.0.1:{server.getsockname()[1]}/", b"{}", {})
        assert time.monotonic() - began < 3  # all of it would take 5 s
    assert webhook_sender.CLAIM_HOLDS.total_seconds() > webhook_sender.LONGEST + 2 * webhook_sender.TIMEOUT
