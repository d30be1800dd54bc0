from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from plumbline.conversations import conversation_fault, normalise, part_of, prompt_key, split_of


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def test_a_good_conversation_has_no_fault():
    assert conversation_fault([{"role": "system", "content": "Be kind."}, user("Hi"), assistant("Hello")]) is None


def test_faults_name_the_message_and_the_reason():
    assert "message 2: the assistant's content is empty" in conversation_fault([user("Hi"), assistant("  ")])
    assert "roles out of order: turn 2" in conversation_fault([user("a"), user("b")])
    assert "unknown role 'bot'" in conversation_fault([{"role": "bot", "content": "x"}])
    assert "expected text" in conversation_fault([{"role": "user", "content": ["x"]}])
    assert "only a system message" in conversation_fault([{"role": "system", "content": "x"}])
    assert "expected 'assistant'" in conversation_fault([user("Hi")], must_end_with="assistant")
    assert "list of messages" in conversation_fault("Hi")


def test_near_identical_prompts_share_a_key():
    assert prompt_key([user("Where  is my ORDER?!")]) == prompt_key([user("where is my order")])
    assert prompt_key([user("Where is my order")]) != prompt_key([user("Where is my parcel")])


def test_a_prompt_of_punctuation_alone_keeps_a_key_of_its_own():
    assert normalise("???") == "???"
    assert prompt_key([user("???")]) != prompt_key([user("!!!")])


def test_the_turns_of_one_dialogue_share_a_split():
    first = [user("My parcel is lost")]
    later = [*first, assistant("Which one?"), user("The red one")]
    with_system = [{"role": "system", "content": "Be kind."}, *first]
    assert split_of(first) == split_of(later) == split_of(with_system)
    assert part_of(first) == part_of(later)


def test_split_shares_are_what_was_asked_for():
    counts = Counter(split_of([user(f"prompt {n}")], validation=0.1, test=0.2) for n in range(20_000))
    assert abs(counts["test"] / 20_000 - 0.2) < 0.01
    assert abs(counts["validation"] / 20_000 - 0.1) < 0.01


def test_parts_do_not_follow_splits():
    train = [n for n in range(20_000) if split_of([user(f"prompt {n}")]) == "train"]
    judge = sum(part_of([user(f"prompt {n}")], judge=0.5) == "judge" for n in train)
    assert abs(judge / len(train) - 0.5) < 0.015


def test_part_shares_are_what_was_asked_for():
    counts = Counter(part_of([user(f"prompt {n}")], judge=0.3, watch=0.2) for n in range(20_000))
    assert abs(counts["judge"] / 20_000 - 0.3) < 0.01
    assert abs(counts["watch"] / 20_000 - 0.2) < 0.01


SHARES = st.floats(0, 0.45)


@given(st.text(min_size=1), SHARES, SHARES, SHARES)
def test_watching_takes_prompts_from_the_policies_alone(text, judge, watch, other):
    """The judge keeps its part whatever is watched, and the watched reward its own whatever the judge has."""
    prompt = [user(text)]
    part, without = part_of(prompt, judge=judge, watch=watch), part_of(prompt, judge=judge)
    assert without != "watch"
    assert (part == "judge") == (without == "judge")
    assert (part == "watch") == (part_of(prompt, judge=other, watch=watch) == "watch")
    if part == "watch":
        assert part_of(prompt, judge=judge, watch=max(watch, other)) == "watch", "a larger share keeps what it had"


@given(st.text(min_size=1), st.floats(0, 0.4), st.floats(0, 0.4))
def test_a_prompt_never_leaves_test_when_validation_grows(text, validation, test):
    grown = split_of([user(text)], validation=validation + 0.1, test=test)
    assert (split_of([user(text)], validation=validation, test=test) == "test") == (grown == "test")
