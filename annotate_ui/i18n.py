"""The words of the interface, from one JSON file for each language.

A file holds `lang` (a language tag such as `de`), `direction` (`ltr` or `rtl`), `texts` (key to text; `{name}` stands
for a value) and `service` (English sentences of the service to their translation; what is not there stays English).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from plumbline.errors import UserError, counted

LOCALES = Path(__file__).parent / "locales"
PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Texts:
    """The words of one language: `texts("board.submit")`; plain text, to be escaped where it is shown."""

    lang: str
    direction: str
    texts: dict[str, str]
    service: dict[str, str] = field(default_factory=dict)

    def __call__(self, key: str, **values: object) -> str:
        """The text of a key, with its values."""
        return _filled(self.texts[key], values)

    def counted(self, key: str, number: int) -> str:
        """The text of `key.one` or `key.other`, with `{number}`."""
        return self(f"{key}.{'one' if number == 1 else 'other'}", number=number)

    def group(self, prefix: str) -> dict[str, str]:
        """The texts whose keys begin with `prefix.`, without it: for scripts."""
        start = f"{prefix}."
        return {key.removeprefix(start): text for key, text in self.texts.items() if key.startswith(start)}

    def of_service(self, sentence: str) -> str:
        """A sentence of the service in this language, or as it is where it is not known."""
        small = sentence[:1].lower() + sentence[1:]  # faults begin with a small letter until a page shows them
        for pattern, translation in self._patterns:
            found = pattern.fullmatch(sentence) or pattern.fullmatch(small)
            if found:
                return _filled(translation, {name: self.of_service(part) for name, part in found.groupdict().items()})
        return sentence

    @cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], str]]:
        return [(_as_pattern(english), translation) for english, translation in self.service.items()]


def load_texts(language: str) -> Texts:
    """The texts of a language that is built in, or of a file.

    Raises:
        UserError: there is no such language or file, it is no such JSON, or keys are missing.
    """
    path = LOCALES / f"{language}.json" if re.fullmatch(r"[a-z]{2,3}(-\w+)?", language) else Path(language)
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in LOCALES.glob("*.json")))
        raise UserError(
            f"annotate.language: there is no language {language!r}; there are {known}, or give a JSON file."
        )
    content = _read(path)
    texts = content["texts"]
    missing = sorted(_read(LOCALES / "en.json")["texts"].keys() - texts.keys())
    if missing:
        raise UserError(
            f"{path}: {counted(len(missing), 'text')} missing: {', '.join(missing[:10])}"
            f"{' …' if len(missing) > 10 else ''} (annotate_ui/locales/en.json has all keys)."
        )
    return Texts(content["lang"], content.get("direction", "ltr"), texts, content.get("service", {}))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise UserError(f"{path} cannot be read as a file of texts (JSON): {fault}") from fault
    whole = isinstance(content, dict) and isinstance(content.get("lang"), str)
    parts = [content.get(name, {}) for name in ("texts", "service")] if whole else []
    if not whole or not all(isinstance(part, dict) and all(map(_is_text, part.values())) for part in parts):
        raise UserError(f'{path} is no file of texts: it needs "lang" and "texts", as annotate_ui/locales/en.json has.')
    return {"texts": {}, **content}


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _filled(text: str, values: dict[str, Any]) -> str:
    # Not str.format, which would let a text reach into the attributes of values.
    return PLACE.sub(lambda place: str(values.get(place[1], place[0])), text)


def _as_pattern(sentence: str) -> re.Pattern[str]:
    """The sentence with a group for each `{name}`."""
    parts = PLACE.split(sentence)
    body = (f"(?P<{part}>.+?)" if index % 2 else re.escape(part) for index, part in enumerate(parts))
    return re.compile("".join(body), re.DOTALL)
