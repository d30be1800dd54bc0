"""The words of the interface: both languages whole, files of one's own, and the service's sentences."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

import annotate_ui
import plumbline.preferences
from annotate_ui.app import build_app
from annotate_ui.i18n import LOCALES, PLACE, load_texts
from annotate_ui.render import why_no_work
from annotate_ui.setup import Setup
from plumbline import errors
from plumbline.errors import StoreUnavailable, UserError
from plumbline.preferences.accounts import Accounts
from plumbline.preferences.checks import PAUSE
from plumbline.preferences.records import NoWork
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import UNAVAILABLE
from plumbline.recipe_annotate import AnnotateSection
from tests.annotate_ui.conftest import new_task
from tests.cheap_passwords import PASSWORD, cheap_passwords

FOR_OTHERS = {
    # whole modules: what the lead, an admin, another program or whoever runs the server is told
    *("api", "audit", "exports", "i18n", "people", "server", "store", "tokens", "webhook_sender", "webhooks"),
    *("checks_file", "erasure", "errors", "flag_decisions", "formats", "ingest", "intake", "leaderboard", "pairs"),
    *("queue_control", "quiz_file", "snapshot"),
    # parts of modules
    *("accounts.Accounts.create", "accounts.Accounts.named", "accounts._check_role", "accounts._keep_an_admin"),
    *("accounts._known", "arena.Arena.__init__", "checks.Checks", "checks._task", "guidelines.Guidelines.publish"),
    *("quiz.Quizzes.let_try_again", "quiz.Quizzes._person", "service.PreferenceService.purpose_of"),
    *("turn.Facet.__init__", "turn.holder_of", "validation.task_fault"),
    "calls._first_fault",  # what is wrong with a message that no page sends
    "waiting.why_nothing",  # put together there; the pages have texts of their own for each kind
}
"""Where sentences are not for annotators: a module, or a class or function in it."""

NO_WORK = ("NoWork", "NeedsConsent", "NeedsQuiz")


@dataclass(frozen=True)
class Said:
    """A string of the code, `{}` for what is put in.

    Attributes:
        scope: the classes and functions around it.
        raised: it is part of a `raise`.
        kind: the case, where it is the reason for which there is no work.
    """

    text: str
    scope: tuple[str, ...] = ()
    raised: bool = False
    kind: str | None = None

    @property
    def refuses(self) -> bool:
        """Whether it is a whole sentence, or says what is wrong inside of one."""
        fault = any(name.endswith("_fault") for name in self.scope)
        return " " in self.text and (self.raised or fault or self.text.endswith("."))


def strings_of(node: ast.AST, around: Said = Said("")) -> Iterator[Said]:
    """All strings of a piece of code, but its docstrings."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            continue
        inside = around
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            inside = replace(around, scope=(*around.scope, child.name))
        elif isinstance(child, ast.Raise):
            inside = replace(around, raised=True)
        elif isinstance(child, ast.Call) and ast.unparse(child.func) in NO_WORK:
            inside = replace(around, kind=ast.literal_eval(child.args[1]))
        if isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield replace(inside, text=child.value)
        elif isinstance(child, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in child.values)
            yield replace(inside, text="".join(map(str, parts)))
        else:
            yield from strings_of(child, inside)


def service_files() -> list[Path]:
    """The modules that tell annotators something."""
    app, service = Path(annotate_ui.__file__).parent, Path(plumbline.preferences.__file__).parent
    return [*app.glob("*.py"), *app.glob("arena/*.py"), *service.glob("*.py"), Path(errors.__file__)]


def content_of(language: str) -> dict[str, dict[str, str]]:
    content: dict[str, dict[str, str]] = json.loads((LOCALES / f"{language}.json").read_text())
    return content


def test_german_has_every_text_with_the_same_values() -> None:
    english, german = content_of("en")["texts"], content_of("de")["texts"]
    assert german.keys() == english.keys()
    for key, text in english.items():
        assert set(PLACE.findall(german[key])) <= set(PLACE.findall(text)), key
        assert german[key].strip(), key


def test_every_text_that_the_pages_ask_for_is_there() -> None:
    """Keys that are put together at run time are looked up by the other tests."""
    folder = Path(annotate_ui.__file__).parent
    texts = content_of("en")["texts"]
    for file in [*folder.glob("templates/*.j2"), *folder.glob("*.py")]:
        for key in re.findall(r"""\b(?:t|texts)\(\s*"([\w.-]+\.[\w.-]+)"[,)]""", file.read_text()):
            assert key in texts, (file.name, key)
    for script, start in (("board", "js"), ("arena", "arena.js")):
        for file in [folder / f"static/{script}.js", *folder.glob(f"static/{script}/*.js")]:
            for key in re.findall(r"""\bt(?:ext)?\(\s*"(\w+)"[,)]""", file.read_text()):
                assert f"{start}.{key}" in texts, (file.name, key)


def test_every_translated_sentence_is_one_of_the_service() -> None:
    said = {one.text for file in service_files() for one in strings_of(ast.parse(file.read_text()))}
    for sentence in content_of("de")["service"]:
        assert PLACE.sub("{}", sentence) in said, sentence


def test_every_sentence_that_refuses_an_annotator_is_translated() -> None:
    """A new refusal is translated in de.json, or its scope is added to `FOR_OTHERS`."""
    known = {PLACE.sub("{}", sentence) for sentence in content_of("de")["service"]}
    texts = content_of("en")["texts"]
    found = {
        f"{file.stem}.{'.'.join(one.scope)}: {one.text}"
        for file in service_files()
        for one in strings_of(ast.parse(file.read_text()))
        if one.refuses and one.text not in known
        if not {f"nowork.{one.kind}", f"nowork.{one.kind}.one"} & texts.keys()
        if one.kind or not any(".".join((file.stem, *one.scope[:depth])) in FOR_OTHERS for depth in range(3))
    }
    assert not found


