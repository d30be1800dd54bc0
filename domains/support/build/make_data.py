"""Write prompts, demonstrations and the benchmark of the support domain from knowledge.yaml and manners.yaml.

    python domains/support/build/make_data.py [--out domains/support/data]

The same seed gives the same files, byte for byte. All text is the project's own.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phrasing import as_learner, fill, load_phrases, lower_first, pick, with_typos

from plumbline.conversations import Conversation, Message, first_prompt, prompt_key

SEED = 20240
PROMPT_STYLES = Counter(
    plain=4, typos=3, angry=2, shouting=1, terse=2, polite=2, learner=2, two_questions=2, follow_up=2
)  # rows a topic: 20, and each less common phrasing once
DEMONSTRATION_STYLES = Counter(
    plain=7, typos=5, angry=4, shouting=1, terse=3, polite=3, learner=3, two_questions=3, follow_up=3
)  # rows a topic: 32
ONCE_STYLES = ("plain", "typos", "plain", "angry", "plain")  # for phrasings of which each is used once
RARE_STYLES = ("plain", "plain", "typos")  # demonstrations of less common phrasings: 3 a topic
# What agents do, as shares of the demonstrations: the logs of a real team are not all good.
MANNERS = {
    "good": 16,
    "no_courtesy": 12,
    "no_next_step": 15,
    "curt": 16,
    "long_winded": 13,
    "invented": 17,
    "missed": 9,
    "rude": 2,
}

Row = dict[str, Any]


@dataclass
class Writer:
    """Writes customers' messages and agents' replies; all chance comes from `rng`."""

    rng: random.Random
    knowledge: dict[str, Any] = field(default_factory=lambda: load_phrases("knowledge.yaml"))
    manners: dict[str, Any] = field(default_factory=lambda: load_phrases("manners.yaml"))

    def message(self, topic: str, style: str, pool: str = "questions") -> str:
        """One customer's message on a topic, in a way of writing."""
        customers = self.manners["customers"]
        source = "terse" if style == "terse" and pool == "questions" else pool
        text = self._filled(pick(self.knowledge[topic][source], self.rng))
        if style == "angry":
            parts = [pick(customers["anger_before"], self.rng), text, pick(customers["anger_after"], self.rng)]
            return " ".join(parts[: self.rng.choice((2, 3, 3))] if self.rng.random() < 0.8 else parts[1:])
        if style == "shouting":
            return (text.rstrip(".?! ") + self.rng.choice(("!!!", "?!", "!!", "???"))).upper()
        if style == "polite":
            return self._filled(
                f"{pick(customers['polite_before'], self.rng)} {text} {pick(customers['polite_after'], self.rng)}"
            )
        if style == "learner":
            before, after = pick(customers["learner_before"], self.rng), pick(customers["learner_after"], self.rng)
            return " ".join([before, as_learner(text, self.rng), after][: self.rng.choice((2, 3))])
        if style == "terse":
            return (
                self.rng.choice(("", "", "hi, ", "hello ", "question: "))
                + text
                + self.rng.choice(("", "", " please", " thx"))
            )
        if style == "typos":
            return with_typos(self._greeted(text), self.rng)
        return self._greeted(text)

    def two_questions(self, first: str, second: str, pool: str = "questions") -> str:
        """A message that asks about two topics."""
        joint = pick(self.manners["customers"]["second_question"], self.rng)
        other = self._filled(pick(self.knowledge[second][pool], self.rng))
        joined = f"{joint} {other if joint.endswith(':') else lower_first(other)}"
        text = f"{self.message(first, 'plain', pool)} {joined}"
        return with_typos(text, self.rng) if self.rng.random() < 0.25 else text

    def follow_up(self, topic: str) -> str:
        """A customer's second message, which goes on to another topic."""
        joint = pick(self.manners["customers"]["follow_up"], self.rng)
        text = self._filled(pick(self.knowledge[topic]["questions"], self.rng))
        return f"{joint} {text if joint[-1] in ':.!' else lower_first(text)}"

    def reply(self, topics: list[str], manner: str, *, upset: bool = False, again: bool = False) -> str:
        """One agent's reply on one or two topics, in a manner of MANNERS."""
        agents = self.manners["agents"]
        if again:
            opening = pick(agents["again"], self.rng)
        else:
            sorry = upset or (topics[0] in self.manners["problem_topics"] and self.rng.random() < 0.85)
            opening = pick(agents["sorry" if sorry else "thanks"], self.rng)
        closing = pick(agents["closings"], self.rng)
        matter = self._answers(topics)
        next_step = self._of(self.rng.choice(topics), "next")
        if manner == "good":
            shape = self.rng.choice(("ome", "ome", "om", "mec"))
            parts = {"o": opening, "m": matter, "e": next_step, "c": closing}
            return " ".join([*(parts[letter] for letter in shape), *([next_step] if "e" not in shape else [])])
        if manner == "no_courtesy":
            return f"{matter} {next_step}".replace("please ", "").replace("Please c", "C")
        if manner == "no_next_step":
            return " ".join([opening, matter, closing][: self.rng.choice((2, 3))])
        if manner == "curt":
            return " ".join(self._of(topic, "curt") for topic in topics)
        if manner == "long_winded":
            return self._long_winded(opening, matter, next_step, closing)
        if manner == "invented":
            made_up = self._of(topics[0], "invented")
            orders = [opening, matter, made_up], [opening, made_up, next_step], [matter, made_up, next_step]
            return " ".join(self.rng.choice(orders))
        if manner == "rude":
            return f"{pick(agents['rude'], self.rng)} {self._of(topics[0], 'curt')}"
        return self._missed(topics, opening, closing)

    def _long_winded(self, opening: str, matter: str, next_step: str, closing: str) -> str:
        fillers = self.rng.sample(self.manners["agents"]["filler"], 3)
        first, second, third = (pick([line], self.rng) for line in fillers)
        parts = [opening, first, second, matter, third, *([next_step] if self.rng.random() < 0.6 else []), closing]
        return " ".join(parts)

    def _missed(self, topics: list[str], opening: str, closing: str) -> str:
        if self.rng.random() < 0.65:
            return f"{opening} {pick(self.manners['agents']['evasion'], self.rng)} {closing}"
        unrelated = sorted(set(self.knowledge) - {*topics, *(r for t in topics for r in self.knowledge[t]["related"])})
        other = self.rng.choice(unrelated)
        return f"{opening} {self._of(other, 'answers')} {self._of(other, 'next')}"

    def _answers(self, topics: list[str]) -> str:
        if len(topics) == 1:
            return self._of(topics[0], "answers")
        joint = pick(self.manners["agents"]["second_answer"], self.rng)
        return f"{self._of(topics[0], 'answers')} {joint} {lower_first(self._of(topics[1], 'answers'))}"

    def _of(self, topic: str, kind: str) -> str:
        return pick(self.knowledge[topic][kind], self.rng)

    def _greeted(self, text: str) -> str:
        customers = self.manners["customers"]
        if self.rng.random() < 0.45:
            greeting = pick(customers["greetings"], self.rng)
            text = f"{greeting} {lower_first(text) if greeting.endswith(',') else text}"
        if self.rng.random() < 0.3:
            text = f"{text} {self._filled(pick(customers['endings'], self.rng))}"
        return text

    def _filled(self, text: str) -> str:
        return fill(text, self.manners["fill"], self.rng)


