"""The quiz on the guideline: its file, how it is graded, and that nobody works before they pass; on both databases."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from plumbline.errors import StoreError, UserError
from plumbline.preferences.arena import Arena, Round
from plumbline.preferences.arena_rules import ArenaRules, Contender
from plumbline.preferences.erasure import erase
from plumbline.preferences.quiz_file import Question, Quiz, read_quiz
from plumbline.preferences.records import Assignment, NeedsConsent, NeedsQuiz, NoWork
from plumbline.preferences.rules import Rules
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.tables import QuizResult
from plumbline.recipe import Recipe
from plumbline.recipe_annotate import AnnotateSection, QuizSection
from tests.preferences.conftest import best_first, new_tasks, rows_of
from tests.small_domain import small_recipe

QUIZ = Quiz(
    (
        Question("Right or kind?", ("right", "kind"), frozenset({1}), "A wrong answer helps nobody."),
        Question("When do you skip?", ("never", "no idea", "wrong language"), frozenset({2, 3}), "Both are reasons."),
        Question("Long or short?", ("long", "short", "as needed"), frozenset({3}), "As long as it needs to be."),
        Question("Ties?", ("allowed", "forbidden"), frozenset({1}), "Equal responses share a rank."),
    ),
    pass_share=0.75,
    attempts=2,
)
RIGHT = [[1], [2, 3], [3], [1]]
ALMOST = [[1], [2], [3], [1]]
WRONG = [[2], [1], [1], [2]]


@pytest.fixture
def service(store, clock):
    service = PreferenceService(store, project="support", rules=Rules(quiz=QUIZ), clock=clock)
    service.add_tasks(new_tasks(4))
    return service


@pytest.fixture
def ada(service):
    return service.sign_in("Ada").annotator_id


def tried(service, who, answers, number=1):
    return service.quizzes.answer(who, QUIZ.shown_content, number, answers)


def other(service, **changes):
    """The same project with another quiz in its recipe."""
    rules = Rules(quiz=replace(QUIZ, **changes))
    return PreferenceService(service.store, project="support", rules=rules, clock=service.clock)


def test_the_quiz_follows_the_guideline_and_comes_before_all_work(service, ada):
    service.guidelines.publish("# Be right")
    assert isinstance(service.lease_next(ada), NeedsConsent)
    with pytest.raises(StoreError, match="accept the guideline first"):
        tried(service, ada, RIGHT)
    service.guidelines.consent(ada, 1)
    arena = Arena(
        service.store, project="support", rules=ArenaRules((Contender("sft"), Contender("dpo")), "sft", quiz=QUIZ)
    )
    prompt = [{"role": "user", "content": "Where is it?"}]
    for asked in (service.lease_next(ada), service.lease_adjudication(ada, lead=True), arena.start(ada, prompt)):
        assert isinstance(asked, NeedsQuiz) and isinstance(asked, NoWork)
        assert (asked.number, asked.left, asked.needed) == (1, 2, 3)
        assert asked.questions[1] == ("When do you skip?", ("never", "no idea", "wrong language"), True)
    assert service.control.held() == []
    graded = tried(service, ada, ALMOST)
    assert (graded.right, graded.of, graded.passed) == (3, 4, True)
    assert [(one.number, one.chosen, one.question.explanation) for one in graded.wrong] == [
        (2, {2}, "Both are reasons.")
    ]
    held = service.lease_next(ada)
    assert isinstance(held, Assignment) and isinstance(arena.start(ada, prompt), Round)
    with pytest.raises(StoreError, match="passed the quiz already"):
        tried(service, ada, RIGHT, 2)
    service.guidelines.publish("# Be right and kind")  # asks for consent, but not for the quiz again
    assert isinstance(service.lease_next(ada), NeedsConsent)
    service.guidelines.consent(ada, 2)
    assert service.lease_next(ada) == replace(held, expires_at=service.lease_next(ada).expires_at)


def test_whoever_has_used_up_their_tries_waits_for_the_lead(service, ada):
    assert not tried(service, ada, WRONG).passed
    asked = service.lease_next(ada)
    assert (asked.number, asked.left) == (2, 1)
    assert tried(service, ada, WRONG, 2).left == 0
    waiting = service.lease_next(ada)
    assert (waiting.kind, waiting.values) == ("quiz-failed", {"right": 0, "of": 4, "needed": 3})
    with pytest.raises(StoreError, match="no more tries"):
        tried(service, ada, RIGHT, 3)
    standing = service.quizzes.standings()[ada]
    assert (standing.state, standing.tries, standing.left, standing.share) == ("waits", 2, 0, 0.0)
    service.quizzes.let_try_again(ada)
    with pytest.raises(StoreError, match="tries left"):
        service.quizzes.let_try_again(ada)
    assert (service.lease_next(ada).number, service.lease_next(ada).left) == (3, 2)
    assert tried(service, ada, RIGHT, 3).passed
    standing = service.quizzes.standings()[ada]
    assert (standing.state, standing.tries, standing.share, standing.at) == ("passed", 3, 1.0, service.clock())
    for decide in (service.quizzes.let_in, service.quizzes.let_try_again):
        with pytest.raises(StoreError, match="have passed"):
            decide(ada)


def test_a_lead_lets_people_in_and_simulated_annotators_need_not_pass(service, ada):
    robot = service.sign_in("robot", simulated=True).annotator_id
    assert isinstance(service.lease_next(robot), Assignment)
    assert {one.state for one in service.quizzes.standings().values()} == {"not yet", "exempt"}
    with pytest.raises(StoreError, match="simulated"):
        service.quizzes.let_in(robot)
    service.quizzes.let_in(ada)
    assert isinstance(service.lease_next(ada), Assignment)
    assert service.quizzes.standings()[ada].state == "let in"


def test_a_try_that_is_sent_again_counts_once_and_cannot_be_used_to_guess(service, ada):
    first = tried(service, ada, ALMOST[:1] + WRONG[1:])
    assert tried(service, ada, ALMOST[:1] + WRONG[1:]) == first  # the answer was lost on its way
    for answers, number in ((RIGHT, 1), (RIGHT, 3), (WRONG, 99)):
        with pytest.raises(StoreError, match="is over"):
            tried(service, ada, answers, number)
    assert service.quizzes.standings()[ada].tries == 1
    unfit = {
        "question 1 has no answer": [[], [2], [3], [1]],
        "no such option": [[3], [2], [3], [1]],
        "one right answer": [[1, 2], [2], [3], [1]],
        "3 answers to 4 questions": RIGHT[:3],
    }
    for fault, answers in unfit.items():
        with pytest.raises(StoreError, match=fault):
            tried(service, ada, answers, 2)
    with pytest.raises(StoreError, match="has changed"):
        service.quizzes.answer(ada, "of another quiz", 2, RIGHT)
    assert service.quizzes.standings()[ada].tries == 1


def test_tries_sent_at_once_are_counted_one_by_one(service, ada):
    outcomes: list[object] = []

    def attempt(answers):
        try:
            outcomes.append(tried(service, ada, answers).passed)
        except StoreError as fault:
            outcomes.append(str(fault))

    wrong = [[[2], [option], [1], [2]] for option in (1, 2, 3)]
    threads = [threading.Thread(target=attempt, args=(answers,)) for answers in wrong]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(False) == 1 and service.quizzes.standings()[ada].tries == 1


def test_a_changed_quiz_is_asked_again_only_where_the_recipe_says_so(service, ada):
    tried(service, ada, RIGHT)
    reworded = (replace(QUIZ.questions[0], explanation="Said in other words."), *QUIZ.questions[1:])
    shorter = QUIZ.questions[:3]
    assert isinstance(other(service, questions=shorter).lease_next(ada), Assignment)
    assert other(service, questions=shorter).quizzes.standings()[ada].state == "passed"
    assert isinstance(other(service, questions=reworded, ask_again=True).lease_next(ada), Assignment)
    again = other(service, questions=shorter, ask_again=True)
    assert (again.lease_next(ada).kind, again.lease_next(ada).left) == ("quiz", 2)
    assert again.quizzes.standings()[ada].state == "not yet"
    shown = again.rules.quiz.shown_content
    assert again.quizzes.answer(ada, shown, 1, RIGHT[:3]).passed
    assert isinstance(again.lease_next(ada), Assignment)
    assert isinstance(other(service, ask_again=True).lease_next(ada), Assignment)  # back to the one passed before
    assert other(service, ask_again=True).quizzes.standings()[ada].state == "passed"


def test_results_are_logged_and_go_with_the_person(service, ada):
    tried(service, ada, WRONG)
    tried(service, ada, RIGHT, 2)
    work = service.lease_next(ada)
    service.judge(work.lease_id, ada, best_first(work), idempotency_key="1")
    said = [entry for entry in entries(service.store) if entry.subject == ada and entry.action.startswith("quiz")]
    assert [entry.action for entry in said] == ["quiz failed", "quiz passed"]
    assert said[1].details == {"quiz": QUIZ.content, "right": 4, "of": 4, "tries": 2}
    assert rows_of(service.store, QuizResult) == 1
    erase(service.store, "Ada", remove_judgements=False)
    assert rows_of(service.store, QuizResult) == 0
    assert service.quizzes.standings()[ada].state == "not yet"  # what was kept of them says nothing of the quiz
    with pytest.raises(StoreError, match="not known"):
        service.quizzes.let_in(ada)


def entries(store):
    from sqlalchemy import select

    from plumbline.preferences.account_tables import AuditEntry

    with store.read() as connection:
        return connection.execute(select(AuditEntry.__table__).order_by(AuditEntry.id)).all()


def test_the_quiz_adds_no_statement_to_the_hot_path(file_store, clock):
    counts = []
    for name, rules in (("without", Rules()), ("with", Rules(quiz=QUIZ))):
        service = PreferenceService(file_store, project=name, rules=rules, clock=clock)
        service.add_tasks([replace(task, project=name) for task in new_tasks(3)])
        who = service.sign_in("Ada").annotator_id
        if rules.quiz:
            tried(service, who, RIGHT)
        work = service.lease_next(who)
        said: list[str] = []
        listen = ("before_cursor_execute", lambda *args, said=said: said.append(args[2]))
        event.listen(file_store.engine, *listen)
        give = lambda work=work, who=who, service=service: service.judge(  # noqa: E731
            work.lease_id, who, best_first(work), idempotency_key=work.lease_id
        )
        assert isinstance(service.then_next(who, give), Assignment)
        event.remove(file_store.engine, *listen)
        counts.append(len(said))
    assert counts[0] == counts[1] > 0


# -- the file ----------------------------------------------------------------------------------------------------------

FINE = {"question": "Right or kind?", "options": ["right", "kind"], "right": 1, "explanation": "Because."}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"right": None}, "field 'right' is missing"),
        ({"rigth": 1}, "unknown field 'rigth'; did you mean 'right'"),
        ({"options": ["one"]}, "no list of 2 to 6 texts"),
        ({"options": list("abcdefg")}, "no list of 2 to 6 texts"),
        ({"options": ["yes", True]}, "option 2 is True, which YAML and JSON take for no text: put it in quotes"),
        ({"options": ["a", " "]}, "option 2 is empty"),
        ({"options": ["a", "a "]}, "two options are the same"),
        ({"question": 3}, "`question` is 3"),
        ({"explanation": ""}, "`explanation` is empty"),
        ({"right": 3}, "names option 3, and there are 2 options"),
        ({"right": 0}, "names option 0"),
        ({"right": True}, "expected the number"),
        ({"right": "kind"}, "expected the number"),
        ({"right": []}, "expected the number"),
        ({"right": [1, 1]}, "an option twice"),
        ({"question": "Fine?"}, "the same question is in line 1 already"),
    ],
)
@pytest.mark.parametrize("suffix", [".yaml", ".jsonl"])
def test_a_faulty_quiz_names_the_line(tmp_path, changes, fault, suffix):
    path = tmp_path / f"quiz{suffix}"
    rows = [{**FINE, "question": "Fine?"}, {**FINE, **changes}]
    path.write_text(written(rows, suffix))
    line = path.read_text().splitlines().index(written([rows[1]], suffix).splitlines()[0], 1) + 1
    with pytest.raises(UserError, match=fault) as raised:
        read_quiz(QuizSection(file=path))
    assert str(raised.value).startswith(f"{path}:{line}: ")


class Quoted(yaml.SafeDumper):
    """Puts every text in quotes, as our messages ask: PyYAML leaves `0E0` bare, which YAML 1.2 takes for a number."""


Quoted.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


def written(rows, suffix):
    if suffix == ".yaml":
        return yaml.dump(rows, Dumper=Quoted, sort_keys=False, allow_unicode=True)
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_all_faults_of_a_quiz_are_told_at_once(tmp_path):
    path = tmp_path / "quiz.yaml"
    path.write_text("- question: a\n- just text\n- {question: b, options: [x, y], right: 4, explanation: z}\n")
    with pytest.raises(UserError, match="the quiz has 3 faults") as raised:
        read_quiz(QuizSection(file=path))
    assert all(f"{path}:{line}: " in str(raised.value) for line in (1, 2, 3))
    for text, fault in (
        ("", "has no questions"),
        ("question: a", "is no list"),
        ("- [", "quiz.yaml:1: not valid YAML"),
        ("- {question: a, question: b}", "given twice"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=fault):
            read_quiz(QuizSection(file=path))


def test_the_recipes_quiz_is_among_the_rules(tmp_path):
    path = tmp_path / "quiz.jsonl"
    path.write_text(written([FINE], ".jsonl"))
    recipe = Recipe.model_validate(small_recipe())
    asked = QuizSection(file=path, pass_share=1, attempts=5, ask_again=True)
    quiz = Rules.of(recipe.model_copy(update={"annotate": AnnotateSection(quiz=asked)})).quiz
    assert (quiz.questions[0].right, quiz.pass_share, quiz.attempts, quiz.ask_again) == ({1}, 1, 5, True)
    assert Rules.of(recipe).quiz is None


TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=20
).filter(str.strip)


@st.composite
def questions(draw):
    options = draw(st.lists(TEXT.map(str.strip), min_size=2, max_size=6, unique=True))
    right = draw(st.sets(st.integers(1, len(options)), min_size=1))
    return {"question": draw(TEXT), "options": options, "right": sorted(right), "explanation": draw(TEXT)}


@given(st.lists(questions(), min_size=1, max_size=5, unique_by=lambda one: one["question"].strip()), st.randoms())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_yaml_and_json_lines_give_the_same_quiz_and_only_the_right_options_are_right(tmp_path, rows, chance):
    quizzes = []
    for suffix in (".yaml", ".jsonl"):
        path = tmp_path / f"quiz{suffix}"
        path.write_text(written(rows, suffix), encoding="utf-8")
        quizzes.append(read_quiz(QuizSection(file=path)))
    assert quizzes[0] == quizzes[1] and quizzes[0].content == quizzes[1].content
    quiz = quizzes[0]
    chosen = [set(chance.sample(range(1, 7), chance.randint(1, 3))) for _ in rows]
    wrong = [place for place, row in enumerate(rows) if set(row["right"]) != chosen[place]]
    assert list(quiz.wrong(chosen)) == wrong
    assert quiz.wrong([row["right"] for row in rows]) == ()
    assert quiz.needed - 1 < 0.8 * len(rows) <= quiz.needed + 1e-9


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda one: (
            st.lists(one, max_size=3)
            | st.dictionaries(st.sampled_from(["question", "options", "right", "explanation", "x"]), one, max_size=4)
        ),
        max_leaves=12,
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_stands_in_the_file_is_a_quiz_or_a_fault_that_names_the_file(tmp_path, content):
    path: Path = tmp_path / "quiz.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(UserError, match=r"quiz\.yaml"):
        read_quiz(QuizSection(file=path))


def test_what_must_be_right_is_rounded_up():
    for share, of, needed in (
        (0.8, 5, 4),
        (0.8, 4, 4),
        (0.7, 10, 7),
        (0.5, 3, 2),
        (0.01, 3, 1),
        (1, 3, 3),
        (0.29, 100, 29),
    ):
        assert replace(QUIZ, questions=QUIZ.questions[:1] * of, pass_share=share).needed == needed


def test_what_the_page_is_told_does_not_depend_on_what_is_right():
    changed = replace(QUIZ, questions=tuple(replace(one, right=frozenset({2})) for one in QUIZ.questions))
    assert changed.shown_content == QUIZ.shown_content and changed.content != QUIZ.content