def test_every_reason_for_which_the_store_is_away_is_told_in_german() -> None:
    german = load_texts("de").of_service
    for why in [StoreUnavailable("x").why, *(why for _, why, _ in UNAVAILABLE)]:
        assert german(why) != why, why


def test_a_sentence_of_the_service_is_told_in_german() -> None:
    german = load_texts("de").of_service
    assert german("Your time for this task is over, and what you entered is kept: load the next one.").startswith(
        "Deine Zeit"
    )
    assert german("the name 'Ada' belongs to a person in this store: choose another name.").startswith(
        "Der Name 'Ada' ist vergeben"
    )
    assert german("Nothing can be saved just now: the disk is full. What you entered stays on this page.") == (
        "Gerade lässt sich nichts speichern: Die Platte des Servers ist voll. Deine Eingaben bleiben auf dieser Seite."
    )
    paused = NoWork(f"You get no work at present: {PAUSE}", "paused", {"why": PAUSE})
    assert why_no_work(load_texts("de"), paused).startswith("Du bekommst zurzeit keine Aufgaben: Zu viele deiner")
    assert german("Something else happened.") == "Something else happened."


def test_values_reach_no_attributes_of_objects() -> None:
    texts = load_texts("en")
    assert texts("flag.title", x=1) == "Flag this item"
    assert texts("guideline.version", version="{version.__class__}") == "Version {version.__class__}"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("no JSON", "cannot be read as a file of texts"),
        ("[]", "no file of texts"),
        ('{"lang": "fr", "texts": {"nav.lead": 1}}', "no file of texts"),
        ('{"lang": "fr", "texts": {}}', r"\d+ texts missing: [a-z_]+[.]"),
    ],
)
def test_a_faulty_file_is_told_with_its_name(tmp_path: Path, content: str, told: str) -> None:
    file = tmp_path / "fr.json"
    file.write_text(content)
    with pytest.raises(UserError, match=f"fr.json.*{told}"):
        load_texts(str(file))


def test_an_unknown_language_is_told_with_those_that_there_are() -> None:
    with pytest.raises(UserError, match=r"annotate.language.*'xx'.*de, en"):
        load_texts("xx")


def test_the_pages_are_in_the_language_of_the_setup(service: PreferenceService) -> None:
    service.add_tasks([new_task("kettle", 2)])
    app = build_app(service, Setup("Support", language="de"))
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        assert '<html lang="de" dir="ltr">' in client.get("/").text
        refused = client.post("/annotate-work/next", json={})
        assert (refused.status_code, refused.json()["error"][:19]) == (401, "Du bist abgemeldet.")
        assert client.post("/annotate-work/next", content="x").json()["error"] == "Diese Adresse nimmt nur JSON."
        assert "Der Name fehlt" in client.post("/sign-in", data={"name": " "}).text
        assert '<html lang="de" dir="ltr"' in client.post("/sign-in", data={"name": "Ada"}).text
        shown = client.post("/annotate-work/next", json={}).json()["html"]
        assert "Ordne die 2 Antworten" in shown
        lease = re.search(r'data-lease="(\w+)"', shown)
        assert lease
        skipped = {"lease_id": lease[1], "key": "k", "reason": "x"}
        done = client.post("/annotate-work/skip", json=skipped).json()
        assert done["notice"] == "Ausgelassen."
        assert "Du hast alle deine Aufgaben erledigt. 1 Aufgabe ist für andere übrig." in done["html"]
        again = client.post("/annotate-work/skip", json={**skipped, "key": "other"}).json()
        assert again["error"].startswith("Diese Aufgabe ist schon bewertet")
        wrong = client.post("/annotate-work/skip", json={**skipped, "key": ""})
        assert wrong.status_code == 422 and wrong.json()["error"].startswith("Die Seite hat etwas gesendet")
        assert "Überall abmelden" in client.get("/account").text


def test_what_an_account_asks_and_refuses_is_in_the_language_of_the_setup(service: PreferenceService) -> None:
    accounts = Accounts(service.store, passwords=cheap_passwords())
    issued = accounts.issue_password(accounts.create("Ada").annotator_id)
    app = build_app(service, Setup("Support", language="de"), AnnotateSection(accounts=True), accounts=accounts)

    def change(client: TestClient, new: str, again: str, **more: str) -> str:
        return str(client.post("/account/password", data={"new": new, "again": again, **more}).text)

    base = "http://127.0.0.1:7860"
    with TestClient(app, base_url=base, headers={"origin": base}) as client:
        assert "Name oder Passwort ist falsch." in client.post("/sign-in", data={"name": "Ada", "password": "x"}).text
        first = client.post("/sign-in", data={"name": "Ada", "password": issued}).text
        assert "Willkommen, Ada." in first and '<html lang="de"' in first
        assert "Die beiden neuen Passwörter sind verschieden" in change(client, PASSWORD, "other")
        assert "Ein Passwort hat mindestens 10 Zeichen" in change(client, "short", "short")
        change(client, PASSWORD, PASSWORD)
        assert "Das jetzige Passwort ist falsch." in change(client, PASSWORD + "2", PASSWORD + "2", current="no")
        refused = client.post("/annotate-work/decide_as_lead", json={})
        assert (refused.status_code, refused.json()["error"]) == (403, "Dein Konto darf das nicht.")
        assert "Diese Seite ist für die Leitung" in client.get("/lead/").text
        for _ in range(5):
            told = client.post("/sign-in", data={"name": "Ada", "password": "x"}).text
        assert "Zu viele falsche Passwörter: Warte 5 s" in client.post("/sign-in", data={"name": "Ada"}).text, told