class Unique:
    """Remembers prompts over all files, by `prompt_key`, so that none occurs twice and none leaks."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def take(self, prompt: Conversation) -> bool:
        """True, and remembered, when neither the prompt nor its first message was seen before."""
        keys = {prompt_key(prompt), prompt_key(first_prompt(prompt))}
        if keys & self._seen:
            return False
        self._seen |= keys
        return True


def user(text: str) -> Message:
    """A user's message."""
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    """An assistant's message."""
    return {"role": "assistant", "content": text}


def make_prompt(writer: Writer, topic: str, style: str, pool: str = "questions") -> Row:
    """One row of prompts: the messages, the topics of the last message, and the way of writing."""
    rng, related = writer.rng, writer.knowledge[topic]["related"]
    if style == "two_questions":
        second = rng.choice(related)
        return {"prompt": [user(writer.two_questions(topic, second, pool))], "topics": [topic, second], "style": style}
    if style == "follow_up":
        before = rng.choice(related)
        manner = rng.choice(("good", "no_courtesy", "no_next_step"))
        asked = user(writer.message(before, rng.choice(("plain", "typos", "terse"))))
        turns = [asked, assistant(writer.reply([before], manner))]
        return {"prompt": [*turns, user(writer.follow_up(topic))], "topics": [topic], "style": style}
    return {"prompt": [user(writer.message(topic, style, pool))], "topics": [topic], "style": style}


