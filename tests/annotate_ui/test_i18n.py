"""The words of the interface: both languages whole, files of one's own, and the service's sentences."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

import annotate_ui
import plumbline.preferences
from annotate_ui.app import build_app
from annotate_ui.i18n import LOCALES, PLACE, load_texts
from annotate_ui.setup import Setup
from plumbline.errors import UserError
from plumbline.preferences.accounts import Accounts
from plumbline.preferences.service import PreferenceService
from plumbline.recipe_annotate import AnnotateSection
from tests.annotate_ui.conftest import new_task
from tests.cheap_passwords import PASSWORD, cheap_passwords


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
    for file in [folder / "static/board.js", *folder.glob("static/board/*.js")]:
        for key in re.findall(r"""\bt\(\s*"(\w+)"[,)]""", file.read_text()):
            assert f"js.{key}" in texts, (file.name, key)


def test_every_translated_sentence_is_one_of_the_service() -> None:
    said = set()
    folders = (Path(plumbline.preferences.__file__).parent, Path(annotate_ui.__file__).parent)
    for file in (file for folder in folders for file in [*folder.glob("*.py"), *folder.glob("arena/*.py")]):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                said.add(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
                said.add("".join(map(str, parts)))
    for sentence in content_of("de")["service"]:
        assert PLACE.sub("{}", sentence) in said, sentence


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
