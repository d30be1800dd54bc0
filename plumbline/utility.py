"""The known utility of responses in a domain: what simulated annotators prefer, and one judge of the comparison.

A rubric (YAML) says for each topic of a domain what an answer must mention and which facts are known, and for all
topics what counts as a next step, as courtesy, as brevity. `Utility.load(path).score(prompt, response)` is a number in
[0, 1]:

    score = readable x (floor + (1 - floor) x answers) x weighted mean(next_step, courteous, concise, no_invention)

so that manners count in full only when the question is answered, and a text that is not English prose (keywords in a
row, repeated phrases, broken words) is worth little whatever it mentions. All axes are in [0, 1]:

- `answers`: share of the things that an answer on the prompt's topics must mention; the mean over topics.
- `next_step`: 1 when the response says what to do then, else 0.
- `courteous`: 1 with a courteous phrase and no rude one, else 0.
- `concise`: 1 up to the word budget, falling to 0 at twice the budget; 0 under the smallest number of words.
- `no_invention`: 1, less `invention_penalty` for each claim (number, amount, date, time, address, or a phrase listed
  under `inventions`) that neither the rubric's facts on the topics nor the prompt hold.
- `readable`: share of distinct word triples, times how closely the share of function words is that of prose.

The topics of a prompt are looked up, by `plumbline.conversations.prompt_key`, in the files of prompts that the rubric
names: their rows carry `topics`. This needs only the messages, and no guess is made about what a prompt means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from plumbline.conversations import Message, conversation_fault, prompt_key
from plumbline.datafiles import read_rows
from plumbline.errors import DataError, UserError

MANNERS = ("next_step", "courteous", "concise", "no_invention")
# fmt: off
_NUMBER_WORDS = {
    "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
    "ten": "10", "eleven": "11", "twelve": "12", "thirteen": "13", "fourteen": "14", "fifteen": "15", "twenty": "20",
    "thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "ninety": "90", "hundred": "100",
}
_FUNCTION_WORDS = frozenset({
    "a", "about", "after", "all", "also", "an", "and", "any", "are", "as", "at", "be", "because", "been", "before",
    "but", "by", "can", "cannot", "could", "did", "do", "does", "for", "from", "get", "had", "has", "have", "he", "her",
    "here", "his", "how", "i", "i'm", "if", "in", "into", "is", "it", "its", "just", "let", "may", "me", "more", "most",
    "must", "my", "no", "not", "now", "of", "on", "once", "only", "or", "other", "our", "out", "over", "please", "she",
    "so", "some", "such", "than", "that", "the", "their", "them", "then", "there", "these", "they", "this", "those",
    "to", "too", "under", "until", "up", "us", "was", "we", "were", "what", "when", "where", "which", "while", "who",
    "will", "with", "would", "yes", "you", "you're", "your",
})
# fmt: on
_UNIT = r"(?:minute|hour|day|week|month|year|percent|dollar|euro|item|point)s?"
_COUNTED = re.compile(
    rf"\b({'|'.join(_NUMBER_WORDS)})(?=(?:\s+(?:to|or)\s+\w+)?[\s-]+(?:working\s+|business\s+|full\s+)?{_UNIT}\b)"
)
_CLAIM = re.compile(
    r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"  # e-mail address
    r"|(?:https?://|www\.)\S+"
    r"|[$€£]\s?\d[\d,]*(?:\.\d+)?"
    r"|\d+(?:\.\d+)?\s?(?:%|percent\b)"
    r"|\d{1,2}(?::\d\d)?\s?[ap]m\b"
    rf"|\d+\s(?:working\s|business\s|full\s)?{_UNIT}\b"
    r"|\b(?:on|by|until|before|next|this)\s(?:mon|tues|wednes|thurs|fri|satur|sun)day\b"
    r"|\b(?:jan|febr)uary\s\d+|\b(?:march|april|may|june|july|august)\s\d+|\b(?:septem|octo|novem|decem)ber\s\d+"
    r"|\d[\d,.:-]*\d|\d"
)
_PROSE = 0.38  # share of function words from which a text passes as prose
_WORD = re.compile(r"[a-z0-9$][a-z0-9'@.$-]*[a-z0-9]|[a-z0-9]")


class RubricError(UserError, ValueError):
    """A rubric has a fault; the message names the file and the key."""

    def __init__(self, path: Path, key: str, what: str) -> None:
        super().__init__(f"{path}: {key}: {what}")


@dataclass(frozen=True)
class Topic:
    """What an answer on a topic must mention (one pattern for each thing), and the claims that are true about it."""

    must_mention: tuple[re.Pattern[str], ...]
    facts: frozenset[str]


@dataclass(frozen=True)
class Rubric:
    """A rubric as read from its file; see `domains/support/utility.yaml` for a commented one."""

    topics: Mapping[str, Topic]
    weights: Mapping[str, float]
    floor: float
    patterns: Mapping[str, re.Pattern[str]]
    invention_penalty: float
    words: Mapping[str, int]
    prompt_files: tuple[Path, ...]


class Utility:
    """Scores responses by a rubric.

    Args:
        rubric: what is worth what.
        topics_of: the topics of each known prompt, by prompt key.
        path: the rubric's file, for messages.
    """

    def __init__(self, rubric: Rubric, topics_of: Mapping[str, tuple[str, ...]], path: Path) -> None:
        self._rubric, self._topics_of, self._path = rubric, topics_of, path

    @classmethod
    def load(cls, path: str | Path) -> Utility:
        """Read a rubric and the files of prompts that it names.

        Raises:
            RubricError: a key is missing, unknown, of a wrong type, or holds a pattern that does not compile.
            DataError: a row of the prompts has no messages or a topic that the rubric does not know.
        """
        path = Path(path)
        rubric = read_rubric(path)
        return cls(rubric, _read_topics(rubric), path)

    def score(self, prompt: Sequence[Message], response: str) -> float:
        """The utility of a response to a prompt, in [0, 1]. See the module's text for the formula."""
        return self.explain(prompt, response)["total"]

    def explain(self, prompt: Sequence[Message], response: str) -> dict[str, float]:
        """The axes `answers`, `next_step`, `courteous`, `concise`, `no_invention`, `readable`, and the `total`.

        Raises:
            UserError: the prompt is in none of the files of prompts that the rubric names.
        """
        rubric, patterns, topics = self._rubric, self._rubric.patterns, self.topics(prompt)
        text, words = _plain(response), _WORD.findall(response.lower())
        known = [rubric.topics[topic] for topic in topics]
        facts = frozenset().union(*(topic.facts for topic in known), _claims(" ".join(m["content"] for m in prompt)))
        axes = {
            "answers": sum(_share_mentioned(topic, text) for topic in known) / len(known),
            "next_step": float(bool(patterns["next_step"].search(text))),
            "courteous": float(bool(patterns["courteous"].search(text)) and not patterns["rude"].search(text)),
            "concise": self._concise(len(words), len(topics)),
            "no_invention": self._no_invention(response, text, facts),
        }
        weights = rubric.weights
        manners = sum(weights[axis] * axes[axis] for axis in MANNERS) / sum(weights.values())
        axes["readable"] = _readable(words)
        axes["total"] = axes["readable"] * (rubric.floor + (1 - rubric.floor) * axes["answers"]) * manners
        return axes

    def topics(self, prompt: Sequence[Message]) -> tuple[str, ...]:
        """The topics of a prompt; a system message does not matter."""
        topics = self._topics_of.get(_key(prompt))
        if topics is None:
            raise UserError(
                f"{self._path}: the prompt {prompt[-1]['content'][:60]!r} is in none of the files under `prompts`, "
                "so that its topics are not known: add a row with the prompt and its `topics` to one of them."
            )
        return topics

    def _concise(self, words: int, topics: int) -> float:
        budget = self._rubric.words["at_most"] + (topics - 1) * self._rubric.words["for_each_further_topic"]
        if words < self._rubric.words["at_least"]:
            return 0.0
        return min(1.0, max(0.0, 2 - words / budget))

    def _no_invention(self, response: str, text: str, facts: frozenset[str]) -> float:
        phrases = {match.group() for match in self._rubric.patterns["inventions"].finditer(text)}
        invented = len(_claims(response) - facts) + len(phrases)
        return max(0.0, 1 - self._rubric.invention_penalty * invented)


