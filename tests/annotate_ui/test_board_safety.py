"""What others wrote never acts, wherever it is shown; and the page can be used by everybody (axe)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from annotate_ui.app import build_app
from annotate_ui.setup import Setup
from plumbline.preferences.records import NewResponse, NewTask
from plumbline.preferences.rules import Rules
from plumbline.preferences.service import PreferenceService
from plumbline.recipe_annotate import RubricAxis
from tests.annotate_ui.conftest import new_task, press, served

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]
ATTACK = (
    "<img src=x onerror=\"window.hacked='img'\"><script>window.hacked='script'</script>"
    "<svg onload=\"window.hacked='svg'\"> ${window.hacked='template'} {{7*7}} "
    "![x](https://attacker.example/pixel.png) [x](javascript:window.hacked='link') "
    "<style>body{display:none;background:url(https://attacker.example/s.png)}</style> </div></article></textarea>"
    "</dialog><iframe src=https://attacker.example></iframe> [y](https://attacker.example/y){onclick=1} "
    "\"' onfocus=window.hacked=1"
)
SEEN = "${window.hacked='template'} {{7*7}}"
RUBRIC = (RubricAxis(name="helpful", question=ATTACK[:200], low=ATTACK[:40], high=ATTACK[30:70]),)


def attack_task(number: int) -> NewTask:
    conversation = [
        {"role": "system", "content": ATTACK},
        {"role": "user", "content": ATTACK * 5},
        {"role": "assistant", "content": ATTACK},
        {"role": "user", "content": f"{number} {ATTACK}"},
    ]
    return NewTask(conversation, [NewResponse(f"{ATTACK} {letter}", ATTACK) for letter in "ab"], "support")


def test_what_others_wrote_never_acts(browser: Any, service: PreferenceService) -> None:
    service.rules = Rules(rubric=RUBRIC)
    service.add_tasks([attack_task(0), attack_task(1)])
    setup = Setup(ATTACK[:60], guideline=ATTACK, rubric=RUBRIC, strength=True)
    name = "<img src=x onerror=window.hacked=1>"
    with served(build_app(service, setup)) as address:
        page = browser.new_page()
        requested: list[str] = []
        page.on("request", lambda request: requested.append(request.url))
        page.on("dialog", lambda dialog: pytest.fail("a script opened a dialog"))
        page.goto(address)
        page.fill("#name", f"<script>window.hacked=1</script>:{name}")
        press(page, "Enter")
        page.wait_for_selector("#error")  # a name with a colon is refused, and shown again
        page.fill("#name", name)
        press(page, "Enter")
        page.wait_for_selector("dialog[open]")
        assert SEEN in page.inner_text(".pl-reading")
        page.click("dialog[open] .pl-primary")
        page.wait_for_selector(".pl-card")
        page.wait_for_function("document.querySelector('[data-pl=name]').textContent !== ''")
        assert page.inner_text("[data-pl=name]") == name
        assert SEEN in page.inner_text(".pl-card >> nth=0")
        assert SEEN in page.locator("#pl-sidebar .pl-guideline").text_content()
        page.click(".pl-earlier summary")
        press(page, "1 2 e")
        page.keyboard.type(ATTACK)
        page.wait_for_function("document.querySelector('[data-pl=edit-diff]').textContent.length > 300")
        press(page, "Escape d")
        page.wait_for_selector("dialog[open]")
        assert SEEN in page.inner_text("[data-pl=diff]")
        press(page, "Escape n")
        page.keyboard.type(ATTACK)
        press(page, "Escape r 3 3 4 Enter")
        page.wait_for_selector("[data-lease] [data-pl=mine]:has-text('1')")
        press(page, "w")
        page.wait_for_selector(".pl-own")
        page.wait_for_timeout(300)
        assert page.evaluate("window.hacked") is None
        assert page.locator(":is(.pl-text, .pl-diff, .pl-work) :is(img, script, svg, style, iframe)").count() == 0
        links = page.locator("pl-board a[href], #pl-sidebar a[href]").evaluate_all("all => all.map(a => a.href)")
        assert {link for link in links if not link.startswith(address)} == {"https://attacker.example/y"}
        assert page.locator("[onclick], [onfocus], [onerror], [onload]").count() == 0
        assert all(url.startswith(address) for url in requested)
        page.close()


def test_a_file_of_texts_is_shown_as_text(browser: Any, service: PreferenceService, tmp_path: Any) -> None:
    """Whoever translates the interface cannot put HTML into it."""
    import json

    from annotate_ui.i18n import LOCALES

    content = json.loads((LOCALES / "en.json").read_text())
    content["texts"] = {key: f"{text} <img src=x onerror=window.hacked=1>" for key, text in content["texts"].items()}
    (tmp_path / "texts.json").write_text(json.dumps(content))
    service.add_tasks([new_task("kettle", 2)])
    with served(build_app(service, Setup("Support", language=str(tmp_path / "texts.json")))) as address:
        page = browser.new_page()
        page.goto(address)
        page.fill("#name", "Ada")
        press(page, "Enter")
        page.wait_for_selector(".pl-card")
        press(page, "1 2 Enter")
        page.wait_for_selector(".pl-empty")
        assert page.locator("img").count() == 0
        assert page.evaluate("window.hacked") is None
        page.close()


def serious(page: Any) -> list[str]:
    """What axe finds that keeps people out."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{fault['id']}: {node['target']} {node['failureSummary']}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "setup",
    [
        Setup(
            "Support",
            guideline="# How to rank\n\nBest first, says the [manual](https://example.org).",
            strength=True,
            rubric=(RubricAxis(name="helpful", question="Is it helpful?", low="not at all", high="fully"),),
        )
    ],
    ids=["full"],
)
def test_axe_finds_no_serious_fault(browser: Any, service: PreferenceService, address: str, scheme: str) -> None:
    service.add_tasks(
        [
            new_task(
                "kettle", ["Fill it.\n\n```\n" + "code " * 50 + "\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |", "Buy one."]
            )
        ]
    )
    page = browser.new_page(color_scheme=scheme)
    found: dict[str, list[str]] = {}

    def check(place: str) -> None:
        page.wait_for_timeout(250)  # colours change in a moment
        found[place] = serious(page)

    page.goto(address)
    check("sign-in")
    page.fill("#name", "Ada")
    press(page, "Enter")
    page.wait_for_selector("dialog[open]")
    check("consent")
    page.click("dialog[open] .pl-primary")
    page.wait_for_selector(".pl-card")
    press(page, "1 2 2 e")
    check("board")
    press(page, "Escape")
    for key in "dsf?w":
        press(page, key)
        page.wait_for_selector("dialog[open]")
        check(f"dialog {key}")
        press(page, "Escape")
    press(page, "r 3 4 Enter")
    page.wait_for_selector(".pl-empty")
    check("empty")
    page.close()
    assert {place: faults for place, faults in found.items() if faults} == {}
