"""Downloads for leads: every export format, streamed; nothing is written on the server."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any

from anyio import CancelScope
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.concurrency import run_in_threadpool

from annotate_ui.archives import zip_chunks
from annotate_ui.calls import NOT_YOURS, SIGNED_OUT
from annotate_ui.sessions import Sessions
from annotate_ui.streams import ClosedStream
from plumbline.conversations import Split
from plumbline.errors import UserError
from plumbline.preferences.account_tables import LEADS
from plumbline.preferences.exporters import (
    EXPORTERS,
    BrokenOff,
    Export,
    ExportOptions,
    companion_of,
    record_export,
)
from plumbline.preferences.formats import EXPORTED, check_format

if TYPE_CHECKING:
    from plumbline.preferences.service import PreferenceService

EXPORT_PATH = "/lead-work/export"
MEDIA = {"jsonl": "application/x-ndjson", "json": "application/json", "csv": "text/csv; charset=utf-8"}


class NothingToExport(UserError):
    """No judgement (or flag) that the options leave makes a row of the format."""


def export_routes(service: PreferenceService, sessions: Sessions, defaults: ExportOptions | None = None) -> APIRouter:
    """`GET /lead-work/export/FORMAT`, with `pseudonyms`, `people_only` and `split`; `…/FORMAT/zip` for the same file
    and its manifest, from one reading; `…/FORMAT/setup` for a second file.

    Args:
        defaults: shares of the splits, as the recipe has them.
    """
    router = APIRouter(prefix=EXPORT_PATH)
    defaults = defaults or ExportOptions()

    def options_of(pseudonyms: bool = False, people_only: bool = False, split: Split | None = None) -> ExportOptions:
        return ExportOptions(pseudonyms, not people_only, split, defaults.validation, defaults.test)

    asked_for = Depends(options_of)

    @router.get("/{format}")
    def export(request: Request, format: str, options: ExportOptions = asked_for) -> Response:
        return download(request, format, options, zipped=False)

    @router.get("/{format}/zip")
    def export_zipped(request: Request, format: str, options: ExportOptions = asked_for) -> Response:
        return download(request, format, options, zipped=True)

    def download(request: Request, format: str, options: ExportOptions, *, zipped: bool) -> Response:
        refused, who = _lead(sessions, request)
        if refused is not None:
            return refused
        try:
            check_format(format, EXPORTED)
            return export_response(service, format, options, actor=who, zipped=zipped)
        except UserError as fault:
            return PlainTextResponse(f"{fault}", status_code=404)

    @router.get("/{format}/setup")
    def setup(request: Request, format: str) -> Response:
        refused, _ = _lead(sessions, request)
        if refused is not None:
            return refused
        companion = companion_of(format) if format in EXPORTERS else None
        if companion is None:
            return PlainTextResponse("This format has no second file.", status_code=404)
        headers = download_headers(f"{service.project}.{companion[0]}")
        return Response(companion[1], media_type="text/plain; charset=utf-8", headers=headers)

    return router


def export_response(
    service: PreferenceService, format: str, options: ExportOptions, *, actor: str, zipped: bool = False
) -> Response:
    """An export as a download; how much of it left the store is in the audit log when it has ended.

    Args:
        zipped: with its manifest, and the second file of formats that have one, as one archive.

    Raises:
        NothingToExport: there is nothing to send.
    """
    exporter = EXPORTERS[format]
    export = Export(service, exporter, options)
    chunks = export.chunks()
    first = next(chunks)  # before the status is sent; without a row it is the last one too
    if not export.rows:
        raise NothingToExport(f"project {service.project!r} has nothing to export with these options yet.")

    name, media = _file_name(service, format), MEDIA[exporter.SUFFIX]
    if zipped:
        chunks = zip_chunks(export, name, first, chunks)
        first, name, media = next(chunks), f"{name}.zip", "application/zip"
    return ClosedStream(_sent(export, first, chunks, actor), media_type=media, headers=download_headers(name))


def _file_name(service: PreferenceService, format: str) -> str:
    return _safe(f"{service.project}.{format}.{EXPORTERS[format].SUFFIX}")


async def _sent(export: Export, first: bytes, rest: Generator[bytes], actor: str) -> AsyncGenerator[bytes]:
    """The chunks of an export; what was handed on until somebody broke it off is in the audit log too."""
    chunk: bytes | None = first
    size = 0
    try:
        while chunk is not None:
            rows, size = export.rows, size + len(chunk)
            yield chunk
            chunk = await run_in_threadpool(next, rest, None)
    finally:
        broken_off = None if chunk is None else BrokenOff(rows, size)
        with CancelScope(shield=True):
            await run_in_threadpool(rest.close)
            await run_in_threadpool(record_export, export, export.sha256, actor=actor, broken_off=broken_off)


def download_headers(name: str) -> dict[str, str]:
    """Headers with which a browser saves what it gets, and neither shows nor keeps it."""
    return {
        "Content-Disposition": f'attachment; filename="{_safe(name)}"',
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def _lead(sessions: Sessions, request: Request) -> tuple[Response | None, Any]:
    session = sessions.read(request)
    if session is None:
        return PlainTextResponse(SIGNED_OUT, status_code=401), None
    if session.role not in LEADS:
        return PlainTextResponse(NOT_YOURS, status_code=403), None
    return None, session.annotator_id
