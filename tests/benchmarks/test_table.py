"""The arithmetic of the PPO benchmark's tables, against figures worked out by hand."""

from __future__ import annotations

from typing import Any

from benchmarks.ppo.flops import peak_of, rollout_flops
from benchmarks.ppo.table import learning_table, speed_table, spread


def record(**values: Any) -> dict[str, Any]:
    """A run of three rollouts of which the first is warm-up; the other two take 8 s together."""
    common = {
        "seconds": [100.0, 3.0, 5.0],
        "generation": [50.0, 1.0, 1.0],
        "scoring": [30.0, 0.5, 1.5],
        "tokens": [999, 30, 50],
        "scores": [0.25, 0.5, 0.75],
        "base_memory": 400.0,
        "peak_memory": 900.0,
    }
    return {**common, **values}


def cells(table: str) -> dict[str, list[str]]:
    """The rows of a Markdown table by their first cell."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "|" in line]
    return {row[0]: row[1:] for row in rows}


def test_spread_is_the_median_between_the_lowest_and_the_highest() -> None:
    assert spread([1.0, 20.0, 0.5]) == "1.00 (0.500 to 20.0)"


def test_speed_leaves_out_the_first_rollout_and_takes_ratios_pair_by_pair() -> None:
    twice = record(seconds=[1.0, 1.5, 2.5], generation=[9.0, 0.5, 0.5], scoring=[9.0, 0.2, 0.3])
    thrice = record(seconds=[1.0, 6.0, 10.0])  # TRL twice as slow as usual, plumbline not
    rows = cells(speed_table([(record(), twice), (thrice, record())], batch_size=8))
    # 8 episodes in 8 s / 2 rollouts; in 16 s / 2; the median of two is their mean
    assert rows["episodes/s"] == ["1.50 (1.00 to 2.00)", "3.00 (2.00 to 4.00)", "2.00 (2.00 to 2.00)"]


def test_the_update_is_what_generation_and_scoring_leave_of_a_rollout() -> None:
    rows = cells(speed_table([(record(), record(scoring=[0.0, 2.0, 2.0]))], batch_size=8))
    assert rows["… update, s"] == ["2.00 (2.00 to 2.00)", "1.00 (1.00 to 1.00)", "0.500 (0.500 to 0.500)"]
    # 40 response tokens of a rollout over 2 s and 1 s
    assert rows["response tokens/s, update"] == ["20.0 (20.0 to 20.0)", "40.0 (40.0 to 40.0)", "2.00 (2.00 to 2.00)"]


def test_memory_is_also_given_above_what_the_imports_take() -> None:
    rows = cells(speed_table([(record(), record(base_memory=500.0, peak_memory=600.0))], batch_size=8))
    assert rows["… above the imports, MiB"][2] == "0.200 (0.200 to 0.200)"


def test_learning_compares_the_runs_of_a_seed_with_each_other() -> None:
    first = (record(scores=[0.25, 0.25, 0.5, 0.5]), record(scores=[0.25, 0.5, 0.75, 1.0]))
    second = (record(scores=[0.5, 0.5, 0.5, 0.5]), record(scores=[0.0, 0.0, 0.5, 0.5]))
    table = learning_table([first, second], batch_size=32, points=2)
    rows = cells(table)
    # means of two rollouts: TRL 0.25 and 0.5, plumbline 0.375 and 0; differences 0.125 and −0.5
    assert rows["1 to 64"] == [
        "0.375 (0.250 to 0.500)",
        "0.188 (0.000 to 0.375)",
        "-0.188 (-0.500 to 0.125)",
    ]
    assert rows["65 to 128"][2] == "0.188 (0.000 to 0.375)"
    assert "plumbline's mean is at least TRL's at 1 of 2 points; at 0 it is below" in table


def test_a_curve_that_is_lower_for_every_seed_is_counted() -> None:
    runs = [(record(scores=[0.5, 0.5]), record(scores=[0.5, 0.4 + jitter])) for jitter in (0.0, 0.001, 0.002)]
    # at the second point the differences are −0.1, −0.099 and −0.098: far below twice their standard error
    assert "at 1 of 2 points; at 1 it is below" in learning_table(runs, batch_size=32, points=2)


def test_flops_of_a_rollout_by_hand() -> None:
    # 10 weights in the layers, 3 in the head, 4 prompt and 2 response tokens: a classifier takes 2·10·6 = 120, the
    # policy 120 + 2·3·2
    given = {"body": 10, "head": 3, "prompt_tokens": 4, "response_tokens": 2, "epochs": 2}
    assert rollout_flops(**given, lora=False) == {"generation": 132, "scoring": 372, "update": 2 * 3 * 252}
    assert rollout_flops(**given, lora=True)["update"] == 2 * 2 * 252
    assert (peak_of("NVIDIA H200"), peak_of("cpu")) == (989.0, None)


def test_utilisation_is_of_the_stated_peak() -> None:
    pair = [(record(flops={"generation": 1e12, "scoring": 1e12, "update": 1e12}),) * 2]
    # generation takes 1 s a rollout: 2 episodes of 1 TFLOP each are 2% of a peak of 100 TFLOP/s
    assert cells(speed_table(pair, batch_size=2, peak_tflops=100))["generation, % of 100 TFLOP/s"][0].startswith("2.00")
    assert "TFLOP" not in speed_table(pair, batch_size=2)