def _key(prompt: Sequence[Message]) -> str:
    return prompt_key([message for message in prompt if message["role"] != "system"])


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.lower().replace("’", "'"))


def _share_mentioned(topic: Topic, text: str) -> float:
    return sum(bool(pattern.search(text)) for pattern in topic.must_mention) / len(topic.must_mention)


def _claims(text: str) -> frozenset[str]:
    """The checkable claims of a text in one form: `thirty days` and `30 days` are the same."""
    text = re.sub(r"\b([ap])\.\s?m\b", r"\1m", _plain(text))
    text = _COUNTED.sub(lambda found: _NUMBER_WORDS[found[1]], text)
    text = re.sub(r"(\d+)(\s(?:to|or)\s)(\w+)", lambda f: f[1] + f[2] + _NUMBER_WORDS.get(f[3], f[3]), text)
    return frozenset(re.sub(r"[\s.,]+", " ", claim).strip() for claim in _CLAIM.findall(text))


def _readable(words: Sequence[str]) -> float:
    """1 for prose; towards 0 for repeated phrases, for keywords in a row and for words that run on."""
    if not words:
        return 0.0
    triples = list(zip(words, words[1:], words[2:], strict=False))
    distinct = len(set(triples)) / len(triples) if triples else 1.0
    prose = min(1.0, sum(word in _FUNCTION_WORDS for word in words) / len(words) / _PROSE)
    return float(distinct**2 * prose)


