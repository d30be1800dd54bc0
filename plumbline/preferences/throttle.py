"""Guessing passwords is slowed down: failures are counted in the database for the name and for the client's address.

An attempt counts as failed before its password is looked at, and is forgiven when that was right; so a thousand
attempts at the same moment are counted like a thousand in a row. Names and addresses are kept as digests, because
people type passwords into the wrong field.

Requests of the API's tokens are counted here too where several server processes answer them (`count_request`).
"""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Any

from sqlalchemy import Connection, delete, select, update

from plumbline.errors import StoreError
from plumbline.preferences import audit
from plumbline.preferences.account_tables import Throttle
from plumbline.preferences.store import insert_new

FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=5), timedelta(minutes=15)
FORGET_AFTER = timedelta(hours=1)
"""Failures are forgotten when no attempt has followed for so long."""


class TooManyAttempts(StoreError):
    """No password is looked at for a while, right or wrong.

    Attributes:
        wait: how long.
    """

    def __init__(self, wait: timedelta) -> None:
        self.wait = wait
        seconds = ceil(wait.total_seconds())
        shown = f"{seconds} s" if seconds < 120 else f"{ceil(seconds / 60)} min"
        super().__init__(f"too many wrong passwords: wait {shown}, then try again.")


@dataclass(frozen=True)
class Source:
    """What failures are counted of: after `free` of them in a row there is a wait, which doubles with each more."""

    key: str
    free: int

    def wait(self, failures: int) -> timedelta:
        """How long nothing is looked at after so many failures in a row."""
        if failures < self.free:
            return timedelta(0)
        return min(FIRST_WAIT * 2 ** min(failures - self.free, 20), LONGEST_WAIT)


def sources_of(name: str, address: str) -> tuple[Source, Source]:
    """The name as it is compared, after 5 failures, and the address, after 20: an office may share one."""
    return Source(_key("name", " ".join(name.split()).casefold()), 5), Source(_key("address", _network(address)), 20)


@dataclass(frozen=True)
class Attempt:
    """An attempt that was counted, of a name and an address, and when that address had failed before it."""

    name: Source
    address: Source
    at: datetime
    failed_before: datetime


def count_attempt(connection: Connection, sources: tuple[Source, Source], now: datetime) -> Attempt:
    """Count an attempt as failed, before its password is looked at.

    Raises:
        TooManyAttempts: one of the sources has to wait; then nothing is counted.
    """
    name, address = sources
    failed_before = now
    for source in sorted(sources, key=lambda one: one.key):  # in one order, so that nobody waits for each other
        insert_new(connection, Throttle, [{"key": source.key, "failures": 0, "last_at": now}])
        row = connection.execute(select(Throttle.__table__).where(Throttle.key == source.key).with_for_update()).one()
        if row.blocked_until is not None and row.blocked_until > now:
            raise TooManyAttempts(row.blocked_until - now)
        failures = 1 if row.last_at <= now - FORGET_AFTER else row.failures + 1
        if source is address:
            failed_before = row.last_at
        wait = source.wait(failures)
        _set(connection, source, failures=failures, last_at=now, blocked_until=now + wait if wait else None)
        if wait:
            details = {"of": source.key.partition(":")[0], "failures": failures}
            audit.record(connection, at=now, project=None, actor=None, action="sign-in blocked", details=details)
    connection.execute(delete(Throttle).where(Throttle.last_at <= now - FORGET_AFTER))
    return Attempt(name, address, now, failed_before)


def forgive_attempt(connection: Connection, attempt: Attempt) -> None:
    """The password was right: the name starts afresh; for the address it is as if the attempt had not been.

    The address does not start afresh: whoever has an account could otherwise guess at those of others for ever. Nor do
    others there wait, or stay counted longer, because somebody signs in.
    """
    connection.execute(delete(Throttle).where(Throttle.key == attempt.name.key))
    row = connection.execute(
        select(Throttle.__table__).where(Throttle.key == attempt.address.key).with_for_update()
    ).one_or_none()
    if row is None:
        return
    values: dict[str, Any] = {"failures": max(row.failures - 1, 0)}
    if row.last_at == attempt.at:  # nobody has failed meanwhile
        values |= {"last_at": attempt.failed_before, "blocked_until": None}
    _set(connection, attempt.address, **values)


def count_request(connection: Connection, key: str, now: datetime, *, per_minute: int, burst: int) -> timedelta:
    """Count a request of whom `key` names, in all server processes together: so many a minute, `burst` at once.

    Returns:
        How long to wait; zero where the request may be answered. One that has to wait is not counted.
    """
    each = timedelta(minutes=1) / per_minute
    insert_new(connection, Throttle, [{"key": key, "failures": 0, "last_at": now}])
    # `last_at` is when all requests so far would have been over, had they come one by one at the pace that is allowed.
    row = connection.execute(select(Throttle.last_at).where(Throttle.key == key).with_for_update()).one()
    wait = row.last_at - now - (burst - 1) * each
    if wait > timedelta(0):
        return wait
    connection.execute(update(Throttle).where(Throttle.key == key).values(last_at=max(row.last_at, now) + each))
    return timedelta(0)


def _set(connection: Connection, source: Source, **values: Any) -> None:
    connection.execute(update(Throttle).where(Throttle.key == source.key).values(**values))


def _key(kind: str, what: str) -> str:
    return f"{kind}:{hashlib.sha256(what.encode(errors='replace')).hexdigest()}"


def _network(address: str) -> str:
    """The address; of IPv6 its /64, all of which one customer has."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)
