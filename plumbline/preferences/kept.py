"""A memory that keeps what is slow to work out cheap to ask for again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

REST = 4.0
"""A new value is made at most so often that this many times its making is rest."""

AFTER_THE_ANSWER = 1.0
"""Seconds after which what nobody waits for is begun: loading its library would keep the page from being shown."""


class Kept:
    """A value that is computed anew when its state has changed, but not so often that it keeps the machine busy."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state: object = None
        self._value: Any = None
        self._next = 0.0
        self._thread: threading.Thread | None = None

    def get(self, state: object, compute: Callable[[], Any], *, wait: bool = True) -> Any:
        """The value; where it is being computed and we do not `wait`, the one before, None at first."""
        if self._fresh(state):
            return self._value
        if wait:
            with self._lock:  # who comes second finds it done
                if not self._fresh(state):
                    self._make(state, compute)
        elif self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._make_alone, args=(state, compute), daemon=True)
            self._thread.start()
        return self._value

    def _make_alone(self, state: object, compute: Callable[[], Any]) -> None:
        time.sleep(AFTER_THE_ANSWER)
        with self._lock:
            self._make(state, compute)

    def _make(self, state: object, compute: Callable[[], Any]) -> None:
        began = time.monotonic()
        self._value = compute()
        self._state = (state,)
        self._next = time.monotonic() + REST * (time.monotonic() - began)

    def _fresh(self, state: object) -> bool:
        return self._state is not None and (self._state == (state,) or time.monotonic() < self._next)