def _read_topics(rubric: Rubric) -> dict[str, tuple[str, ...]]:
    topics_of: dict[str, tuple[str, ...]] = {}
    for path in rubric.prompt_files:
        for number, row in read_rows(path):
            prompt, topics = _prompt_and_topics(path, number, row)
            unknown = [topic for topic in topics if topic not in rubric.topics]
            if unknown or not topics:
                what = f"topic {unknown[0]!r} is not in the rubric" if unknown else "the row names no `topics`"
                raise DataError(path, number, f"{what}; known are {', '.join(sorted(rubric.topics))}")
            topics_of[_key(prompt)] = topics
    return topics_of


def _prompt_and_topics(path: Path, number: int, row: dict[str, Any]) -> tuple[list[Message], tuple[str, ...]]:
    prompt = row.get("prompt") or row.get("messages", [])[:-1]
    fault = conversation_fault(prompt, must_end_with="user")
    topics = row.get("topics")
    if fault or not isinstance(topics, list) or not all(isinstance(topic, str) for topic in topics):
        raise DataError(path, number, fault or "expected `topics`, a list of names")
    return prompt, tuple(topics)


_LISTS_OF_PATTERNS = ("next_step", "courteous", "rude", "inventions")
_RUBRIC_KEYS = {*_LISTS_OF_PATTERNS, "topics", "facts", "weights", "floor", "invention_penalty", "words", "prompts"}
_WORDS_KEYS = ("at_least", "at_most", "for_each_further_topic")


def read_rubric(path: Path) -> Rubric:
    """Read a rubric alone, without its prompts.

    Raises:
        RubricError: a key is missing, unknown, of a wrong type, or holds a pattern that does not compile.
    """
    return _RubricReader(path).read()


