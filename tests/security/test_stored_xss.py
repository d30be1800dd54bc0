"""Whatever anybody wrote is text, on every page, in a real browser: nothing acts, and no other address is asked.

Label Studio CVE-2024-26152 (a task's text in its ranking template) and CVE-2025-25296, FastChat PR #3820 (a model's
reply), Gradio #11168 (remote images and styles in Markdown).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from annotate_ui.app import build_app
from annotate_ui.arena import ArenaSetup
from annotate_ui.markdown import safe_html
from annotate_ui.setup import Setup
from plumbline.preferences.accounts import ADMIN, LEAD, Accounts
from plumbline.preferences.arena import Arena, Said
from plumbline.preferences.arena_rules import ArenaRules, Contender
from plumbline.preferences.login_sessions import LoginSessions
from plumbline.preferences.records import Assignment, NewResponse, NewTask
from plumbline.preferences.rules import Rules
from plumbline.preferences.service import PreferenceService
from plumbline.preferences.store import Store
from plumbline.recipe_annotate import AnnotateSection, RubricAxis
from tests.annotate_ui.conftest import served
from tests.annotate_ui.test_arena.conftest import StandIn
from tests.cheap_passwords import PASSWORD, cheap_passwords
from tests.security.payloads import EVERYTHING, LONG, SHORT

AXIS = RubricAxis(name="helpful", question=SHORT[1], low=SHORT[2], high=SHORT[5])


class Visit:
    """A page of a browser, and whatever went wrong on it."""

    def __init__(self, context: Any, address: str) -> None:
        self.address, self.faults = address, []
        self.page = context.new_page()
        self.page.set_default_timeout(60_000)
        self.page.expose_function("__pwned", lambda *what: self.faults.append(f"ran {what}"))
        self.page.on("dialog", lambda dialog: (self.faults.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.on("request", self._asked)
        self.page.on("console", self._said)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.faults.append(f"asked {request.url}")

    def _said(self, line: Any) -> None:
        if "Content Security Policy" in line.text:  # the policy held, but something had got into the page
            self.faults.append(line.text)

    def check(self, place: str, *, seen: str = "__pwned(1)") -> None:
        """The texts are there to be read, and nothing of them has become a part of the page."""
        self.page.wait_for_function("seen => document.body.textContent.includes(seen)", arg=seen)
        self.page.wait_for_timeout(150)  # what would load or time out
        live = self.page.evaluate(LIVE)
        assert (place, live, self.faults) == (place, [], [])


LIVE = """() => {
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const marks = [...element.attributes].filter((one) => one.value.includes("__pwned") || one.name === "ping");
    const handlers = [...element.attributes].filter((one) => /^on/.test(one.name));
    if (handlers.length) found.push(`handler ${element.outerHTML.slice(0, 200)}`);
    if (element.tagName === "A" && !/^(https?:|mailto:|)$/.test(element.href && new URL(element.href).protocol))
      found.push(`link ${element.outerHTML.slice(0, 200)}`);
    if (element.closest(".pl-text, .pl-own, .pl-table, .pl-people, .pl-decided, .pl-flags, .pl-reveal, pl-head"))
      if (/^(SCRIPT|STYLE|IFRAME|OBJECT|EMBED|LINK|META|BASE|VIDEO|IMG|MATH)$/i.test(element.tagName))
        found.push(`element ${element.outerHTML.slice(0, 200)}`);
    if (marks.some((one) => /^(src|action|formaction|style|srcdoc|ping)$/.test(one.name)))
      found.push(`attribute ${element.outerHTML.slice(0, 200)}`);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """An app, full of payloads in every place that takes a text; its address, and a session for each role."""
    folder = tmp_path_factory.mktemp("hostile")
    rules = Rules(rubric=(AXIS,), adjudicate_above=0.1)
    service = PreferenceService(Store.open(folder / "preferences.db"), project="support", rules=rules)
    service.set_overlap(2)
    service.add_tasks([_task(EVERYTHING, number) for number in range(2)])
    service.add_tasks([_task(payload, number) for number, payload in enumerate((*SHORT, *LONG))])
    accounts = Accounts(service.store, passwords=cheap_passwords())
    accounts.create(SHORT[0], ADMIN, password=PASSWORD)
    accounts.create(SHORT[1], LEAD, password=PASSWORD)
    for name in SHORT[2:]:
        accounts.create(name, password=PASSWORD)
    ids = {account.name: account.annotator_id for account in accounts.all()}
    _work(service, [ids[name] for name in SHORT[2:]])
    stand_in = StandIn()
    stand_in.texts, stand_in.step = {"sft": EVERYTHING}, 10_000
    contenders = (Contender("sft"), Contender(SHORT[1]))
    prompts = ([{"role": "system", "content": EVERYTHING}, {"role": "user", "content": "\n".join(SHORT)}],)
    rules_ = ArenaRules(contenders, "sft", prompts=prompts, turns=3)  # type: ignore[arg-type]
    arena = Arena(service.store, project="support", rules=rules_)
    for name in SHORT[2:5]:
        battle = arena.start(ids[name], [{"role": "user", "content": EVERYTHING[:8000]}]).battle_id
        arena.said(battle, Said(EVERYTHING, True), Said("other", True))
        arena.vote(ids[name], battle, "left")
    setup = Setup(SHORT[0], guideline=EVERYTHING, rubric=(AXIS,), strength=True)
    settings = AnnotateSection(accounts=True)
    app = build_app(service, setup, settings, accounts=accounts, arena=ArenaSetup(arena, stand_in))
    login = LoginSessions(service.store, accounts=True)
    with served(app) as address:
        yield (
            address,
            {role: login.start(ids[name]) for role, name in zip(("admin", "lead", "bob"), SHORT, strict=False)},
        )
    service.store.close()


def _task(text: str, number: int) -> NewTask:
    conversation = [{"role": role, "content": f"{number} {text}"} for role in ("system", "user", "assistant", "user")]
    return NewTask(conversation, [NewResponse(f"{text}\n\n{letter}", text) for letter in "ab"], "support")  # type: ignore[arg-type]


def _work(service: PreferenceService, people: list[str]) -> None:
    """Judgements that disagree, with reasons, scores and improved texts; flags; a pause; pools; held tasks."""
    for place, who in enumerate(people[1:]):
        service.sign_in(next(name for name in SHORT[3:] if who == _id(service, name)))
        for _ in range(3):
            work = service.lease_next(who)
            assert isinstance(work, Assignment)
            order = work.cards if place % 2 else work.cards[::-1]
            ranking = {card.response_id: rank for rank, card in enumerate(order, 1)}
            said = {"reason": EVERYTHING[:4000], "edited": f"{EVERYTHING} improved", "idempotency_key": work.lease_id}
            service.judge(work.lease_id, who, ranking, seconds=9, **said)
    for who, kind in zip(people[:4], SHORT, strict=False):
        work = service.lease_next(who)
        assert isinstance(work, Assignment)
        service.flag(work.lease_id, who, kind=kind, note=EVERYTHING[:4000], idempotency_key="flag")
        service.lease_next(who)
    service.control.pause(people[3], EVERYTHING[:1000])
    for name in SHORT:
        service.control.set_pool(name, people[:2])


def _id(service: PreferenceService, name: str) -> str:
    return service.sign_in(name).annotator_id


@pytest.fixture
def visit(browser: Any, hostile: tuple[str, dict[str, str]]) -> Iterator[Any]:
    address, tokens = hostile
    contexts = []

    def as_role(role: str | None) -> Visit:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        contexts.append(context)
        if role:
            port = urlsplit(address).port
            cookie = {"name": f"plumbline_session_{port}", "value": tokens[role], "url": address}
            context.add_cookies([cookie])
        return Visit(context, address)

    yield as_role
    for context in contexts:
        context.close()


@pytest.mark.browser
def test_the_annotators_page(visit: Any) -> None:
    visit = visit("bob")
    page = visit.page
    page.goto(f"{visit.address}annotate/")
    page.wait_for_selector("dialog[open]")
    visit.check("guideline to accept", seen="__pwned(45)")
    page.click("dialog[open] .pl-primary")
    page.wait_for_selector(".pl-card")
    visit.check("task")
    for key, dialog in (("g", "guideline"), ("d", "comparison"), ("s", "skip"), ("f", "flag"), ("w", "own work")):
        page.keyboard.press(key)
        page.wait_for_timeout(200)
        visit.check(dialog)
        page.keyboard.press("Escape")
    page.keyboard.press("1")
    page.keyboard.press("2")
    page.keyboard.press("e")
    page.keyboard.insert_text(EVERYTHING)
    page.wait_for_function("document.querySelector('[data-pl=edit-diff]').textContent.length > 300")
    visit.check("difference to the original")
    page.keyboard.press("Escape")
    page.reload()  # the draft comes back
    page.wait_for_selector(".pl-card")
    visit.check("draft")


@pytest.mark.browser
@pytest.mark.parametrize("role", ["lead", "admin"])
def test_the_leads_pages(visit: Any, role: str) -> None:
    visit = visit(role)
    page = visit.page
    page.goto(f"{visit.address}lead/")
    for tab, shown in (
        ("quality", ".pl-people"),
        ("queue", ".pl-flags .pl-decided"),
        ("decided", ".pl-decided"),
        ("guidelines", ".pl-version"),
        ("exports", ".pl-download"),
    ):
        page.click(f"#tab-{tab}")
        page.wait_for_selector(f"[data-panel={tab}] {shown}")
        page.eval_on_selector_all(f"[data-panel={tab}] details", "all => all.forEach(one => { one.open = true; })")
        visit.check(tab)
    page.click("#tab-guidelines")
    page.fill("#pl-guideline-text", EVERYTHING)
    page.click("button:text-is('Preview')")
    page.wait_for_selector("[data-preview] .pl-text")
    visit.check("preview")


@pytest.mark.browser
def test_the_pages_of_accounts(visit: Any) -> None:
    visit = visit("admin")
    page = visit.page
    page.goto(f"{visit.address}people")
    visit.check("people")
    page.locator("[data-do=reset]").first.click()
    page.wait_for_selector("dialog[open]")
    visit.check("sure?", seen="Reset the password of")
    page.keyboard.press("Escape")
    page.goto(f"{visit.address}account")
    visit.check("account")
    page.goto(f"{visit.address}account?changed=<script>__pwned(1)</script>&error=<img src=x onerror=__pwned(2)>")
    assert visit.faults == []


@pytest.mark.browser
def test_the_sign_in_page(visit: Any) -> None:
    visit = visit(None)
    visit.page.goto(f"{visit.address}?name={SHORT[0]}&error={SHORT[1]}")
    visit.page.fill("#name", f"{SHORT[4]} {SHORT[0]}")
    visit.page.fill("#password", SHORT[0])
    visit.page.click("button[type=submit]")
    visit.page.wait_for_selector("[role=alert]")
    assert visit.page.input_value("#name").startswith(SHORT[4])
    visit.check("sign-in", seen="Name or password is wrong")


@pytest.mark.browser
def test_the_arena(visit: Any) -> None:
    visit = visit("lead")
    page = visit.page
    page.goto(f"{visit.address}arena/")
    page.click("[data-do=draw]")
    page.wait_for_function("document.querySelector('#pl-say-text').value")
    visit.check("drawn prompt")
    page.fill("#pl-say-text", "\n\n".join(LONG)[:2000])
    page.click("[data-pl=send]")
    page.wait_for_selector("[data-pl=consent-dialog] [data-do=consent]:visible")
    visit.check("guideline")
    page.click("[data-pl=consent-dialog] [data-do=consent]")
    page.wait_for_selector("[data-vote=left]:visible")
    page.wait_for_selector("[data-side=left] .pl-text:not(.pl-plain) p")
    visit.check("replies")
    page.click("[data-vote=left]")
    page.wait_for_selector("[data-do=end]:visible")
    page.click("[data-do=end]")
    page.wait_for_selector(".pl-reveal table")
    visit.check("names told")
    page.click("#pl-tab-board")
    page.wait_for_selector(".pl-leaderboard table")
    visit.check("leaderboard", seen="__pwned(4)")


ALLOWED = {
    *("p", "br", "hr", "blockquote", "pre", "code", "em", "strong", "s", "ul", "ol", "li", "a", "h1", "h2", "h3"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}


@pytest.mark.parametrize("payload", [*SHORT, *LONG, EVERYTHING])
@pytest.mark.parametrize("keep_lines", [True, False])
def test_markdown_becomes_no_other_html_than_the_allowed(payload: str, keep_lines: bool) -> None:
    html = safe_html(payload, keep_lines=keep_lines)
    for tag, attributes in re.findall(r"<(\w+)([^>]*)>", html):
        assert tag in ALLOWED
        for name, value in re.findall(r'([\w-]+)="([^"]*)"', attributes):
            assert name in ("href", "title", "rel", "target", "tabindex", "start")
            assert name != "href" or re.match(r"https?://|mailto:", value)


BOTTOMLESS = (
    "[",
    "![",
    ">",
    "*a_ ",
    "`",
    "- ",
    "<",
    "&",
    "[[[[a](",
    "~~a ",
    "| a ",
    "1. ",
    "<!--",
    "[a]: b\n",
    "\\",
    "#",
)


@pytest.mark.parametrize("part", BOTTOMLESS)
def test_markdown_without_bottom_ends(part: str) -> None:
    assert len(safe_html(part * (20_000 // len(part)))) < 1_000_000
    assert safe_html("".join(" " * depth + part + "\n" for depth in range(200)))
