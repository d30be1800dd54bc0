"""A read-only API for other programs: `/api/v1/…` with a bearer token, never with a cookie.

Nothing here can be reached from a page of another site: there are no CORS headers, and browsers send no bearer token by
themselves.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exception_handlers import http_exception_handler, request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy import select
from starlette.exceptions import HTTPException

from annotate_ui.exports import MEDIA, NothingToExport, export_response
from plumbline.conversations import Split, split_of
from plumbline.preferences.exporters import ExportOptions, rankings
from plumbline.preferences.exporters.stream import as_json
from plumbline.preferences.formats import EXPORTED
from plumbline.preferences.judgement_news import AT_ONCE, Cursor, news_after
from plumbline.preferences.judgement_stream import pseudonym_of
from plumbline.preferences.reading import as_record, judgement_rows
from plumbline.preferences.records import JudgementRecord
from plumbline.preferences.selection import is_active
from plumbline.preferences.tables import Annotator, Answer
from plumbline.preferences.throttle import count_request
from plumbline.preferences.tokens import Token, Tokens

if TYPE_CHECKING:
    from fastapi import FastAPI

    from plumbline.preferences.service import PreferenceService
    from plumbline.preferences.turn import Turn

API_PATH = "/api/v1"
PER_MINUTE, BURST = 120, 30
"""Requests of one token."""

MOST_AT_ONCE = 10_000


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, error: str, **headers: str) -> None:
        super().__init__(error)
        self.status, self.error, self.headers = status, error, headers


def add_api(
    app: FastAPI,
    service: PreferenceService,
    *,
    defaults: ExportOptions | None = None,
    quality: Callable[[bool], dict[str, Any]] | None = None,
) -> None:
    """Add the API to the app.

    Args:
        defaults: shares of the splits, as the recipe has them.
        quality: gives what `/quality` answers, with names or without; without it there is no such address.
    """
    app.include_router(api_routes(service, defaults=defaults or ExportOptions(), quality=quality))

    async def refuse(request: Request, fault: Exception) -> Response:
        assert isinstance(fault, Refused)
        return JSONResponse({"error": fault.error}, status_code=fault.status, headers=fault.headers)

    async def refuse_value(request: Request, fault: Exception) -> Response:
        assert isinstance(fault, RequestValidationError)
        if not _is_ours(request):
            return await request_validation_exception_handler(request, fault)
        first = fault.errors()[0]
        return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}."}, status_code=422)

    async def refuse_method(request: Request, fault: Exception) -> Response:
        assert isinstance(fault, HTTPException)
        if not _is_ours(request):
            return await http_exception_handler(request, fault)
        return JSONResponse({"error": f"{fault.detail}."}, status_code=fault.status_code, headers=fault.headers)

    app.add_exception_handler(Refused, refuse)
    app.add_exception_handler(RequestValidationError, refuse_value)
    app.add_exception_handler(HTTPException, refuse_method)


def api_routes(
    service: PreferenceService, *, defaults: ExportOptions, quality: Callable[[bool], dict[str, Any]] | None
) -> APIRouter:
    """The routes; see `docs/annotate-exports.md`."""
    tokens = Tokens(service.store, project=service.project, clock=service.clock)
    limiter = Limiter(PER_MINUTE, BURST)

    def admit(request: Request) -> None:
        token = _token_of(request, tokens)
        wait = limiter.wait(token.id) or _wait_of_all(service, token)
        if wait:
            raise Refused(429, "too many requests: wait.", **{"Retry-After": str(int(wait) + 1)})
        request.state.token = token

    router = APIRouter(prefix=API_PATH, dependencies=[Depends(admit)])

    @router.get("/progress")
    def progress() -> dict[str, Any]:
        said = asdict(service.progress())
        return {"project": service.project, **said, "by_annotator": _by_pseudonym(service, said["by_annotator"])}

    @router.get("/judgements")
    def judgements(
        names: Names,
        cursor: str = "0",
        limit: Annotated[int, Query(ge=1, le=MOST_AT_ONCE)] = 1000,
    ) -> Response:
        after = Cursor.of(cursor)
        if after is None:
            raise Refused(422, f"{cursor!r} is no cursor: send that of the last line as it was, or 0 for all.")
        lines = _judgements_after(service, after, limit, names, defaults)
        return StreamingResponse(lines, media_type=MEDIA["jsonl"], headers={"Cache-Control": "no-store"})

    @router.get("/export/{format}")
    def export(
        request: Request, format: str, names: Names, people_only: bool = False, split: Split | None = None
    ) -> Response:
        if format not in EXPORTED:
            raise Refused(404, f"there is no format {format!r}; known are {', '.join(EXPORTED)}.")
        options = ExportOptions(not names, not people_only, split, defaults.validation, defaults.test)
        try:
            return export_response(service, format, options, actor=f"token:{request.state.token.id}")
        except NothingToExport as fault:
            raise Refused(404, str(fault)) from None

    if quality is not None:

        @router.get("/quality")
        def quality_summary(names: Names) -> dict[str, Any]:
            return quality(names)

    @router.get("/{rest:path}")
    def unknown(rest: str) -> Response:
        raise Refused(404, "there is nothing at this address.")

    return router


def _is_ours(request: Request) -> bool:
    return request.url.path.startswith(f"{API_PATH}/")


def asked_for_names(request: Request, names: bool = False) -> bool:
    """Whether people are to be named in the answer; refused where the token may not read names."""
    if names and not request.state.token.names:
        raise Refused(
            403,
            "this token may not read annotators' names: make one that may, with `plumbline tokens add … --names`.",
        )
    return names


Names = Annotated[bool, Depends(asked_for_names)]


@dataclass
class _Bucket:
    left: float
    at: float


class Limiter:
    """Lets each key make so many requests a minute to this process, and a few more at once."""

    def __init__(self, per_minute: int, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst, self.clock = per_minute / 60, burst, clock
        self._buckets: dict[int, _Bucket] = {}
        self._lock = threading.Lock()

    def wait(self, key: int) -> float:
        """Count a request; seconds to wait where there were too many, then it does not count."""
        with self._lock:
            now = self.clock()
            bucket = self._buckets.setdefault(key, _Bucket(self.burst, now))
            bucket.left = min(self.burst, bucket.left + (now - bucket.at) * self.rate)
            bucket.at = now
            if bucket.left < 1:
                return (1 - bucket.left) / self.rate
            bucket.left -= 1
            return 0.0


def _wait_of_all(service: PreferenceService, token: Token) -> float:
    """Seconds to wait because of what all server processes answered; there are several only on PostgreSQL."""
    if service.store.is_sqlite:
        return 0.0
    with service.store.write() as connection:
        key, now = f"token:{token.id}", service.clock()
        return count_request(connection, key, now, per_minute=PER_MINUTE, burst=BURST).total_seconds()


def _token_of(request: Request, tokens: Tokens) -> Token:
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    token = tokens.read(given.strip()) if kind.lower() == "bearer" and given.strip() else None
    if token is None or token.state != "active":
        what = "this token is not known." if token is None else f"this token is {token.state}."
        raise Refused(401, what if given else "send a token: Authorization: Bearer …", **{"WWW-Authenticate": "Bearer"})
    if token.project != tokens.project:
        raise Refused(403, "this token is for another project.")
    return token


def _by_pseudonym(service: PreferenceService, counts: dict[str, int]) -> dict[str, int]:
    with service.store.read() as connection:
        query = select(Annotator.name, Annotator.annotator_id, Annotator.simulated).where(Annotator.name.in_(counts))
        known = {
            row.name: row.name if row.simulated else pseudonym_of(row.annotator_id) for row in connection.execute(query)
        }
    return {known[name]: number for name, number in counts.items() if name in known}


def _judgements_after(
    service: PreferenceService, cursor: Cursor, limit: int, names: bool, defaults: ExportOptions
) -> Iterator[bytes]:
    """What is new of the judgements, each a line with its own `cursor`; the corrected ones are among them."""
    with service.look() as turn:
        news = news_after(turn, cursor, limit)
        records = _records_of(turn, [one.cursor.row for one in news if not one.withdrawn], names)
    for one in news:
        line: dict[str, Any] = {"withdrawn": True, "supersedes": one.supersedes}
        if not one.withdrawn:
            record = records[one.cursor.row]._replace(supersedes=one.supersedes)
            split = split_of(record.prompt, validation=defaults.validation, test=defaults.test)
            (line,) = rankings.rows([record], split)
        yield as_json({"cursor": str(one.cursor), **line}) + b"\n"


def _records_of(turn: Turn, rows: list[int], names: bool) -> dict[int, JudgementRecord]:
    """The judgements with these row ids."""
    selected = is_active(turn.connection, turn.project_id)
    query = judgement_rows(turn.project_id, include_superseded=True).add_columns(Answer.id, Annotator.annotator_id)
    records = {}
    for start in range(0, len(rows), AT_ONCE):
        for row in turn.connection.execute(query.where(Answer.id.in_(rows[start : start + AT_ONCE]))):
            record = as_record(row, selected=selected)
            shown = record.annotator if names or record.simulated else pseudonym_of(row.annotator_id)
            records[row.id] = record._replace(annotator=shown)
    return records
