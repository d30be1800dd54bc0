"""Control marks of a chat template inside of what people write, made harmless before a model reads them.

A tokenizer turns `<|im_end|>` into the token that ends a turn wherever it stands, so that a message could speak as
somebody else. Here such marks are broken by an invisible space: the model still reads their characters.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from plumbline.conversations import Conversation, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BREAK = "\u200b"  # ZERO WIDTH SPACE
PROBE: Conversation = [Message(role="user", content="q"), Message(role="assistant", content="a")] * 2
MARK = re.compile(r"<<[^<>\s]+>>|<[^<>\s]+>|\[[^\[\]\s]+\]")


def neutral(prompt: Conversation, tokenizer: PreTrainedTokenizerBase) -> Conversation:
    """The conversation with every control mark in its contents broken."""
    marks = control_marks(tokenizer)
    return [Message(role=message["role"], content=_broken(message["content"], marks)) for message in prompt]


@lru_cache(maxsize=16)
def control_marks(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The marks of a tokenizer, the longest first: its special tokens, those it was given, its template's brackets."""
    marks = set(tokenizer.all_special_tokens)
    for token in tokenizer.added_tokens_decoder.values():
        if token.special or MARK.fullmatch(token.content.strip()):
            marks.add(token.content)
    marks.update(MARK.findall(str(tokenizer.apply_chat_template(PROBE[:3], tokenize=False))))
    return tuple(sorted((mark for mark in marks if mark.strip()), key=lambda mark: (-len(mark), mark)))


def _broken(text: str, marks: tuple[str, ...]) -> str:
    if not marks:
        return text
    pattern = re.compile("|".join(map(re.escape, marks)))
    while pattern.search(text):  # again, because a mark may begin inside of another one
        text = pattern.sub(lambda found: _split(found[0]), text)
    return text


def _split(mark: str) -> str:
    return f"{mark[0]}{BREAK}{mark[1:]}" if len(mark) > 1 else BREAK
