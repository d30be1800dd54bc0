"""The documentation is true: its code runs, its commands exist, its links lead somewhere."""

import re
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_the_pages_exist(page):
    from plumbline.cli import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    fenced = "\n".join(re.findall(r"```\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
    used = set(re.findall(r"^ *(?:\.venv/bin/)?plumbline ([a-z]+)", fenced, re.MULTILINE))
    assert used <= known


def test_tests_that_the_documentation_names_exist():
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    known = set(re.findall(r"^def (test_\w+)\(", code, re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8"))}
    assert len(named) > 50
    assert named <= known
