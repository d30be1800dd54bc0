"""What becomes of personal data in texts before they enter the store: reported, set aside or masked.

Masking looks at nothing but the text, so that the same rows and responses become the same tasks each time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from plumbline.conversations import Conversation
from plumbline.errors import counted
from plumbline.personal_data import Span, comparable, find, mask
from plumbline.preferences.records import NewJudgement, NewResponse, NewTask
from plumbline.preferences.validation import response_key, task_key
from plumbline.recipe_privacy import PersonalDataSection

LINES_SHOWN = 10


@dataclass
class Findings:
    """Personal data that was found, by kind, and in which rows of a file, or tasks.

    Attributes:
        looked_at: rows.
        rows: those with personal data.
        spans: pieces of text by kind.
        lines: the rows by kind.
    """

    looked_at: int = 0
    rows: int = 0
    spans: Counter[str] = field(default_factory=Counter)
    lines: dict[str, list[int]] = field(default_factory=dict)

    def add(self, line: int, kinds: Counter[str]) -> None:
        """Take up what was found in a row, perhaps nothing."""
        self.looked_at += 1
        self.rows += bool(kinds)
        self.spans += kinds
        for kind in kinds:
            self.lines.setdefault(kind, []).append(line)

    def told(self, noun: str = "row", *, lines: bool = True) -> str:
        """One line for the user, such as `personal data in 3 of 40 rows: EMAIL 4 (lines 2, 9, 11)`."""
        kinds = ", ".join(
            f"{kind} {number:,}" + (f" ({_shown(self.lines[kind])})" if lines else "")
            for kind, number in self.spans.most_common()
        )
        return f"personal data in {self.rows:,} of {counted(self.looked_at, noun)}: {kinds}"


def _shown(lines: Sequence[int]) -> str:
    named = ", ".join(str(line) for line in lines[:LINES_SHOWN])
    more = f" and {len(lines) - LINES_SHOWN:,} more" if len(lines) > LINES_SHOWN else ""
    return f"{'line' if len(lines) == 1 else 'lines'} {named}{more}"


@dataclass(frozen=True)
class Screen:
    """Looks at what is about to enter the store.

    Args:
        settings: the recipe's section `annotate.personal_data`.
    """

    settings: PersonalDataSection = field(default_factory=PersonalDataSection)

    @property
    def action(self) -> str:
        """`report`, `set_aside`, `mask` or `off`."""
        return self.settings.action

    def kinds(self, value: Any) -> Counter[str]:
        """How much of each kind is in all texts of a value as JSON has it."""
        if self.action == "off":
            return Counter()
        return Counter(span.kind for text in texts_of(value) for span in self._find(text))

    def kinds_of_task(self, task: NewTask) -> Counter[str]:
        """How much of each kind is in a task: prompt, responses, and what else its row holds."""
        return self.kinds([_contents(task), task.meta, [[one.text, one.meta] for one in task.responses]])

    def kinds_of_judgement(self, judgement: NewJudgement) -> Counter[str]:
        """How much of each kind is in a judgement and its task; the annotator's name is not looked at."""
        said = [judgement.reason, judgement.edited, judgement.scores]
        return self.kinds_of_task(judgement.task) + self.kinds(said)

    def masked_task(self, task: NewTask) -> NewTask:
        """The task without personal data; its responses may be the same then."""
        prompt: Conversation = [
            {"role": message["role"], "content": self._mask(message["content"])} for message in task.prompt
        ]
        responses = [self._masked_response(response) for response in task.responses]
        return replace(task, prompt=prompt, responses=responses, meta=_changed(task.meta, self._mask))

    def masked_judgement(self, judgement: NewJudgement) -> NewJudgement:
        """The judgement without personal data. It keeps its key, so that the same row is not taken twice."""
        task, edited = self.masked_task(judgement.task), judgement.edited and self._mask(judgement.edited)
        best = [one.text.strip() for one, rank in zip(task.responses, judgement.ranks, strict=True) if rank == 1]
        return replace(
            judgement,
            task=task,
            reason=judgement.reason and self._mask(judgement.reason),
            edited=None if edited and edited.strip() in best else edited,
            scores=_renamed(_changed(judgement.scores, self._mask), _new_ids(judgement.task, task)),
        )

    def _masked_response(self, response: NewResponse) -> NewResponse:
        return replace(response, text=self._mask(response.text), meta=_changed(response.meta, self._mask))

    def _mask(self, text: str) -> str:
        return mask(text, self.settings.regions, self._own)

    def _find(self, text: str) -> list[Span]:
        return find(text, self.settings.regions, self._own)

    @cached_property
    def _own(self) -> frozenset[str]:
        return frozenset(map(comparable, self.settings.own))


def _contents(task: NewTask) -> list[str]:
    return [message["content"] for message in task.prompt]


def texts_of(value: Any) -> Iterator[str]:
    """All texts of a value as JSON has it, however deeply nested, in no order."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict | list | tuple):
            left += one.values() if isinstance(one, dict) else one


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of the value with all its texts changed, however deeply nested."""
    top = [value]
    left: list[Any] = [top]
    while left:
        part = left.pop()
        for place, one in list(part.items() if isinstance(part, dict) else enumerate(part)):
            if isinstance(one, str):
                part[place] = change(one)
            elif isinstance(one, dict | list | tuple):
                part[place] = dict(one) if isinstance(one, dict) else list(one)
                left.append(part[place])
    return top[0]


def _new_ids(before: NewTask, after: NewTask) -> dict[str, str]:
    """The ids of a task's responses, old to new."""
    keys = [task_key(task.prompt, [response.text for response in task.responses]) for task in (before, after)]
    pairs = zip(before.responses, after.responses, strict=True)
    return {response_key(keys[0], old.text): response_key(keys[1], new.text) for old, new in pairs}


def _renamed(scores: Any, names: dict[str, str]) -> Any:
    """Scores, `{axis: {response id: level}}`, with the ids of the masked task's responses."""
    if not isinstance(scores, dict):
        return scores
    return {
        axis: {names.get(name, name): level for name, level in given.items()} if isinstance(given, dict) else given
        for axis, given in scores.items()
    }
