"""An export and what belongs to it as one archive, streamed: file and manifest are of the same reading."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from contextlib import closing
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from plumbline.preferences.exporters import MANIFEST, Export, companion_of, manifest_of


class _Sent:
    """What the archive writes into: it keeps nothing but what was not taken yet."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def write(self, data: bytes) -> int:
        self._waiting += data
        return len(data)

    def flush(self) -> None:
        """There is nothing behind this that could be flushed."""

    def take(self) -> bytes:
        taken = bytes(self._waiting)
        self._waiting.clear()
        return taken


def zip_chunks(export: Export, name: str, first: bytes, rest: Generator[bytes]) -> Generator[bytes]:
    """An archive of the export's file, its manifest, and the second file of formats that have one.

    Args:
        export: what is written; its counts are right when `rest` has ended.
        name: of the file in the archive.
        first, rest: the file's bytes.
    """
    sent = _Sent()
    with closing(rest), ZipFile(sent, "w", ZIP_DEFLATED) as archive:  # type: ignore[call-overload]
        with archive.open(_entry(name), "w", force_zip64=True) as file:
            for chunk in _all(first, rest):
                file.write(chunk)
                yield sent.take()
        facts = {"file": name, "sha256": export.sha256, **manifest_of(export)}
        archive.writestr(_entry(f"{name}.{MANIFEST}"), json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
        companion = companion_of(export.exporter.FORMAT)
        if companion:
            archive.writestr(_entry(f"{name}.{companion[0]}"), companion[1])
    yield sent.take()


def _all(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _entry(name: str) -> ZipInfo:
    """An entry without a time, so that it does not tell when it was made."""
    entry = ZipInfo(name)
    entry.compress_type = ZIP_DEFLATED
    return entry
