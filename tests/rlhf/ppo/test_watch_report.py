"""What the log of a watched run shows, in figures and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlhf.ppo.watch_report import draw_scores, root_kl, watch_metrics, watched_entries

ZS = (None, (9.0, 1.0, 0.0), (9.0, -6.0, 1.0), (9.0, -7.0, 1.0))
LOG: list[dict[str, Any]] = [
    {
        "episode": 64.0 * number,
        "objective/scores": number,
        "objective/watched_scores": -number,
        "objective/kl": number**2,
        "objective/kl_coef": 0.1 * number,
        **(dict(zip(("watch/proxy_z", "watch/watched_z", "watch/overoptimization"), zs, strict=True)) if zs else {}),
    }
    for number, zs in enumerate(ZS, 1)
]
HISTORY = [LOG[0], {"eval_objective/watched_scores": 1.0}, *LOG[1:], {"train_runtime": 1.0}]


def test_entries_of_rollouts_alone_count() -> None:
    assert watched_entries(HISTORY) == LOG
    assert watch_metrics(watched_entries(HISTORY), "raise_kl") == {
        "overoptimization_tests": 3,
        "overoptimization_seen": 2,
        "overoptimization_episode": 192,
        "overoptimization_action": "raise_kl",
        "kl_coef_last": 0.4,
    }
    assert watch_metrics(LOG[:2], "stop") == {"overoptimization_tests": 1, "overoptimization_seen": 0}
    assert watch_metrics([], "warn") == {}


def test_the_picture_is_the_same_bytes_and_marks_where_it_was_seen(tmp_path: Path) -> None:
    pictures = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        draw_scores({"warn": LOG, "raise_kl": LOG[:2]}, tmp_path / folder / "scores.svg")
        pictures.append((tmp_path / folder / "scores.svg").read_text())
    assert pictures[0] == pictures[1]
    assert all(text in pictures[0] for text in ("optimised, warn", "watched, raise_kl", ">seen<", "√KL"))
    draw_scores({"ppo": LOG[:2]}, tmp_path / "unseen.svg")
    assert ">seen<" not in (tmp_path / "unseen.svg").read_text()
    assert root_kl({"objective/kl": -0.01}) == 0.0
