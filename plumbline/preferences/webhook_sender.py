"""Sending what is in the outbox, from a thread of the server, until it arrives or a day has passed.

A request goes where the recipe says and nowhere else: the name is resolved once, its addresses are checked, and the
connection is made to the address that was checked; redirects are not followed. An address inside the network is
refused unless the recipe names that very address.

Every request has `X-Plumbline-Delivery`, `X-Plumbline-Timestamp` and `X-Plumbline-Signature`. A delivery may arrive
twice (when the answer to it was lost), always with the same id.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import ipaddress
import json
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Row, delete, select, update

from plumbline.errors import UserError
from plumbline.preferences.account_tables import Delivery
from plumbline.preferences.reading import progress_of
from plumbline.preferences.store import Store
from plumbline.preferences.turn import NO_PROJECT, Facet, now_utc
from plumbline.preferences.webhooks import Subscription, enqueue_progress, is_loopback

log = logging.getLogger(__name__)

TIMEOUT = 5.0
"""Seconds for connecting, and for each piece of the answer."""

LONGEST = 20.0
"""Seconds for a whole request, however its answer drips in: well below `CLAIM_HOLDS`."""

CLAIM_HOLDS = timedelta(minutes=1)
"""For so long a delivery that a process has taken is left to it; then it is taken to have died. Each is taken on its
own, because several slow ones would outlast this, and be sent by two."""

FIRST_WAIT, LONGEST_WAIT, GIVE_UP_AFTER = timedelta(seconds=10), timedelta(hours=4), timedelta(hours=24)
A_ROUND = 20
SECONDS_BETWEEN = 5.0
PROGRESS_EVERY = timedelta(seconds=30)

KEPT = timedelta(days=30)
"""For so long a delivery that has arrived, or was given up, is kept."""

TIDIED_EVERY = timedelta(hours=1)

Resolver = Callable[[str, int], Sequence[str]]
"""Gives the addresses of a host name."""


class NotSent(Exception):
    """A delivery did not arrive; the message says why."""


def sign(secret: bytes, *, timestamp: str, delivery: str, body: bytes) -> str:
    """The signature: HMAC-SHA256 over `TIMESTAMP.DELIVERY.BODY`."""
    signed = f"{timestamp}.{delivery}.".encode() + body
    return "v1=" + hmac.new(secret, signed, hashlib.sha256).hexdigest()


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host name, as the system knows them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def address_of(url: str, resolver: Resolver = resolve) -> str:
    """The address to connect to.

    Raises:
        NotSent: the name has none, or one of them is inside a network and the URL does not name it literally.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        literal = str(ipaddress.ip_address(host))
    except ValueError:
        literal = None
    if literal is not None:
        return literal  # the recipe names this very address
    try:
        found = list(resolver(host, _port_of(url)))
    except OSError as error:
        raise NotSent(f"{host} has no address ({error.strerror or error})") from None
    if not found:
        raise NotSent(f"{host} has no address")
    if is_loopback(host):
        if all(ipaddress.ip_address(one).is_loopback for one in found):
            return found[0]
        raise NotSent(f"{host} is not this machine")
    inside = next((one for one in found if not _is_public(one)), None)
    if inside is not None:
        raise NotSent(f"{host} leads to {inside}, which is no public address; to send there, name it in the recipe")
    return found[0]


def post(url: str, body: bytes, headers: dict[str, str], *, resolver: Resolver = resolve) -> None:
    """Send a request; the connection is made to the address that was checked.

    Raises:
        NotSent: it did not arrive, or was not answered with a status of 200 to 299 within `LONGEST` seconds.
    """
    parts = urlsplit(url)
    address = address_of(url, resolver)
    connection = _Pinned(parts.hostname or "", _port_of(url), address, secure=parts.scheme == "https")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    watch = threading.Timer(LONGEST, connection.cut)
    watch.daemon = True
    watch.start()
    fault = None
    try:
        connection.request("POST", target, body, headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException, UnicodeError, ValueError) as error:
        fault = f"{type(error).__name__}: {error}"[:300]
    finally:
        watch.cancel()
        connection.close()
    if connection.was_cut:  # with or without a fault: a head that breaks off is read as if it were whole
        fault = f"no whole answer within {LONGEST:g} s"
    if fault is not None:
        raise NotSent(fault)
    if 300 <= status < 400:
        raise NotSent(f"status {status}: redirects are not followed")
    if not 200 <= status < 300:
        raise NotSent(f"status {status}")


class _Pinned(http.client.HTTPConnection):
    """A connection to a given address, under the name of the URL: in `Host` and in the certificate."""

    def __init__(self, host: str, port: int, address: str, *, secure: bool) -> None:
        super().__init__(host, port, timeout=TIMEOUT)
        self.address, self.secure, self.was_cut = address, secure, False
        if secure:
            self.default_port = http.client.HTTPS_PORT

    def connect(self) -> None:
        self.sock = socket.create_connection((self.address, self.port), TIMEOUT)
        if self.secure:
            context = ssl.create_default_context()
            # The handshake comes afterwards, so that it can be cut off too.
            self.sock = context.wrap_socket(self.sock, server_hostname=self.host, do_handshake_on_connect=False)
            self.sock.do_handshake()

    def cut(self) -> None:
        """End the connection from another thread; whoever waits for an answer is told at once."""
        self.was_cut = True
        with suppress(OSError, AttributeError):  # not connected yet, or closed meanwhile
            self.sock.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True)
