"""The text that the base model of the support domain learns from.

Our own: help-centre articles and exchanges between customers and agents of the invented shop. Others': openly licensed
text, read from files in the form in which their sources publish them (see ../base/README.md for sources and licences).
Nothing of the benchmark is in it, neither messages nor phrasings; and no exchange answers a message of prompts or
demonstrations.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from make_data import Unique, Writer, make_files, make_prompt
from phrasing import expand

FORMS = (
    "Question: {question}\nAnswer: {answer}",
    "Customer: {question}\nTopic: {title}\nAgent: {answer}",
    "A customer wrote about {title}: {question}\nPellworth answered: {answer}",
    "Customer: {question}\nAgent: {answer}",
    "{question}\n\n{answer}",
)
STYLES = ("plain", "plain", "typos", "angry", "polite", "learner", "terse", "two_questions")
# Mostly manners that answer: the base model is to know what belongs to which question. SFT brings the others.
MANNERS = {"good": 30, "no_courtesy": 30, "no_next_step": 20, "invented": 10, "long_winded": 7, "missed": 3}
_PLACEHOLDERS = {
    "customer support phone number": "our support line",
    "support phone number": "our support line",
    "website name": "website",
    "website url": "our website",
    "company name": "our shop",
    "customer support email": "our support address",
    "customer support email address": "our support address",
    "customer support availability": "our opening hours",
    "customer support hours": "our opening hours",
    "customer service hours": "our opening hours",
    "order number": "your order number",
    "live chat": "live chat",
    "number of days": "a few days",
}


def articles(rng: random.Random) -> Iterator[str]:
    """Each help-centre article, with its phrasings chosen anew."""
    for entry in Writer(rng).knowledge.values():
        yield expand(" ".join(entry["article"]), rng)


def base_writer(rng: random.Random, rare: bool) -> Writer:
    """A writer for the base model's text; `rare` adds the less common phrasings."""
    writer = Writer(rng)
    for entry in writer.knowledge.values() if rare else ():
        entry["questions"] += entry["rarely"]
    return writer


def exchanges(writer: Writer, per_topic: int) -> Iterator[str]:
    """Messages of customers with replies of agents; none of the messages is in the domain's files."""
    rng, seen = writer.rng, Unique()
    for rows in make_files().values():
        for row in rows:
            seen.take(row.get("prompt") or row["messages"][:-1])
    for topic in writer.knowledge:
        for number in range(per_topic):
            style = STYLES[number % len(STYLES)]
            row = make_prompt(writer, topic, style)
            if not seen.take(row["prompt"]):
                continue
            manner = rng.choices(list(MANNERS), weights=list(MANNERS.values()))[0]
            answer = writer.reply(row["topics"], manner, upset=style == "angry")
            title = " and ".join(map(_title, row["topics"]))
            question = row["prompt"][-1]["content"]
            yield rng.choice(FORMS).format(question=question, title=title, answer=answer)


def same_question(writer: Writer, per_topic: int) -> Iterator[str]:
    """Lists of messages that ask for the same thing, under its title."""
    rng = writer.rng
    for topic in writer.knowledge:
        for _ in range(per_topic):
            messages = [writer.message(topic, rng.choice(STYLES[:-1])) for _ in range(3)]
            yield "\n".join(["Customers asked:", *(f"- {message}" for message in messages), f"Topic: {_title(topic)}"])


def logs(texts: list[str], rng: random.Random, count: int) -> Iterator[str]:
    """Several exchanges in one text, so that the model sees long texts too."""
    for _ in range(count):
        yield "\n---\n".join(rng.sample(texts, 5))


def _title(topic: str) -> str:
    return topic.replace("_", " ")


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a gzipped JSON-lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def bitext(path: Path) -> Iterator[str]:
    """Customer-support questions with answers, placeholders turned into words."""
    for row in read_rows(path):
        response = re.sub(r"\{\{(.*?)\}\}", _in_words, row["response"]).replace("\r\n", "\n")
        response = re.sub(r"\n\n+", "\n", response)
        yield f"{row['instruction']}\n\n{response}"


def _in_words(found: re.Match[str]) -> str:
    words = found[1].replace("Anonymized", "").strip()
    return _PLACEHOLDERS.get(words.lower(), words)


def word_problems(path: Path) -> Iterator[str]:
    """The questions of GSM8K: short stories in everyday English."""
    for row in read_rows(path):
        yield row["question"]


def open_assistant(path: Path) -> Iterator[str]:
    """The first question of each conversation tree with its best reply, where both are plain English prose."""
    for row in read_rows(path):
        prompt = row["prompt"]
        replies = sorted(prompt.get("replies", []), key=lambda reply: reply.get("rank") or 0)
        text = "\n\n".join([prompt["text"], *(reply["text"] for reply in replies[:1])])
        if text.isascii() and "```" not in text and not prompt.get("deleted"):
            yield text