class _RubricReader:
    """Reads a rubric's YAML and names the key of each fault."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Rubric:
        try:
            found = yaml.safe_load(self._path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{self._path}: the rubric cannot be read: {error}") from error
        except yaml.YAMLError as error:
            raise UserError(f"{self._path}: not YAML: {' '.join(str(error).split())}") from error
        keys = self._mapping(found, "the rubric", _RUBRIC_KEYS)
        common = self._texts(keys["facts"], "facts")
        words = self._mapping(keys["words"], "words", set(_WORDS_KEYS))
        return Rubric(
            topics=self._topics(keys["topics"], common),
            weights=self._weights(self._mapping(keys["weights"], "weights", set(MANNERS))),
            floor=self._number(keys["floor"], "floor", most=1.0),
            invention_penalty=self._number(keys["invention_penalty"], "invention_penalty", most=1.0),
            prompt_files=tuple(self._file(name) for name in self._texts(keys["prompts"], "prompts")),
            patterns={key: self._any_of(keys[key], key) for key in _LISTS_OF_PATTERNS},
            words={key: int(self._number(words[key], f"words.{key}", least=1)) for key in _WORDS_KEYS},
        )

    def _weights(self, found: dict[str, Any]) -> dict[str, float]:
        weights = {axis: self._number(weight, f"weights.{axis}") for axis, weight in found.items()}
        if not sum(weights.values()):
            raise RubricError(self._path, "weights", "expected at least one weight above 0")
        return weights

    def _topics(self, found: Any, common: list[str]) -> dict[str, Topic]:
        if not isinstance(found, dict) or not found:
            raise RubricError(self._path, "topics", "expected a mapping of names to topics")
        topics = {}
        for name, entry in found.items():
            keys = self._mapping(entry, f"topics.{name}", {"must_mention", "facts"})
            patterns = self._texts(keys["must_mention"], f"topics.{name}.must_mention")
            if not patterns:
                raise RubricError(self._path, f"topics.{name}.must_mention", "expected at least one pattern")
            facts = self._texts(keys["facts"], f"topics.{name}.facts") + common
            topics[name] = Topic(
                must_mention=tuple(self._pattern(p, f"topics.{name}.must_mention") for p in patterns),
                facts=frozenset().union(*(_claims(fact) for fact in facts)),
            )
        return topics

    def _mapping(self, found: Any, key: str, names: set[str]) -> dict[str, Any]:
        if not isinstance(found, dict):
            raise RubricError(self._path, key, f"expected the keys {', '.join(sorted(names))}")
        for name in sorted(map(str, found.keys() - names)):
            raise RubricError(self._path, f"{key}.{name}", f"unknown; known are {', '.join(sorted(names))}")
        for name in sorted(names - found.keys()):
            raise RubricError(self._path, key, f"the key {name!r} is missing")
        return found

    def _texts(self, found: Any, key: str) -> list[str]:
        if not isinstance(found, list) or not all(isinstance(text, str) and text for text in found):
            raise RubricError(self._path, key, "expected a list of texts")
        return found

    def _number(self, found: Any, key: str, least: float = 0.0, most: float = float("inf")) -> float:
        if isinstance(found, bool) or not isinstance(found, int | float) or not least <= found <= most:
            span = f"from {least:g} up" if most == float("inf") else f"from {least:g} to {most:g}"
            raise RubricError(self._path, key, f"expected a number {span}")
        return float(found)

    def _pattern(self, text: str, key: str) -> re.Pattern[str]:
        try:
            return re.compile(text)
        except re.error as error:
            raise RubricError(self._path, key, f"{text!r} is not a regular expression: {error}") from error

    def _any_of(self, found: Any, key: str) -> re.Pattern[str]:
        texts = self._texts(found, key)
        return self._pattern("|".join(f"(?:{text})" for text in texts) or r"(?!)", key)

    def _file(self, name: str) -> Path:
        path = (self._path.parent / name).resolve()
        if not path.is_file():
            raise RubricError(self._path, "prompts", f"there is no file {path}")
        return path
