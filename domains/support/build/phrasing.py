"""Phrases of the support domain: choosing among variants, filling in, and the ways in which customers write.

A phrase holds alternatives in brackets, `[a|b]`, which may be nested, and slots such as `{item}`.
"""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SHORT_FORMS = {"you": "u", "please": "pls", "thanks": "thx", "are": "r", "because": "cuz", "what": "wat"}
_LEARNER_FORMS = [
    (r"\bHow (do|can) I\b", "How I can"),
    (r"\bWhere (do|can) I\b", "Where I can"),
    (r"\bI'd like to\b|\bI want to\b", "I am wanting to"),
    (r"\bCan I\b|\bIs it possible to\b", "It is possible to"),
    (r"\bDo you\b", "You do"),
    (r"\b(doesn't|does not)\b", "not"),
    (r"\b(hasn't|has not|haven't)\b", "not yet"),
]


def load_phrases(name: str) -> dict[str, Any]:
    """Read a YAML file beside this module; block texts become lists of lines."""

    def lines(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: lines(inner) for key, inner in value.items()}
        return value.strip().splitlines() if isinstance(value, str) else value

    loaded: dict[str, Any] = lines(yaml.safe_load((HERE / name).read_text(encoding="utf-8")))
    return loaded


def expand(phrase: str, rng: random.Random) -> str:
    """Choose one of each bracket's alternatives."""
    while _CHOICE.search(phrase):
        phrase = _CHOICE.sub(lambda found: rng.choice(found[1].split("|")), phrase)
    return phrase


def pick(phrases: list[str], rng: random.Random) -> str:
    """One expanded phrase of the list."""
    return expand(rng.choice(phrases), rng)


def fill(text: str, values: dict[str, list[str]], rng: random.Random) -> str:
    """Fill the slots; `{order}` becomes an invented number such as PW-48213."""
    chosen = {slot: rng.choice(options) for slot, options in values.items()}
    chosen["order"] = f"PW-{rng.randrange(10000, 99999)}"
    return re.sub(r"\{(\w+)\}", lambda found: chosen[found[1]], text)


def with_typos(text: str, rng: random.Random) -> str:
    """Lower case, no apostrophes, short forms, and letters swapped, lost or doubled in about every sixth word."""
    words = []
    for word in text.replace("'", "").split():
        if not any(letter.isdigit() for letter in word):
            word = _SHORT_FORMS.get(word.lower(), word.lower()) if rng.random() < 0.6 else word.lower()
            if len(word) > 3 and word.isalpha() and rng.random() < 0.25:
                word = _mistype(word, rng)
        words.append(word)
    return " ".join(words).rstrip(".")


def _mistype(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word) - 1)
    kind = rng.choice(("swap", "lose", "double"))
    if kind == "swap":
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[:at] + (word[at + 1 :] if kind == "lose" else word[at] + word[at:])


def as_learner(text: str, rng: random.Random) -> str:
    """As somebody who is learning English writes: articles missing, word order of another language."""
    for pattern, form in _LEARNER_FORMS:
        text = re.sub(pattern, form, text)
    kept = [word for word in text.split() if word.lower() not in {"a", "an", "the"} or rng.random() < 0.3]
    return " ".join(kept)


def lower_first(text: str) -> str:
    """Lower the first letter unless the word is `I` or an abbreviation."""
    word = text.split(maxsplit=1)[0]
    return text if word.startswith("I'") or word == "I" or word[1:2].isupper() else text[0].lower() + text[1:]
