"""Names by which a response would tell which model wrote it, and the mask that annotators see in their place.

What is stored is never changed: masks are put in when a response is shown. Three sorts of names are looked for, as
whole words in any case, a version or size behind them included (`Qwen2.5-0.5B-Instruct`, `Claude 3.5 Sonnet`):

- the run's own (its policies, its base model, `annotate.hide_names`): wherever they stand;
- well-known ones that mean nothing else (`ChatGPT`, `OpenAI`): wherever they stand, but where the conversation itself
  speaks of them: whoever asks about ChatGPT gets it as an answer;
- well-known ones that are ordinary words too (Claude, a person; Gemini, a star sign; llama, an animal), and policies
  whose names are letters alone (`ppo`, also an insurance plan; `helpful`): where the response speaks of itself (`I am
  Claude`, `I was made by Google`), and the well-known ones with a version too (`Gemini 1.5`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from plumbline.conversations import Conversation

if TYPE_CHECKING:
    from plumbline.recipe import Recipe

MASK = "‹▒▒▒›"
"""What is shown in the place of a name; of one length for all, and in no text otherwise."""

UNAMBIGUOUS = tuple(
    """ChatGPT, Chat GPT, OpenAI, InstructGPT, GPT-2, GPT-3, GPT-4, GPT-5, GPT-J, GPT-NeoX, DeepSeek, DeepMind, Qwen,
    Tongyi, Mixtral, Mistral AI, Meta AI, Google AI, Google Bard, Claude AI, Llama 2, Llama 3, Llama 4, TinyLlama,
    CodeLlama, SmolLM, OLMo, StableLM, Stability AI, WizardLM, InternLM, ChatGLM, HuggingChat, OpenAssistant,
    Open Assistant, LAION, xAI""".replace("\n    ", " ").split(", ")
)
AMBIGUOUS = tuple(
    """Claude, Gemini, Gemma, Llama, Alpaca, Vicuna, Mistral, Grok, Bard, Copilot, Bing, Phi, Falcon, Zephyr, Pythia,
    Bloom, Dolly, Orca, Hermes, Nova, Kimi, Ernie, Yi, Command, Alexa, Siri, Cortana, Anthropic, Google, Meta,
    Microsoft, Alibaba, Alibaba Cloud, Amazon, Apple, Baidu, Tencent, Cohere, Perplexity, Nvidia, IBM, Hugging Face,
    EleutherAI, Databricks""".replace("\n    ", " ").split(", ")
)
COMMON = ("base", "aligned", "baseline", "model", "policy")
"""Names of policies that stand in any text, so that they give nothing away."""

_TIERS = "instruct|chat|turbo|mini|nano|pro|flash|ultra|sonnet|opus|haiku|preview"
_JOINED = r"(?:[-‑_/]\w+|\.\d\w*|\d\w*)*"
_VERSION = rf"(?P<version>{_JOINED}(?:[ \u00a0](?:v?\d{{1,2}}(?:\.\d+)*b?|{_TIERS})(?!\w){_JOINED})*)"
_TELLING_VERSION = re.compile(rf"[-‑_/]\w|\d\.\d|\db\b|\b(?:{_TIERS})\b", re.IGNORECASE)

_SPEAKER = r"(?:(?:language\s+)?model|assistant|chatbot|AI|Sprachmodell|Assistent|KI)"
_FILLERS = r"(?:(?:the|a|an|company|team|people|researchers|at|of|called|named|der|die|das|dem|firma|namens)\s+)*"
_QUOTES = r"[\"'“„*_`]*"
_I_AM = re.compile(
    rf"(?<!\w)(?:I\s+am|I['’]m|my\s+name\s+is|call\s+me|{_SPEAKER}\s+(?:called|named|namens)|ich\s+bin|ich\s+heiße|"
    rf"mein\s+name\s+ist|nenn\s+mich|nennen\s+sie\s+mich)\s*[:,]?\s*{_QUOTES}$",
    re.IGNORECASE,
)
_MADE_BY = re.compile(
    r"(?<!\w)(?:I|I['’]m|my|me|as\s+an?|ich|mich|mein|meine|als)(?!\w)[^.!?\n]{0,80}(?<!\w)"
    r"(?:(?:made|created|trained|developed|built|designed|released|provided|powered|tuned|operated)\s+(?:by|at)|"
    rf"{_SPEAKER}\s+(?:by|from|of|von)|(?:wurde|entwickelt|trainiert|erstellt)\s+(?:von|bei)|"
    rf"(?:creator|developer|maker|Entwickler|Hersteller)s?\s+(?:is|are|ist|sind))\s+{_FILLERS}{_QUOTES}$",
    re.IGNORECASE,
)
_OPENING = re.compile(
    r"(?:^|[.!?\n]\s*)(?:(?:hi|hello|hey|hallo)(?!\w)[^.!?\n]{0,30}[,!.]\s*)?(?:this\s+is\s+|hier\s+ist\s+)?[\"'“„*_`]*$",
    re.IGNORECASE,
)
_SPEAKING = re.compile(r"[\"'”“*_`]*\s+(?:here|speaking|hier)(?!\w)", re.IGNORECASE)
_AS = re.compile(rf"(?<!\w)(?:as|als)\s+{_QUOTES}$", re.IGNORECASE)
_THEN_COMMA = re.compile(r"[\"'”“*_`]*\s?,")
_LEFT = 120
"""Characters before a name in which it is looked for whether the response speaks of itself."""

_LETTERS = re.compile(r"[^\W\d_]+")
_ONE_WORD_ON = re.compile(r"\s*\S+\s")
"""What has to follow a name before nothing can change any more whether, and how far, it is masked."""


@dataclass(frozen=True)
class SourceNames:
    """The names to be hidden in a project.

    Attributes:
        own: of the run; hidden wherever they stand.
        plain: of the run, but words of other texts too: hidden where a response speaks of itself.
        well_known: whether the names of well-known models, assistants and their makers are looked for too.
    """

    own: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    well_known: bool = True

    @classmethod
    def of(cls, recipe: Recipe) -> SourceNames | None:
        """The names that a recipe's responses could give away; None where it hides none (`mask_names: false`)."""
        return cls.of_run(recipe) if recipe.annotate.mask_names else None

    @classmethod
    def of_run(cls, recipe: Recipe, *, well_known: bool = True) -> SourceNames:
        """The names of a recipe's policies, of its base model and the model's family, and those that it adds."""
        policies = [name for name in ("base", "sft", *recipe.align_names) if name.lower() not in COMMON]
        plain = tuple(name for name in policies if name.isalpha())  # in health a PPO is a plan, and a DPO an officer
        model = Path(recipe.model.name).name
        family = re.match(r"[A-Za-z]{4,}", model)
        words = [one for one in (model, family[0] if family else "") if one and one.lower() not in COMMON]
        ambiguous = {name.casefold() for name in AMBIGUOUS}
        plain += tuple(word for word in words if word.casefold() in ambiguous)
        own = [name for name in (*policies, *words, *recipe.annotate.hide_names) if name not in plain]
        return cls(tuple(dict.fromkeys(own)), plain, well_known)

    def found(self, text: str, prompt: Conversation) -> bool:
        """Whether a response to the prompt holds a name that is to be hidden."""
        return next(self._spans(text, prompt), None) is not None

    def masked(self, text: str, prompt: Conversation) -> str:
        """The response as annotators see it."""
        return _with_masks(text, self._spans(text, prompt), len(text))

    def masked_so_far(self, text: str, prompt: Conversation) -> str:
        """Of a response that is still growing, what can be shown already: later text only adds to it.

        The beginning of what may become a name is held back, and a name until it is known how far it goes.
        """
        return _with_masks(text, self._spans(text, prompt), self._settled(text))

    def length_of(self, text: str, prompt: Conversation, shown: int) -> int:
        """How many characters of the response the first `shown` characters of its masked form stand for."""
        ahead = 0  # by how many characters the response is ahead of its masked form
        for start, end in self._spans(text, prompt):
            if start - ahead >= shown:
                break
            if start - ahead + len(MASK) >= shown:
                return end
            ahead += end - start - len(MASK)
        return min(shown + ahead, len(text))

    # -- inside --------------------------------------------------------------------------------------------------

    def _spans(self, text: str, prompt: Conversation) -> Iterator[tuple[int, int]]:
        """Where the names stand that are to be hidden, from left to right."""
        asked_about: set[str] | None = None
        for candidate in self._candidates(text):
            name = _key(candidate["name"])
            if name in self._always or self._of_itself(text, candidate):
                yield candidate.span()
                continue
            if name not in self._unless_asked and not (
                name in self._versioned and _TELLING_VERSION.search(candidate["version"])
            ):
                continue
            if asked_about is None:
                asked_about = self._names_in(prompt)
            if name not in asked_about:
                yield candidate.span()

    def _candidates(self, text: str) -> Iterator[re.Match[str]]:
        """The names in the text, whether they are to be hidden or not; most texts have none, which is soon found."""
        begins, after = self._first_words, 0
        if not begins:
            yield from self._pattern.finditer(text)
        elif not begins.isdisjoint(_LETTERS.findall(text.casefold())):
            for word in _LETTERS.finditer(text):
                if word.start() < after or word[0].casefold() not in begins:
                    continue
                found = self._pattern.match(text, word.start())
                if found:
                    yield found
                    after = found.end()

    def _names_in(self, prompt: Conversation) -> set[str]:
        said = "\n".join(message["content"] for message in prompt if message["role"] != "assistant")
        return {_key(found["name"]) for found in self._candidates(said)}

    def _of_itself(self, text: str, candidate: re.Match[str]) -> bool:
        """Whether the response says the name of itself, or of its maker."""
        start = candidate.start()
        left = text[max(0, start - _LEFT) : start]
        if _I_AM.search(left) or _MADE_BY.search(left):
            return True
        if _SPEAKING.match(text, candidate.end()) and _OPENING.search(left):
            return True
        return bool(_AS.search(left) and _THEN_COMMA.match(text, candidate.end()))

    def _settled(self, text: str) -> int:
        """Up to where nothing changes when the text goes on."""
        after = max(0, len(text) - self._longest)
        for candidate in self._candidates(text):
            if not _ONE_WORD_ON.match(text, candidate.end()):
                return candidate.start()
            after = max(after, candidate.end())
        for start in range(after, len(text)):
            begins = text[start].isalnum() and not (start and _is_word(text[start - 1]))
            if begins and _key(text[start:]) in self._beginnings:
                return start
        return len(text)

    @cached_property
    def _first_words(self) -> frozenset[str]:
        """What the names begin with, in every spelling that `_pattern` takes; empty where one begins with no letter."""
        parts = [_parts(name.casefold()) for name in self._all]
        spelled = ("".join(name[:number]) for name in parts for number in range(1, len(name) + 1))
        begins = [_LETTERS.match(name) for name in spelled]
        return frozenset(found[0] for found in begins if found) if all(begins) else frozenset()

    @cached_property
    def _always(self) -> frozenset[str]:
        return frozenset(map(_key, self.own))

    @cached_property
    def _unless_asked(self) -> frozenset[str]:
        return frozenset(map(_key, UNAMBIGUOUS if self.well_known else ()))

    @cached_property
    def _versioned(self) -> frozenset[str]:
        return frozenset(map(_key, AMBIGUOUS if self.well_known else ()))

    @cached_property
    def _all(self) -> tuple[str, ...]:
        """All names, the longest first, so that of two that begin alike the longer one is found."""
        names = [*self.own, *self.plain, *((*UNAMBIGUOUS, *AMBIGUOUS) if self.well_known else ())]
        known = {_key(name): name for name in names if _key(name)}
        return tuple(sorted(known.values(), key=lambda name: (-len(name), name)))

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        if not self._all:
            return re.compile(r"(?!)(?P<name>)(?P<version>)")
        names = "|".join(map(_spellings, self._all))
        return re.compile(rf"(?<!\w)(?P<name>{names})(?:(?<=\d)\w*|(?![^\W\d_])){_VERSION}", re.IGNORECASE)

    @cached_property
    def _beginnings(self) -> frozenset[str]:
        keys = map(_key, self._all)
        return frozenset(key[:end] for key in keys for end in range(1, len(key) + 1))

    @cached_property
    def _longest(self) -> int:
        return 2 * max(map(len, self._all), default=0)


WELL_KNOWN = SourceNames()
"""No names of a run, and all of the others."""


def _key(name: str) -> str:
    """A name without what parts its words, in one case: `GPT-4` and `gpt 4` are the same."""
    return re.sub(r"[\W_]+", "", name).casefold()


def _spellings(name: str) -> str:
    """A name with its words parted by a space, a hyphen, or nothing at all."""
    return r"[ \u00a0\-‑_]?".join(map(re.escape, _parts(name)))


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"[\s\-_]+", name) if part]


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _with_masks(text: str, spans: Iterable[tuple[int, int]], end: int) -> str:
    parts, at = [], 0
    for start, stop in spans:
        if stop > end:
            end = min(start, end)
            break
        parts += [text[at:start], MASK]
        at = stop
    return "".join([*parts, text[at:end]])
