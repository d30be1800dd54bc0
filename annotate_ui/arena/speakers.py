"""Two policies of the run answering the same conversation, token by token and in step.

Both take a token in turn, and what they say is passed on only after both took theirs: the side of a faster model is not
told by its pace. One thread does the work of a turn; closing the iterator ends it at the next token.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from annotate_ui.arena.neutral import neutral
from plumbline.errors import UserError
from plumbline.preferences.arena import Said

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from plumbline.conversations import Conversation
    from plumbline.preferences.arena import Duel


@dataclass(frozen=True)
class Sampling:
    """How both sides are sampled, and how long a turn may take."""

    temperature: float = 0.7
    max_new_tokens: int = 256
    seconds: float = 120


class Speaks(Protocol):
    """What answers a duel: the real speakers, or a stand-in in tests."""

    def check(self, prompt: Conversation) -> None:
        """Refuse a prompt that leaves no room for a response.

        Raises:
            UserError: it is too long.
        """

    def speak(self, duel: Duel) -> Iterator[tuple[Said, Said]]:
        """What both sides have said so far, again and again; the last one is what they said in all."""


class Speakers:
    """The run's policies, each loaded when it first speaks; the one that was silent longest is dropped for another.

    Args:
        folders: model folders by policy name, found by the server in the run.
        sampling: the same for both sides.
        kept: how many models stay in memory; two answer one turn.
        load: loads a policy and its tokenizer; by default as sampling does.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        sampling: Sampling,
        *,
        kept: int = 4,
        load: Callable[[Path], tuple[PreTrainedModel, PreTrainedTokenizerBase]] | None = None,
    ) -> None:
        self.folders, self.sampling, self.kept = dict(folders), sampling, max(kept, 2)
        self._load = load or load_speaker
        self._loaded: OrderedDict[str, tuple[Any, Any]] = OrderedDict()
        self._lock = threading.Lock()
        self._tokenizer: PreTrainedTokenizerBase | None = None

    def check(self, prompt: Conversation) -> None:
        """Refuse a prompt that leaves no room for a response in a policy's window; models are not loaded for that.

        Raises:
            UserError: it is too long.
        """
        from plumbline.models import context_window, load_tokenizer
        from plumbline.sampling import encode_prompts

        folder = next(iter(self.folders.values()))  # all policies of a run have the same tokenizer and base
        window = context_window(folder)
        if window is None:
            return
        tokenizer = self._tokenizer = self._tokenizer or load_tokenizer(folder)
        length = len(encode_prompts(tokenizer, [neutral(prompt, tokenizer)])[0])
        room = window - self.sampling.max_new_tokens
        if length > room:
            raise UserError(
                f"the conversation has {length} tokens, and the models read {room} beside their answer: "
                "shorten your message, or start a new conversation."
            )

    def speak(self, duel: Duel) -> Iterator[tuple[Said, Said]]:
        """Both answers as they grow, in step."""
        voices = [self._voice(one.name, duel.prompt) for one in (duel.left, duel.right)]
        end = time.monotonic() + self.sampling.seconds
        try:
            going = True
            while going and time.monotonic() < end:
                steps = [voice.step() for voice in voices]  # both, before anything is told of either
                going = any(steps)
                yield voices[0].said, voices[1].said
            yield voices[0].whole, voices[1].whole
        finally:
            for voice in voices:
                voice.close()

    def _voice(self, name: str, prompt: Conversation) -> _Voice:
        from plumbline.sampling import encode_prompts

        model, tokenizer = self._model(name)
        ids = encode_prompts(tokenizer, [neutral(prompt, tokenizer)])[0]
        return _Voice(model, tokenizer, ids, self.sampling)

    def _model(self, name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        with self._lock:  # one model is loaded at a time, and once
            if name not in self._loaded:
                while len(self._loaded) >= self.kept:
                    self._loaded.popitem(last=False)
                self._loaded[name] = self._load(self.folders[name])
            self._loaded.move_to_end(name)
            return self._loaded[name]


class _Voice:
    """One side's answer while it is made."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: list[int], sampling: Sampling
    ) -> None:
        import torch

        from plumbline.generation import generate_stream
        from plumbline.sampling import stop_token_ids

        self._tokenizer = tokenizer
        self._stop = stop_token_ids(model, tokenizer)
        self._ids: list[int] = []
        self._text = ""
        self._tokens = generate_stream(
            model,
            ids,
            stop=self._stop,
            temperature=sampling.temperature,
            max_new_tokens=sampling.max_new_tokens,
            generator=torch.Generator(device=model.device).manual_seed(secrets.randbits(63)),
        )

    def step(self) -> bool:
        """Say one token more; False when there is none."""
        token = next(self._tokens, None)
        if token is None:
            return False
        self._ids.append(token)
        text = self.whole.text
        # Half of a character decodes as a question mark, which the next token replaces.
        if not text.endswith("\ufffd") and text.startswith(self._text):
            self._text = text
        return True

    @property
    def said(self) -> Said:
        """What may be shown already: later text only adds to it."""
        return Said(self._text, self._finished)

    @property
    def whole(self) -> Said:
        """All of it."""
        content = self._ids[:-1] if self._finished else self._ids
        return Said(self._tokenizer.decode(content, skip_special_tokens=True), self._finished)

    def close(self) -> None:
        """End the work."""
        self._tokens.close()

    @property
    def _finished(self) -> bool:
        return bool(self._ids) and self._ids[-1] in self._stop


def load_speaker(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A policy and its tokenizer, as sampling loads them."""
    from plumbline.models import load_policy, load_tokenizer

    return load_policy(folder), load_tokenizer(folder)
