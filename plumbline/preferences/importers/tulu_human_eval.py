"""The human evaluation of Tulu (open-instruct): two completions, a five-point preference, whether each completion is
acceptable, the evaluator's short name, and the time as a spreadsheet's serial date."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from plumbline.preferences.importers.base import Judged, RowFault, text_of
from plumbline.preferences.records import NewResponse

FORMAT = "tulu_human_eval"

# preference -> ranks of a and b, strength of the preference
_PREFERENCES: dict[str, tuple[tuple[int, int], float]] = {
    "a-is-better": ((1, 2), 2.0),
    "a-is-slightly-better": ((1, 2), 1.0),
    "tie": ((1, 1), 0.0),
    "b-is-slightly-better": ((2, 1), 1.0),
    "b-is-better": ((2, 1), 2.0),
}
_ACCEPTABLE = {"yes": True, "no": False}
_SERIAL_EPOCH = datetime(1899, 12, 30, tzinfo=UTC)  # day 0 of spreadsheets' serial dates


def detect(row: dict[str, Any]) -> bool:
    """Whether the row has two completions and the evaluator's preference."""
    return {"completion_a", "completion_b", "preference", "evaluator"} <= row.keys()


def judgements(row: dict[str, Any]) -> Iterator[Judged]:
    """One judgement, with the strength (0 tie, 1 slightly better, 2 better) and what is acceptable as scores."""
    preference = text_of(row, "preference")
    if preference not in _PREFERENCES:
        raise RowFault(f"unknown preference {preference!r}; known are {', '.join(_PREFERENCES)}")
    ranks, strength = _PREFERENCES[preference]
    responses = [
        NewResponse(text_of(row, f"completion_{side}"), str(row.get(f"model_{side}") or "unknown")) for side in "ab"
    ]
    yield Judged(
        [{"role": "user", "content": text_of(row, "prompt")}],
        responses,
        ranks,
        annotator=text_of(row, "evaluator"),
        identity=(row.get("id"), row.get("timestamp")),
        judged_at=serial_date(row.get("timestamp")),
        shown_order=(0, 1),
        strength=strength,
        response_scores=[{"acceptable": _acceptable(row, side)} for side in "ab"],
        meta={"instance_id": row.get("instance_id")},
    )


def serial_date(value: Any) -> datetime | None:
    """A spreadsheet's serial date (days since 1899-12-30, as number or text) in UTC; None where there is none.

    The sheet knows no zone; its times are taken as UTC, to the second.
    """
    if value in (None, ""):
        return None
    try:
        return _SERIAL_EPOCH + timedelta(seconds=round(float(value) * 86400))
    except (TypeError, ValueError, OverflowError):
        raise RowFault(f"`timestamp` is {value!r}, expected a serial date such as 45065.5") from None


def _acceptable(row: dict[str, Any], side: str) -> bool | None:
    return _ACCEPTABLE.get(str(row.get(f"completion_{side}_is_acceptable")).strip().lower())
