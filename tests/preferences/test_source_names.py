"""Names that would tell which model wrote a response: which are found, and that nothing of them is shown too early."""

from __future__ import annotations

import pickle
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.preferences.quality.masked import MaskCount, MaskedTasks
from plumbline.preferences.records import NewResponse, NewTask
from plumbline.preferences.source_names import MASK, SourceNames
from plumbline.recipe import Recipe
from tests.preferences.conftest import new_task
from tests.small_domain import small_recipe

NAMES = SourceNames(own=("dpo", "Qwen2.5-0.5B-Instruct", "Qwen", "Nordlys"), plain=("helpful",))


def asked(text="Who are you?"):
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize(
    "text",
    [
        "As {Qwen}, I look it up.",
        "I am {ChatGPT}, a large language model made by {OpenAI}.",
        "**{ChatGPT}** and {GPT-4o-mini}, {gpt 4 turbo}, {GPT‑3.5}: all by {openai}'s people.",
        "My name is *{Claude}*, and I was trained by {Anthropic}.",
        "I'm {Llama 3.1 70B Instruct} by the way.",
        "Ask {Claude 3.5 Sonnet} or {Gemini 1.5 Pro}.",
        "As {Gemini}, I cannot say.",
        "As an AI language model developed by the company {Meta}, I do not know.",
        "Ich bin {Claude}. Ich wurde von {Google} entwickelt.",
        "Als {Gemini}, ein Sprachmodell, weiß ich das nicht.",
        "The {dpo} run, {qwen-based} or {Qwen2.5-0.5B-Instruct}? {NORDLYS}!",
        "I am {helpful}, the policy.",
        "{Claude} here! Happy to help.",
        "Hello there, this is {Claude} speaking.",
        "My creator is {Anthropic}, and I was trained by the team of {Google}.",
        "Ask {Chat GPT} or {chat-gpt}.",
    ],
)
def test_what_tells_the_model_is_masked(text):
    plain = text.replace("{", "").replace("}", "")
    assert NAMES.masked(plain, asked()) == re.sub(r"\{.*?\}", MASK, text)


@pytest.mark.parametrize(
    "text",
    [
        "Claude Monet painted it, as Claude Debussy said.",
        "I'm a Gemini, and a Leo too.",
        "A llama and an alpaca eat grass; llamas spit.",
        "Falcon 9 flew again, and Gemini 12 did in 1966.",
        "I work at Apple and can get it for you from Amazon.",
        "Android was developed by Google. I like it.",
        "The baseball team drafts; a model of the base policy.",
        "Be helpful, as helpful as you are.",
        "Qwentin plays the sdpo.",
        "This is Claude Monet, who was born here.",
        "Put the llama here, and Nova there.",
        "Meta analysis of the anthropic principle.",
    ],
)
def test_ordinary_words_stay(text):
    assert not NAMES.found(text, asked())
    assert NAMES.masked(text, asked()) == text


def test_what_the_conversation_asks_about_is_answered_but_not_said_of_oneself():
    prompt = [
        {"role": "user", "content": "Is ChatGPT better than Qwen?"},
        {"role": "assistant", "content": "Or OpenAI's others?"},
        {"role": "user", "content": "Yes."},
    ]
    text = "ChatGPT is by OpenAI. I am ChatGPT. Qwen is fine."
    # what only the assistant named, what it says of itself, and the run's own are masked all the same
    assert NAMES.masked(text, prompt) == f"ChatGPT is by {MASK}. I am {MASK}. {MASK} is fine."


def test_without_well_known_names_the_runs_own_are_left():
    names = SourceNames(own=("v2",), well_known=False)
    assert names.masked("I am ChatGPT. v2 is new.", asked()) == f"I am ChatGPT. {MASK} is new."
    assert not SourceNames(well_known=False).found("I am ChatGPT.", asked())


def test_the_names_of_a_recipe():
    plain = small_recipe(align=("dpo",))
    plain["align"] = [{**plain["align"][0], "name": name} for name in ("dpo-b1", "kind", "aligned")]
    plain["model"] = "Qwen/Qwen2.5-0.5B-Instruct"
    plain["annotate"] = {**plain.get("annotate", {}), "hide_names": ["Nordlys 2", "kto"]}
    names = SourceNames.of(Recipe.model_validate(plain))
    assert names == SourceNames(("dpo-b1", "Qwen2.5-0.5B-Instruct", "Qwen", "Nordlys 2", "kto"), ("sft", "kind"))
    plain["model"] = "meta-llama/Llama-3.2-1B"
    assert SourceNames.of(Recipe.model_validate(plain)).plain == ("sft", "kind", "Llama")  # an animal too
    plain["annotate"]["mask_names"] = False
    assert SourceNames.of(Recipe.model_validate(plain)) is None


def test_names_go_to_another_process():
    again = pickle.loads(pickle.dumps(NAMES))
    assert again == NAMES and again.masked("I am Qwen.", asked()) == f"I am {MASK}."


PIECES = st.sampled_from(
    "I am |as |As |Claude|Gemini| |3|.5|-|Chat|GPT|ChatGPT|Open|AI|made by |I was trained by |Google|,|.|\n|Qwen|2.5"
    f"|-0.5B|-Instruct|dpo|s|llama| 3| Sonnet|opus|a|the |helpful|ß|İ|_|*|Meta AI|😀|Nordlys|{MASK}".split("|")
)


@settings(max_examples=150, deadline=None)
@given(
    text=st.lists(PIECES, max_size=14).map("".join),
    prompt=st.sampled_from([asked(), asked("What of ChatGPT or Claude 3?")]),
)
def test_a_growing_text_shows_nothing_that_it_would_take_back(text, prompt):
    """However a text is cut into tokens: what was shown is the beginning of what is shown at the end."""
    whole = NAMES.masked(text, prompt)
    shown = ""
    for end in range(len(text) + 1):
        now = NAMES.masked_so_far(text[:end], prompt)
        assert now.startswith(shown) and whole.startswith(now)
        shown = now
        kept = text[: NAMES.length_of(text, prompt, len(shown))]
        assert NAMES.masked(kept, prompt).startswith(shown)  # what was seen is what a vote keeps
    assert NAMES.length_of(text, prompt, len(whole)) == len(text)


@pytest.mark.parametrize(
    ("part", "times"), [("I was made by Google", 500), ("ChatGPT-", 2000), ("Claude 1", 2000), ("a as Claude", 1000)]
)
def test_looking_through_takes_time_in_proportion_to_the_length(part, times):
    def seconds(text):
        began = time.process_time()
        NAMES.masked(text, asked())
        return time.process_time() - began

    once, tenfold = seconds(part * times), seconds(part * times * 10)
    assert tenfold < 40 * max(once, 0.002)


def test_the_lead_learns_how_many_tasks_have_masks(service):
    def task(number, text):
        return NewTask(asked(f"q{number}"), [NewResponse(text, "a"), NewResponse(f"other {number}", "b")], "support")

    counted = MaskCount(service.store, project="support", names=NAMES)
    service.add_tasks([task(1, "I am Qwen."), task(2, "Hello."), new_task("plain")])
    assert counted.count() == MaskedTasks(1, whole=True)
    service.add_tasks([task(3, "OpenAI made me."), task(4, "Bye.")])
    assert counted.count() == MaskedTasks(2, whole=True)
    assert counted.count(seconds=0) == MaskedTasks(2, whole=False)
    who = service.sign_in("Anna").annotator_id
    service.retire([service.lease_next(who).task_id])  # the first one
    assert counted.count() == MaskedTasks(1, whole=True)
