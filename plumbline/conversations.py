"""Conversations, and the splits that a hash of the prompt decides.

A conversation is a list of `{"role", "content"}` messages, as in TRL's conversational formats. A *prompt* is a
conversation that ends with a user's message; a *response* is the assistant's text that follows.

Train, validation and test are decided by a hash of the normalised prompt, so that a prompt never leaks from one into
another and never moves when data are added.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from typing import Literal, TypedDict


class Message(TypedDict):
    """One turn: who speaks (`system`, `user` or `assistant`) and what is said."""

    role: str
    content: str


Conversation = list[Message]
Split = Literal["train", "validation", "test"]
Part = Literal["policy", "judge", "watch"]

ROLES = ("system", "user", "assistant")


def conversation_fault(messages: object, *, must_end_with: str | None = None) -> str | None:
    """Say what is wrong with a conversation, or return None.

    A conversation is: an optional system message first, then user and assistant in turn, beginning with the user; no
    content is empty. `must_end_with` asks for the role of the last message.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        return "expected a list of messages, each {'role', 'content'}"
    for number, message in enumerate(messages, 1):
        fault = _message_fault(message)
        if fault:
            return f"message {number}: {fault}"
    turns = [message["role"] for message in messages]
    if turns[0] == "system":
        turns = turns[1:]
    for number, role in enumerate(turns):
        expected = "user" if number % 2 == 0 else "assistant"
        if role != expected:
            return f"roles out of order: turn {number + 1} is {role!r}, expected {expected!r}"
    if not turns:
        return "there is only a system message, no user's message"
    if must_end_with and turns[-1] != must_end_with:
        return f"the last message is from {turns[-1]!r}, expected {must_end_with!r}"
    return None


def _message_fault(message: object) -> str | None:
    if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
        return "expected {'role', 'content'}"
    if message["role"] not in ROLES:
        return f"unknown role {message['role']!r}; known are {', '.join(ROLES)}"
    if not isinstance(message["content"], str):
        return f"content is {type(message['content']).__name__}, expected text"
    if not message["content"].strip():
        return f"the {message['role']}'s content is empty"
    return None


def first_prompt(messages: Sequence[Message]) -> Conversation:
    """The conversation up to its first user's message: what decides the split of all that follows it."""
    for end, message in enumerate(messages, 1):
        if message["role"] == "user":
            return list(messages[:end])
    return list(messages)


def normalise(text: str) -> str:
    """Fold case, Unicode forms, punctuation runs and white space, so that near-identical prompts are one prompt."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"\s+", " ", re.sub(r"[^\w\s]+", " ", folded)).strip() or re.sub(r"\s+", " ", folded).strip()


def prompt_key(prompt: Sequence[Message]) -> str:
    """A 32-character hexadecimal key of the normalised prompt (all its messages, roles included)."""
    text = "\x1e".join(f"{message['role']}\x1f{normalise(message['content'])}" for message in prompt)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def question_key(messages: Sequence[Message]) -> str:
    """The key of a conversation's first user's message alone: what decides its split; system messages do not matter."""
    return prompt_key([message for message in first_prompt(messages) if message["role"] == "user"])


def _fraction(key: str, salt: str) -> float:
    digest = hashlib.sha256(f"{salt}:{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(messages: Sequence[Message], *, validation: float = 0.1, test: float = 0.1) -> Split:
    """The split of a prompt or a conversation, by the hash of its first user's message.

    Turns of one dialogue stay together: what follows the first user's message does not matter.
    """
    fraction = _fraction(question_key(messages), "split")
    if fraction < test:
        return "test"
    return "validation" if fraction < test + validation else "train"


def part_of(messages: Sequence[Message], *, judge: float = 0.5, watch: float = 0.0) -> Part:
    """Which part of the preferences a prompt belongs to.

    Reward model, DPO and PPO learn from the `policy` part; the reward model that judges the comparison learns from the
    `judge` part, so that no policy was optimised against its judge; the one that PPO watches from the `watch` part.

    Judge and watch lie at the two ends of the hash: changing the share of one moves no prompt into or out of the other.

    Args:
        messages: a prompt or a conversation; its first user's message decides.
        judge, watch: shares of prompts; their sum is below 1.
    """
    fraction = _fraction(question_key(messages), "half")
    if fraction < judge:
        return "judge"
    return "watch" if 1 - fraction < watch else "policy"