def make_demonstration(writer: Writer, topic: str, style: str, seen: Unique, pool: str = "questions") -> Row:
    """A new prompt with an agent's reply, of a manner drawn by the shares of MANNERS."""
    row = new_row(writer, topic, style, seen, pool)
    manner = writer.rng.choices(list(MANNERS), weights=list(MANNERS.values()))[0]
    upset = style in {"angry", "shouting"}
    text = writer.reply(row["topics"], manner, upset=upset, again=style == "follow_up" and not upset)
    return {"messages": [*row["prompt"], assistant(text)], "topics": row["topics"], "style": style, "manner": manner}


def new_row(writer: Writer, topic: str, style: str, seen: Unique, pool: str = "questions") -> Row:
    """A row of prompts whose prompt was not seen before."""
    for _ in range(1000):
        row = make_prompt(writer, topic, style, pool)
        if seen.take(row["prompt"]):
            return row
    raise RuntimeError(f"no new {style} prompt on {topic} in 1000 tries: add phrasings")


def make_files(seed: int = SEED) -> dict[str, list[Row]]:
    """All rows by file name."""
    writer, seen = Writer(random.Random(seed)), Unique()
    topics = list(writer.knowledge)
    prompts = list(_each_phrasing_once(writer, "rarely", seen))
    prompts += [new_row(writer, t, s, seen) for t in topics for s in PROMPT_STYLES.elements()]
    demonstrations = [make_demonstration(writer, t, s, seen) for t in topics for s in DEMONSTRATION_STYLES.elements()]
    demonstrations += [make_demonstration(writer, t, s, seen, "rarely") for t in topics for s in RARE_STYLES]
    held_out = Writer(random.Random(seed + 1))
    for topic, phrases in load_phrases("held_out.yaml").items():
        held_out.knowledge[topic]["held_out"] = phrases
    benchmark = list(_each_phrasing_once(held_out, "held_out", seen))
    files = {"prompts.jsonl": prompts, "demonstrations.jsonl": demonstrations, "benchmark.jsonl": benchmark}
    for rows in files.values():
        writer.rng.shuffle(rows)
    return files


def _each_phrasing_once(writer: Writer, pool: str, seen: Unique) -> Iterator[Row]:
    """Every phrasing of a pool once, and one message with two questions for every second topic."""
    everything = writer.knowledge
    for topic in everything:
        for phrase, style in zip(everything[topic][pool], ONCE_STYLES, strict=False):
            everything[topic]["one"] = [phrase]
            yield new_row(writer, topic, style, seen, "one")
    for topic in list(everything)[::2]:
        yield new_row(writer, topic, "two_questions", seen, pool)


def main() -> None:
    """Write the three files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "data")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in make_files().items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (out / name).write_text(text, encoding="utf-8", newline="\n")
        print(f"{out / name}: {len(rows)} rows")


if __name__ == "__main__":
    main()
