"""The documentation is true: its code runs, its commands exist, its links lead somewhere."""

import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
from transformers import TrainingArguments

from rlhf.ppo import PPOConfig
from rlhf.ppo.train import DEFAULTS

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "examples" / "README.md",
]


def test_the_code_of_the_library_page_runs(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "library.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    names = {"BASE": ROOT / "domains" / "support" / "base"}
    for block in blocks:
        exec(compile(block, "docs/library.md", "exec"), names)
    assert names["scores"].shape == (4,)
    assert (tmp_path / "policy" / "adapter_config.json").is_file()
    assert (tmp_path / "aligned" / "model.safetensors").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not broken


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_into_pages_lead_to_headings(page):
    links = re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", page.read_text(encoding="utf-8"))
    places = [(page.parent / (file or page.name), anchor) for file, anchor in links]
    assert not [(file.name, anchor) for file, anchor in places if anchor not in anchors_of(file)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_the_pages_exist(page):
    from plumbline.cli import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    known |= {group.name for group in app.registered_groups}
    fenced = "\n".join(re.findall(r"```\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
    used = set(re.findall(r"^ *(?:\.venv/bin/)?plumbline ([a-z]+)", fenced, re.MULTILINE))
    assert used <= known


def test_tests_that_the_documentation_names_exist():
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    known = set(re.findall(r"^def (test_\w+)\(", code, re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8"))}
    assert len(named) > 50
    assert named <= known


def documented_settings() -> Iterator[tuple[str, dict[str, str]]]:
    """Each setting in the tables of docs/ppo.md, and what its row says of it: a cell by the heading of its column."""
    section = (ROOT / "docs" / "ppo.md").read_text(encoding="utf-8").split("## Settings")[1].split("## Metrics")[0]
    headings: list[str] = []
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "setting":
            headings = cells
        names = re.findall(r"`(\w+)`", cells[0]) if line.startswith("| `") else []
        values = [[value.strip() for value in cell.split(",")] for cell in cells]
        for number, name in enumerate(names):  # one value for each, or one for all of them
            yield name, {heading: of[number % len(of)] for heading, of in zip(headings, values, strict=True)}


def written(value: object) -> object:
    """A value as the tables have it: numbers as numbers, `None` as a dash."""
    text = "–" if value is None else str(value).strip("`")
    try:
        return float(text)
    except ValueError:
        return text


def test_the_settings_of_ppo_are_all_in_the_table_with_their_defaults():
    inherited = {setting.name: setting.default for setting in fields(TrainingArguments)}
    own = {setting.name: setting.default for setting in fields(PPOConfig) if setting.default is not MISSING}
    rows = dict(documented_settings())
    assert {name for name, default in own.items() if inherited.get(name, MISSING) != default} - rows.keys() == set()
    assert {name: written(row["default"]) for name, row in rows.items()} == {name: written(own[name]) for name in rows}
    chain = {name: written(row["chain"]) for name, row in rows.items() if row.get("chain")}
    assert chain == {name: written(value) for name, value in DEFAULTS.items() if value != own[name]}
