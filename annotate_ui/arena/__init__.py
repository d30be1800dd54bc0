"""The arena's page: two models of the run answer side by side, blind, and an annotator votes.

    from annotate_ui.arena import ArenaSetup, Sampling, Speakers
    arena = ArenaSetup(Arena(store, project="support", rules=rules), Speakers(folders, Sampling()))
    build_app(service, setup, arena=arena)

The rules are in `plumbline.preferences.arena`, the models in `speakers`, the turns that are under way in `stage`, what
the page asks in `desk`, its routes in `pages`.
"""

from __future__ import annotations

from dataclasses import dataclass

from annotate_ui.arena.speakers import Sampling, Speakers, Speaks
from plumbline.preferences.arena import Arena

__all__ = ["ArenaSetup", "Sampling", "Speakers", "Speaks"]


@dataclass(frozen=True)
class ArenaSetup:
    """What the arena's page needs.

    Attributes:
        arena: the rules and the store.
        speakers: who answers.
        at_once: turns that are answered at the same time.
        votes_per_person: votes of one person that count in the ranking.
        margin: win rates within this of one half count as no difference.
        compared: policies that the recipe compares with the baseline, those that are not finished among them.
    """

    arena: Arena
    speakers: Speaks
    at_once: int = 2
    votes_per_person: int = 100
    margin: float = 0.05
    compared: int = 1
