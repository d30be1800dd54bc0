"""Our own export of whole judgements (`plumbline export --format rankings`), taken back as they were."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from plumbline.errors import StoreError
from plumbline.preferences.importers.base import (
    Judged,
    RowFault,
    conversation_of,
    optional_number,
    optional_object,
    optional_text,
    text_of,
)
from plumbline.preferences.records import ADJUDICATION, ARENA, ATTENTION, GOLD, REPEAT, WORK, NewResponse
from plumbline.preferences.validation import check_gaps, dense_ranks

FORMAT = "rankings"
PURPOSES = (WORK, GOLD, ATTENTION, REPEAT, ADJUDICATION, ARENA)


def detect(row: dict[str, Any]) -> bool:
    """Whether the row is a judgement of our export."""
    return {"judgement_id", "prompt", "responses", "annotator"} <= row.keys()


def judgements(row: dict[str, Any]) -> Iterator[Judged]:
    """One judgement, under the id that it had."""
    entries = row.get("responses")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise RowFault("`responses` is not a list of objects")
    ranks = [entry.get("rank") for entry in entries]
    if not all(isinstance(rank, int) and not isinstance(rank, bool) and rank >= 1 for rank in ranks):
        raise RowFault("a response's `rank` is no whole number from 1")
    judgement_id = text_of(row, "judgement_id")
    if not re.fullmatch("[0-9a-f]{32}", judgement_id):
        raise RowFault(f"`judgement_id` is {judgement_id[:40]!r}, expected 32 hexadecimal digits")
    yield Judged(
        conversation_of(row.get("prompt"), "prompt", ends_with="user"),
        [_response(entry) for entry in entries],
        [int(rank) for rank in ranks if rank is not None],
        annotator=text_of(row, "annotator"),
        names_whole=True,
        judgement_id=judgement_id,
        simulated=row.get("simulated") is True,
        annotator_settings=optional_object(row, "annotator_settings") or {},
        judged_at=_moment(row.get("judged_at")),
        seconds=optional_number(row, "seconds"),
        shown_order=_shown_order(entries),
        strength=optional_number(row, "strength"),
        scores=optional_object(row, "scores"),
        reason=optional_text(row, "reason"),
        edited=optional_text(row, "edited"),
        flags=_flags(row),
        purpose=_purpose(row),
        gaps=_gaps(row, ranks),
        guideline=_guideline(row),
        meta=optional_object(row, "meta") or {},
    )


def _response(entry: dict[str, Any]) -> NewResponse:
    return NewResponse(
        text_of(entry, "text"),
        optional_text(entry, "source") or "unknown",
        optional_text(entry, "source_hash"),
        optional_object(entry, "meta") or {},
    )


def _flags(row: dict[str, Any]) -> tuple[str, ...]:
    flags = row.get("flags") or []
    if not isinstance(flags, list) or not all(isinstance(flag, str) for flag in flags):
        raise RowFault("`flags` is not a list of texts")
    return tuple(flags)


def _purpose(row: dict[str, Any]) -> str:
    purpose = row.get("purpose") or WORK
    if not isinstance(purpose, str) or purpose not in PURPOSES:
        raise RowFault(f"`purpose` is {str(purpose)[:40]!r}; known are {', '.join(PURPOSES)}")
    return purpose


def _gaps(row: dict[str, Any], ranks: list[Any]) -> tuple[int, ...]:
    gaps = row.get("gaps") or []
    if not isinstance(gaps, list):
        raise RowFault("`gaps` is not a list of grades")
    if not gaps or not ranks:  # a task without responses is told elsewhere
        return ()
    try:
        check_gaps(gaps, dense_ranks(ranks))
    except StoreError as fault:
        raise RowFault(f"`gaps`: {fault}") from None
    return tuple(gaps)


def _guideline(row: dict[str, Any]) -> int | None:
    version = row.get("guideline")
    if version is not None and (isinstance(version, bool) or not isinstance(version, int) or version < 1):
        raise RowFault(f"`guideline` is {version!r}, expected the number of a version")
    return version


def _moment(value: Any) -> datetime | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise RowFault(f"`judged_at` is {value!r}, expected a time such as 2026-01-31T12:00:00+00:00") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _shown_order(entries: list[dict[str, Any]]) -> tuple[int, ...] | None:
    places = [entry.get("shown_position") for entry in entries]
    if all(place is None for place in places):
        return None
    if sorted(str(place) for place in places) != [str(place) for place in range(len(entries))]:
        raise RowFault("`shown_position` of the responses does not count from 0")
    return tuple(sorted(range(len(entries)), key=lambda index: int(places[index] or 0)))
