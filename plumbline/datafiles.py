"""Reading data files row by row, and the checks that every conversation and prompt passes before any work.

Files are `.jsonl`, `.json` (one list), `.parquet`, the first two also with `.gz`. Rows stream; faults name the file
and the line.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plumbline.conversations import Conversation, conversation_fault, prompt_key
from plumbline.errors import DataError, UserError, counted

FAULTS_SHOWN = 10


Row = tuple[int, dict[str, Any]]
"""A row with its line."""


def read_rows(path: Path, faults: list[str] | None = None) -> Iterator[Row]:
    """Yield `(line, row)` of a data file, lines counted from 1 (list items or table rows where there are no lines).

    Args:
        path: the file.
        faults: takes the faults of single rows, which are then passed over; when not given, the first one is raised.

    Raises:
        DataError: not UTF-8, not JSON, a row that is no object, or an unknown kind of file.
    """
    for row in _rows(path):
        if not isinstance(row, DataError):
            yield row
        elif faults is None:
            raise row
        else:
            faults.append(str(row))


def _rows(path: Path) -> Iterator[Row | DataError]:
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        yield from _parquet_rows(path)
    elif name.endswith((".jsonl", ".ndjson")):
        yield from _json_lines(path)
    elif name.endswith(".json"):
        yield from _json_list(path)
    else:
        raise DataError(path, None, "unknown kind of file: expected .jsonl, .json (each also .gz) or .parquet")


def _bytes_lines(path: Path) -> Iterator[bytes]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            yield from file
    except (OSError, EOFError) as error:
        raise DataError(path, None, f"cannot be read: {error}") from None


def _decode(raw: bytes, path: Path, line: int | None) -> str:
    try:
        return raw.decode("utf-8-sig" if line in (1, None) else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(path, line, f"not UTF-8 (byte {error.start}); save the file as UTF-8") from None


def _json_lines(path: Path) -> Iterator[Row | DataError]:
    for line, raw in enumerate(_bytes_lines(path), 1):
        if not raw.strip():
            continue
        try:
            value = _parse(_decode(raw, path, line), path, line)
        except DataError as fault:
            yield fault
        else:
            yield _as_row(value, path, line)


def _json_list(path: Path) -> Iterator[Row | DataError]:
    rows = _parse(_decode(b"".join(_bytes_lines(path)), path, None), path, None)
    if not isinstance(rows, list):
        raise DataError(path, None, f"expected a list of rows, found {type(rows).__name__}")
    for number, row in enumerate(rows, 1):
        yield _as_row(row, path, number)


def _parse(text: str, path: Path, line: int | None) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(path, line or error.lineno, f"not valid JSON: {error.msg} at column {error.colno}") from None


def _as_row(value: Any, path: Path, line: int) -> Row | DataError:
    if isinstance(value, dict):
        return line, value
    return DataError(path, line, f"expected an object with named fields, found {type(value).__name__}")


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise DataError(path, None, f"cannot be read as Parquet: {error}") from None
    number = 0
    for batch in file.iter_batches(batch_size=1024):
        for row in batch.to_pylist():
            number += 1
            yield number, row


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        DataError: it is a folder, cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(path, None, f"not UTF-8 (byte {error.start}); save the file as UTF-8") from None
    except OSError as error:
        raise DataError(path, None, f"cannot be read: {error.strerror}") from None


@dataclass
class Notices:
    """What was passed over on purpose while reading; said to the user, never silent."""

    lines: list[str] = field(default_factory=list)

    def add(self, sentence: str) -> None:
        """Remember one sentence."""
        self.lines.append(sentence)


@dataclass(frozen=True)
class PromptRow:
    """A prompt and what its file says about it (topics, style, …)."""

    prompt: Conversation
    meta: dict[str, Any] = field(default_factory=dict)


def load_conversations(paths: Iterable[str | Path]) -> list[Conversation]:
    """Read demonstrations: rows with `messages`, or `prompt` and `completion` (text or messages).

    Raises:
        UserError: faults of rows, up to ten of them with file and line; or no row at all.
    """
    conversations: list[Conversation] = []
    faults: list[str] = []
    files = [Path(path) for path in paths]
    for path in files:
        for line, row in read_rows(path, faults):
            messages = _messages_of(row)
            fault = conversation_fault(messages, must_end_with="assistant")
            if fault:
                faults.append(f"{path}:{line}: {fault}")
            else:
                conversations.append(_plain(messages))
    _refuse(faults, "conversation")
    if not conversations:
        raise UserError(f"{_names(files)}: no conversation in it; SFT needs rows with `messages`.")
    return conversations


def load_prompts(paths: Iterable[str | Path], notices: Notices) -> list[PromptRow]:
    """Read prompts: rows with `prompt` (text or messages), or conversations, whose last reply is left out.

    Duplicates by normalised text are kept once, and said.

    Raises:
        UserError: faults of rows, up to ten of them with file and line.
    """
    rows: list[PromptRow] = []
    faults: list[str] = []
    first_seen: dict[str, str] = {}
    repeated: list[str] = []
    for path in (Path(path) for path in paths):
        for line, row in read_rows(path, faults):
            column = "messages" if "messages" in row and "prompt" not in row else "prompt"
            prompt = _before_reply(row["messages"]) if column == "messages" else _as_messages(row.get("prompt"), "user")
            fault = conversation_fault(prompt, must_end_with="user") if column in row else "no `prompt` in this row"
            if fault:
                faults.append(f"{path}:{line}: {fault}")
                continue
            key = prompt_key(prompt)
            if key in first_seen:
                repeated.append(f"{path}:{line} repeats {first_seen[key]}")
                continue
            first_seen[key] = f"{path}:{line}"
            rows.append(PromptRow(_plain(prompt), {name: value for name, value in row.items() if name != column}))
    _refuse(faults, "prompt")
    if repeated:
        notices.add(f"left out: {counted(len(repeated), 'duplicate prompt')} (the first: {repeated[0]}).")
    return rows


@dataclass(frozen=True)
class CorpusText:
    """A text of the corpus; `messages` is the conversation that it was made from, if any, and decides its split."""

    text: str
    messages: Conversation | None = None


def load_corpus(paths: Iterable[str | Path]) -> list[CorpusText]:
    """Read a raw-text corpus: rows with `text`, or conversations whose messages are joined by blank lines.

    Raises:
        UserError: faults of rows, up to ten of them with file and line.
    """
    texts: list[CorpusText] = []
    faults: list[str] = []
    for path in (Path(path) for path in paths):
        for line, row in read_rows(path, faults):
            messages = _messages_of(row)
            if isinstance(row.get("text"), str) and row["text"].strip():
                texts.append(CorpusText(row["text"]))
            elif messages is not None and conversation_fault(messages) is None:
                texts.append(CorpusText("\n\n".join(m["content"] for m in messages), _plain(messages)))
            else:
                faults.append(f"{path}:{line}: no text in this row; expected `text` or `messages`")
    _refuse(faults, "text")
    return texts


def _messages_of(row: dict[str, Any]) -> Any:
    if "messages" in row:
        return row["messages"]
    if "prompt" in row and "completion" in row:
        prompt, completion = _as_messages(row["prompt"], "user"), _as_messages(row["completion"], "assistant")
        return [*prompt, *completion] if isinstance(prompt, list) and isinstance(completion, list) else None
    return None


def _before_reply(messages: Any) -> Any:
    """A conversation without its last reply, if it ends with one."""
    if not conversation_fault(messages, must_end_with="assistant"):
        return messages[:-1]
    return messages


def _as_messages(value: Any, role: str) -> Any:
    return [{"role": role, "content": value}] if isinstance(value, str) else value


def _plain(messages: Any) -> Conversation:
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(str(path) for path in paths) or "data"


def _refuse(faults: list[str], what: str) -> None:
    if not faults:
        return
    shown = "\n".join(f"  {fault}" for fault in faults[:FAULTS_SHOWN])
    more = f"\n  and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
    raise UserError(f"{counted(len(faults), what)} cannot be used; mend or remove what is named here:\n{shown}{more}")
