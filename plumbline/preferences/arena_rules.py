"""Who fights in the arena, about what, and what comes first."""

from __future__ import annotations

from dataclasses import dataclass

from plumbline.conversations import Conversation
from plumbline.errors import StoreError
from plumbline.preferences.quiz_file import Quiz
from plumbline.preferences.source_names import WELL_KNOWN, SourceNames


@dataclass(frozen=True)
class Contender:
    """A policy that answers in the arena."""

    name: str
    weights_hash: str | None = None


@dataclass(frozen=True)
class ArenaRules:
    """Who fights whom about what.

    Attributes:
        contenders: the policies, the baseline among them.
        baseline: the name of the one that the others are compared with.
        prompts: that no stage trained on, to be drawn from.
        turns: most turns of one conversation.
        names: by which a text would give its policy away.
        mask: show annotators these names masked, until the conversation is over.
        quiz: what people must pass first, as before other work.
    """

    contenders: tuple[Contender, ...]
    baseline: str
    prompts: tuple[Conversation, ...] = ()
    turns: int = 5
    names: SourceNames = WELL_KNOWN
    mask: bool = True
    quiz: Quiz | None = None

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The baseline against each of the others."""
        return [(self.baseline, one.name) for one in self.contenders if one.name != self.baseline]

    def contender(self, name: str) -> Contender:
        """A policy by its name.

        Raises:
            StoreError: it does not take part any more.
        """
        found = next((one for one in self.contenders if one.name == name), None)
        if found is None:
            raise StoreError("the models of this conversation are no longer in the arena: start a new conversation.")
        return found
