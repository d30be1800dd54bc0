"""The turns that are being answered just now: who waits, who speaks, and how a turn is stopped.

A turn is answered while its page listens. It ends when both sides are done, the page goes away, its annotator votes or
begins something else; what was said until then, as it was sent, is stored.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
from anyio import CancelScope, CapacityLimiter, to_thread

from annotate_ui.markdown import shown_html, shown_plain
from plumbline.errors import StoreError, UserError
from plumbline.preferences.arena import Said

if TYPE_CHECKING:
    from annotate_ui.arena.speakers import Speaks
    from plumbline.preferences.arena import Arena, Duel

LOOK_AGAIN_SECONDS = 0.5
"""How often somebody who waits is told how many are before them."""

Line = Mapping[str, Any]
Pair = tuple[Said, Said]
NOTHING: Pair = (Said("", False), Said("", False))


@dataclass
class _Turn:
    annotator_id: str
    stop: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)


class Stage:
    """Lets the models answer, a few turns at once; who comes later waits in line.

    Args:
        arena: keeps what was said.
        speakers: who says it.
        at_once: turns that are answered at the same time.
    """

    def __init__(self, arena: Arena, speakers: Speaks, at_once: int) -> None:
        self.arena, self.speakers, self.at_once = arena, speakers, at_once
        self._turns: dict[str, _Turn] = {}
        self._line: deque[str] = deque()
        self._lock = threading.Lock()
        # Threads of its own: models must not take those that answer all other requests.
        self._threads = CapacityLimiter(at_once + 2)

    async def answer(self, annotator_id: str, battle_id: str, duel: Duel) -> AsyncIterator[Line]:
        """The lines that the page gets.

        `{waiting: n}` while n turns are before this one; `{left: text, right: text}` with what is to be added to each
        side; at the end `{done: {left: {html, finished}, right: …}}`.

        Raises:
            UserError: the models cannot answer, or what they said cannot be stored.
        """
        turn = self._enter(annotator_id, battle_id)
        said = told = NOTHING
        speaking: Iterator[Pair] = iter(())
        fault: UserError | None = None
        try:
            while (ahead := self._ahead(battle_id)) and not turn.stop.is_set():
                yield {"waiting": ahead}
                await anyio.sleep(LOOK_AGAIN_SECONDS)
            speaking = self.speakers.speak(duel)
            while not turn.stop.is_set():
                now = await to_thread.run_sync(next, speaking, None, limiter=self._threads)
                if now is None:
                    break
                said = now
                tell = self._as_shown(said, duel, growing=True)
                added = {
                    side: new.text[len(old.text) :]
                    for side, new, old in zip(("left", "right"), tell, told, strict=True)
                    if new.text.startswith(old.text)
                }
                told = tell
                if any(added.values()):
                    yield added
        except UserError as error:
            fault = error
        finally:
            with CancelScope(shield=True):  # also when the page went away
                await to_thread.run_sync(self._leave, battle_id, speaking, said, limiter=self._threads)
        if fault is not None:
            raise fault
        yield {"done": shown(self._as_shown(said, duel))}

    def stop(self, battle_id: str, *, seconds: float = 5) -> None:
        """Stop a turn, and wait until what was said is stored; at once where nobody listens to it."""
        turn = self._turns.get(battle_id)
        if turn is not None:
            turn.stop.set()
            turn.over.wait(seconds)

    def stop_all_of(self, annotator_id: str) -> None:
        """Stop what this annotator's pages listen to."""
        for battle_id, turn in list(self._turns.items()):
            if turn.annotator_id == annotator_id:
                self.stop(battle_id)

    def _as_shown(self, said: Pair, duel: Duel, *, growing: bool = False) -> Pair:
        left, right = (self.arena.as_shown(one, duel.prompt, growing=growing) for one in said)
        return left, right

    def _enter(self, annotator_id: str, battle_id: str) -> _Turn:
        with self._lock:
            if battle_id in self._turns:
                raise StoreError("this turn is being answered in another window: look there.")
            turn = self._turns[battle_id] = _Turn(annotator_id)
            self._line.append(battle_id)
            return turn

    def _ahead(self, battle_id: str) -> int:
        """How many must end before this one begins."""
        with self._lock:
            return max(list(self._line).index(battle_id) - self.at_once + 1, 0)

    def _leave(self, battle_id: str, speaking: Iterator[Pair], said: Pair) -> None:
        try:
            close = getattr(speaking, "close", None)
            if close is not None:
                close()
            if any(side.text.strip() or side.finished for side in said):
                self.arena.said(battle_id, *said)
        finally:
            with self._lock:
                self._line.remove(battle_id)
                self._turns.pop(battle_id).over.set()


def shown(said: Pair) -> dict[str, dict[str, Any]]:
    """What both sides said, as sanitised HTML."""
    return {
        side: {
            "html": shown_html(one.text),
            "plain": shown_plain(one.text),
            "finished": one.finished,
            "characters": len(one.text),
        }
        for side, one in zip(("left", "right"), said, strict=True)
    }
