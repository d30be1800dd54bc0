"""Accounts as people use them, in a real Chromium."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from annotate_ui.app import build_app
from annotate_ui.setup import Setup
from plumbline.preferences.accounts import ADMIN, Accounts
from plumbline.preferences.service import PreferenceService
from plumbline.recipe_annotate import AnnotateSection
from tests.annotate_ui.conftest import new_task, served
from tests.cheap_passwords import PASSWORD, cheap_passwords

pytestmark = pytest.mark.browser
OTHER = "nine green lanterns"


def sign_in(page: Any, name: str, password: str) -> None:
    page.fill("#name", name)
    page.fill("#password", password)
    page.click("button:has-text('Sign in')")


def choose(page: Any, password: str, button: str) -> None:
    page.fill("#new", password)
    page.fill("#again", password)
    page.click(f"button:has-text('{button}')")


def focus_of(page: Any) -> str:
    """What those who hear the page hear of the element that has the focus."""
    return str(page.evaluate("document.activeElement.ariaLabel"))


def serious_faults(page: Any) -> list[str]:
    """What axe finds for those who hear the page or use no mouse."""
    found = Axe().run(page).response["violations"]
    return [fault["id"] for fault in found if fault["impact"] in ("serious", "critical")]


def test_an_account_from_the_admin_s_page_to_a_password_of_its_own(browser: Any, service: PreferenceService) -> None:
    service.add_tasks([new_task("kettle"), new_task("parcel")])
    accounts = Accounts(service.store, passwords=cheap_passwords())
    accounts.create("Ada", ADMIN, password=PASSWORD)
    app = build_app(service, Setup("Support"), settings=AnnotateSection(accounts=True), accounts=accounts)
    refused: list[str] = []
    with served(app) as address:
        contexts = [browser.new_context(viewport={"width": 1280, "height": 900}) for _ in range(2)]
        admin, bob = (context.new_page() for context in contexts)
        for page in (admin, bob):
            page.set_default_timeout(60_000)
            page.on("console", lambda line: refused.append(line.text) if "Content Security" in line.text else None)
            page.goto(address)

        sign_in(admin, "Ada", "wrong password")
        assert admin.inner_text("[role=alert]") == "Name or password is wrong."
        sign_in(admin, "Ada", PASSWORD)
        admin.wait_for_selector("pl-lead .pl-tabs")
        admin.click("a:has-text('Ada')")
        admin.click("a:has-text('People')")
        admin.wait_for_url("**/people")  # with its script
        admin.click("text=New account")
        admin.fill("#new-name", "Bob <i>")
        assert serious_faults(admin) == []
        admin.click("dialog[open] button:has-text('Create')")
        given = admin.wait_for_selector("dialog[open] .pl-secret").inner_text()
        admin.click("text=Done")
        assert "one-time password" in admin.inner_text("[data-name='Bob <i>']")

        sign_in(bob, "Bob <i>", given)
        choose(bob, "short-one", "Keep this password")
        assert bob.locator("#new:invalid").count() == 1  # the browser tells first
        choose(bob, PASSWORD, "Keep this password")
        bob.wait_for_selector(".pl-card")
        bob.goto(f"{address}account")
        assert serious_faults(bob) == []
        bob.fill("#current", PASSWORD)
        choose(bob, OTHER, "Change the password")
        bob.wait_for_selector("text=Your password is changed")

        admin.reload()
        row = admin.locator("[data-name='Bob <i>']")
        role = row.locator("select")
        role.focus()
        admin.keyboard.press("ArrowDown")  # which chooses the next role at once
        admin.wait_for_selector("dialog[open] h2:text-is('Make Bob <i> a lead?')")
        admin.keyboard.press("Escape")
        admin.wait_for_function("document.querySelector('[data-name=\"Bob <i>\"] select').value === 'annotator'")
        assert focus_of(admin) == "Role of Bob <i>"
        admin.keyboard.press("ArrowDown")
        admin.click("dialog[open] button:text-is('Make lead')")
        admin.wait_for_selector("text=is a lead now")
        assert role.input_value() == "lead" and focus_of(admin) == "Role of Bob <i>"
        row.locator("[data-do=deactivate]").click()
        admin.click("dialog[open] button[value=ok]")
        admin.wait_for_selector("text=is closed")
        assert focus_of(admin) == "Open the account of Bob <i> again"
        bob.reload()
        bob.wait_for_selector("#password")
        sign_in(bob, "Bob <i>", OTHER)
        assert bob.inner_text("[role=alert]") == "Name or password is wrong."
        for context in contexts:
            context.close()
    assert refused == []
    assert [(one.name, one.role, one.active) for one in accounts.all()][1] == ("Bob <i>", "lead", False)
