"""The outbox of webhooks: events are written with what they tell of, in its transaction, and sent afterwards.

Only the addresses of the recipe are told anything (`Store.subscriptions`, set by whoever opens the store for a recipe).
A payload has ids and counts, neither names nor texts; whoever is told asks the API for more.
"""

from __future__ import annotations

import ipaddress
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Connection, insert

from plumbline.errors import UserError
from plumbline.preferences.account_tables import Delivery
from plumbline.preferences.store import insert_new
from plumbline.preferences.validation import digest
from plumbline.recipe_annotate import LOOPBACK, Webhook

PROGRESS_STEPS = 20
"""A project's progress is told when it passes another 1/20 of the judgements asked for."""


@dataclass(frozen=True)
class Subscription:
    """An address, the events that it is told, and where the secret is that signs them."""

    url: str
    events: frozenset[str]
    secret: bytes


def subscriptions_of(webhooks: Iterable[Webhook], environment: Mapping[str, str] = os.environ) -> list[Subscription]:
    """The recipe's webhooks with their secrets.

    Raises:
        UserError: a secret is missing or short, or an address is `http` and not of this machine.
    """
    found = []
    for webhook in webhooks:
        check_url(webhook.url)
        secret = environment.get(webhook.secret_env, "")
        if len(secret) < 16:
            state = "is not set" if not secret else "has fewer than 16 characters"
            raise UserError(
                f"annotate.webhooks: {webhook.url} needs a secret to sign what it is sent, and the environment "
                f"variable {webhook.secret_env} {state}: set it, for example to the output of `openssl rand -hex 32`."
            )
        found.append(Subscription(webhook.url, frozenset(webhook.events), secret.encode()))
    return found


def outbox_of(webhooks: Iterable[Webhook]) -> list[Subscription]:
    """The recipe's webhooks for a process that only writes into the outbox; it needs no secrets."""
    return [Subscription(webhook.url, frozenset(webhook.events), b"") for webhook in webhooks]


def check_url(url: str) -> None:
    """Refuse an address to which nothing should be sent.

    Raises:
        UserError: see above.
    """
    parts = urlsplit(url)
    if not parts.hostname or parts.username or parts.password:
        raise UserError(
            f"annotate.webhooks: {url} is no address, such as https://example.org/hook, without a password."
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise UserError(f"annotate.webhooks: {url} would be sent unencrypted: use https.")


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in LOOPBACK


def enqueue(
    connection: Connection,
    subscriptions: Sequence[Subscription],
    *,
    project_id: int,
    project: str,
    event: str,
    at: datetime,
    data: Mapping[str, Any],
    key: str | None = None,
) -> None:
    """Write an event into the outbox, for every address that is told of it.

    Args:
        key: makes the event unique: the same one is written once, whoever writes it.
    """
    payload = {"event": event, "project": project, "at": at.isoformat(), "data": dict(data)}
    for subscription in subscriptions:
        if event not in subscription.events:
            continue
        delivery_id = uuid.uuid4().hex if key is None else digest(subscription.url, project, event, key)
        row = {"delivery_id": delivery_id, "project_id": project_id, "event": event, "url": subscription.url}
        row |= {"payload": {"id": delivery_id, **payload}, "created_at": at, "next_at": at}
        if key is None:
            connection.execute(insert(Delivery).values(**row))
        else:
            insert_new(connection, Delivery, [row])


def enqueue_answer(
    connection: Connection,
    subscriptions: Sequence[Subscription],
    *,
    project: str,
    annotator_id: str,
    task_key: str,
    answer: Mapping[str, Any],
) -> None:
    """Write that somebody answered."""
    if not any(answer["kind"] in subscription.events for subscription in subscriptions):
        return
    data = {
        "answer_id": answer["answer_id"],
        "task_id": task_key,
        "annotator_id": annotator_id,
        "purpose": answer.get("purpose") or "work",
    }
    if answer["kind"] == "flag":
        data["kind"] = (answer.get("flags") or [None])[0]
    enqueue(
        connection,
        subscriptions,
        project_id=answer["project_id"],
        project=project,
        event=answer["kind"],
        at=answer["judged_at"],
        data=data,
    )


def enqueue_progress(
    connection: Connection,
    subscriptions: Sequence[Subscription],
    *,
    project_id: int,
    project: str,
    at: datetime,
    done: int,
    required: int,
) -> None:
    """Write how far a project is, once for each step that it passes."""
    if not required or not done:
        return
    step = done * PROGRESS_STEPS // required
    data = {"done": done, "required": required}
    enqueue(
        connection,
        subscriptions,
        project_id=project_id,
        project=project,
        event="progress",
        at=at,
        data=data,
        key=f"{step} of {required}",
    )
