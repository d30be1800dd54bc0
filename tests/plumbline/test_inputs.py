"""What manifests say about the inputs of a stage."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plumbline.inputs import shown_store


@pytest.mark.parametrize(
    ("store", "shown"),
    [
        ("postgresql://anna:secret@host:5433/db", "postgresql://host:5433/db"),
        ("postgresql://host/db?user=anna&password=secret", "postgresql://host/db"),
        ("/data/team@site/prefs.db", "/data/team@site/prefs.db"),
        ("sqlite:////data/prefs.db", "sqlite:////data/prefs.db"),
        (None, "runs/x/preferences.db"),
    ],
)
def test_the_stores_address_is_shown_without_password(store: str | None, shown: str) -> None:
    recipe = SimpleNamespace(annotate=SimpleNamespace(store=store))
    domain: Any = SimpleNamespace(recipe=recipe, run=SimpleNamespace(root=Path("runs/x")))
    assert shown_store(domain) == shown