class Sent:
    """What one round did."""

    delivered: int = 0
    failed: int = 0


class Sender(Facet):
    """Sends the deliveries of a project; several processes may do so at the same time.

    Args:
        subscriptions: the recipe's webhooks; a delivery to any other address is given up.
        resolver: see `Resolver`; tests set it.
    """

    def __init__(
        self,
        store: Store,
        *,
        project: str,
        subscriptions: Sequence[Subscription],
        clock: Callable[[], datetime] = now_utc,
        resolver: Resolver = resolve,
    ) -> None:
        super().__init__(store, project=project, clock=clock)
        self.subscriptions = {subscription.url: subscription for subscription in subscriptions}
        self.resolver = resolver
        self._stop = threading.Event()
        self._told_at: datetime | None = None
        self._tidied_at: datetime | None = None

    def start(self) -> None:
        """Send from a thread of its own, as long as the process lives or until `stop`."""
        threading.Thread(target=self._run, name="webhooks", daemon=True).start()

    def stop(self) -> None:
        """End the thread after the delivery that it is at."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(SECONDS_BETWEEN):
            try:
                self.tell_progress()
                while not self._stop.is_set() and self.send_due() != Sent():
                    pass
                self.tidy()
            except UserError as error:  # the database is away; what is in the outbox stays there
                log.warning("webhooks: %s", error)
            except Exception:
                log.exception("webhooks: a round failed")

    def tell_progress(self) -> None:
        """Write how far the project is into the outbox, where an address wants to know and it has moved on."""
        now = self.clock()
        if not any("progress" in one.events for one in self.subscriptions.values()):
            return
        if self._told_at is not None and now - self._told_at < PROGRESS_EVERY:
            return
        self._told_at = now
        with self.look() as turn:
            if turn.project_id == NO_PROJECT:
                return
            progress = progress_of(turn)
        with self.turn() as turn:
            enqueue_progress(
                turn.connection,
                list(self.subscriptions.values()),
                project_id=turn.project_id,
                project=self.project,
                at=now,
                done=progress.done,
                required=progress.required,
            )

    def send_due(self) -> Sent:
        """Send what is due, once each, up to `A_ROUND` deliveries."""
        delivered = failed = 0
        for _ in range(A_ROUND):
            row = self._claim()
            if row is None:
                break
            try:
                self._send(row)
            except NotSent as error:
                failed += 1
                self._put_off(row, str(error))
            else:
                delivered += 1
                self._note(row, delivered_at=self.clock(), next_at=None, failure=None)
        return Sent(delivered, failed)

    def tidy(self) -> None:
        """Delete deliveries that ended long ago.

        What was told of the progress stays, because its id keeps the same step from being told again; these are few.
        """
        now = self.clock()
        if self._tidied_at is not None and now - self._tidied_at < TIDIED_EVERY:
            return
        self._tidied_at = now
        with self.turn() as turn:
            ended = (Delivery.project_id == turn.project_id) & Delivery.next_at.is_(None)
            old = ended & (Delivery.created_at < now - KEPT) & (Delivery.event != "progress")
            turn.connection.execute(delete(Delivery).where(old))

    def _claim(self) -> Row[Any] | None:
        """Take the delivery that is due first, so that no other process sends it too."""
        with self.turn() as turn:
            due = (
                select(Delivery.__table__)
                .where(Delivery.project_id == turn.project_id, Delivery.next_at <= turn.now)
                .order_by(Delivery.next_at)
                .limit(1)
                .with_for_update(skip_locked=True)
            )
            row = turn.connection.execute(due).one_or_none()
            if row is not None:
                values = {"next_at": turn.now + CLAIM_HOLDS, "attempts": Delivery.attempts + 1}
                turn.connection.execute(update(Delivery).where(Delivery.id == row.id).values(**values))
        return row

    def _send(self, row: Row[Any]) -> None:
        subscription = self.subscriptions.get(row.url)
        if subscription is None:
            raise NotSent("the recipe no longer has this address")
        body = json.dumps(row.payload, ensure_ascii=False, separators=(",", ":")).encode()
        timestamp = str(int(self.clock().timestamp()))
        signature = sign(subscription.secret, timestamp=timestamp, delivery=row.delivery_id, body=body)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "plumbline",
            "X-Plumbline-Event": row.event,
            "X-Plumbline-Delivery": row.delivery_id,
            "X-Plumbline-Timestamp": timestamp,
            "X-Plumbline-Signature": signature,
        }
        post(row.url, body, headers, resolver=self.resolver)

    def _put_off(self, row: Row[Any], why: str) -> None:
        """Try again later, each time twice as long as before; after a day, never."""
        now = self.clock()
        again = now + min(FIRST_WAIT * 2 ** min(row.attempts, 30), LONGEST_WAIT)
        over = again > row.created_at + GIVE_UP_AFTER or row.url not in self.subscriptions
        self._note(row, next_at=None if over else again, failure=why)

    def _note(self, row: Row[Any], **values: Any) -> None:
        with self.turn() as turn:
            turn.connection.execute(update(Delivery).where(Delivery.id == row.id).values(**values))


def _port_of(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def _is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour or _nat64(parsed)
        if inner is not None:
            parsed = inner
    return parsed.is_global and not parsed.is_multicast


def _nat64(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that a translator of 64:ff9b::/96 would reach."""
    if address in ipaddress.ip_network("64:ff9b::/96"):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None
