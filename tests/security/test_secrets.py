"""What is secret: random, kept as digests, readable by its owner alone, and under no folder that is served."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import gradio
import pytest
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

import annotate_ui
from annotate_ui.app import STATIC
from plumbline.preferences.login_sessions import LoginSessions
from plumbline.preferences.store import Store
from plumbline.preferences.tokens import Tokens
from tests.security.calls import routes_of
from tests.security.conftest import World


def test_a_new_store_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    """It holds hashes of passwords and what people said; SQLite's log beside it takes the same rights."""
    before = os.umask(0o022)
    try:
        store = Store.open(tmp_path / "run" / "preferences.db")
        Tokens(store, project="support").add("one")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "run").iterdir()}
        store.close()
    finally:
        os.umask(before)
    assert modes and set(modes.values()) == {0o600}, modes


def test_the_rights_of_a_store_that_is_there_are_left_alone(tmp_path: Path) -> None:
    Store.open(tmp_path / "preferences.db").close()
    (tmp_path / "preferences.db").chmod(0o660)  # a group that shares it
    Store.open(tmp_path / "preferences.db").close()
    assert stat.S_IMODE((tmp_path / "preferences.db").stat().st_mode) == 0o660


def test_nothing_that_signs_or_opens_is_the_same_twice(world: World) -> None:
    """No key is written in the program (Label Studio GHSA-f475-x83m-rx5m, Gradio CVE-2026-27167): there is none."""
    sessions = LoginSessions(world.service.store, accounts=True)
    tokens = {sessions.start(world.id_of("Bob")) for _ in range(20)}
    assert len(tokens) == 20 and all(len(token) == 43 for token in tokens)
    assert len({world.accounts.issue_password(world.id_of("Vera")) for _ in range(5)}) == 5


def test_only_scripts_styles_and_the_mark_are_served(world: World) -> None:
    served = [route for route in routes_of(world.app.routes) if isinstance(getattr(route, "app", None), StaticFiles)]
    assert [Path(str(route.app.directory)) for route in served] == [STATIC]
    assert {path.suffix for path in STATIC.rglob("*") if path.is_file()} == {".js", ".css", ".svg"}
    assert not any(path.is_symlink() for path in STATIC.rglob("*"))


def test_gradio_may_read_no_file_beside_the_app(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fooocus #4198: a file with passwords in the folder that the app was started in could be fetched."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "auth.json").write_text("the secret of the day")
    for page in [route for route in world.app.routes if isinstance(route, Mount) and hasattr(route.app, "get_blocks")]:
        blocks: Any = page.app.get_blocks()  # type: ignore[attr-defined]
        assert not blocks.allowed_paths and not blocks.fns
        for path in (
            "file=auth.json",
            f"file={tmp_path}/auth.json",
            "file/auth.json",
            "auth.json",
            "static/../auth.json",
        ):
            for start in (f"{page.path}/gradio_api", page.path):
                reply = world.ask(f"{start}/{path}", method="GET", who="Ada")
                assert reply.status == 404 and "secret of the day" not in reply.text


def test_gradio_is_new_enough_and_its_dangerous_parts_are_not_used() -> None:
    """All published faults of Gradio's file, upload and proxy routes are mended in 6.31, the lowest that is allowed."""
    assert tuple(int(part) for part in gradio.__version__.split(".")[:2]) >= (6, 31)
    sources = "\n".join(path.read_text() for path in Path(annotate_ui.__file__).parent.rglob("*.py"))
    for name in (
        "gr.File",
        "UploadButton",
        "gr.load",
        "gr.State",
        "LoginButton",
        "gr.Image",
        "gr.Chatbot",
        "share=True",
    ):
        assert name not in sources
    assert "allowed_paths=[]" in sources and "show_error=False" in sources


def test_nothing_is_reported_to_anybody() -> None:
    """Gradio's analytics are off before it is imported, unless the environment asks for them."""
    asked = (
        "import os, plumbline; print(os.environ['GRADIO_ANALYTICS_ENABLED'], os.environ['HF_HUB_DISABLE_TELEMETRY'])"
    )
    plain = {key: value for key, value in os.environ.items() if "ANALYTICS" not in key and "TELEMETRY" not in key}
    said = subprocess.run([sys.executable, "-c", asked], env=plain, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", "1"]
