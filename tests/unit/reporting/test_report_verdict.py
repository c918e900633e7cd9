"""What a report says of runs: which belong together, and never more than the spread of seeds carries."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from report_runs import trained
from scipy import stats

from colordist.errors import UserError
from colordist.reporting.comparison import Comparison, compare
from colordist.reporting.spread import difference, student_quantile, student_share


def compared(path: Path, **groups: Sequence[float]) -> Comparison:
    """Runs of several tasks or losses, a score a seed."""
    weights = {name: float(place) for place, name in enumerate(groups, start=1)}
    return compare(
        [
            trained(
                path / f"{name}-{seed}",
                scores={"ciede2000": score},
                settings={"seed": seed, "task.adversarial_weight": weights[name]},
            )
            for name, scores in groups.items()
            for seed, score in enumerate(scores)
        ]
    )


# --- which runs belong together


def test_runs_that_differ_in_their_seed_only_are_one_group(tmp_path: Path) -> None:
    runs = [
        trained(tmp_path / "a", scores={"ciede2000": 7.0}),
        trained(tmp_path / "b", scores={"ciede2000": 8.0}, settings={"task.name": "autoencoder"}),
        # Where it lives and how often it logs changes nothing of what is learned.
        trained(tmp_path / "c", scores={"ciede2000": 9.0}, settings={"seed": 1, "run.dir": "c", "log.every": 7}),
    ]
    found = compare(runs)
    assert [(each.name, [run.folder for run in each.runs]) for each in found.groups] == [
        ("cgan", [runs[0], runs[2]]),
        ("autoencoder", [runs[1]]),
    ]
    assert list(found.names.values()) == ["cgan, seed 0", "cgan, seed 1", "autoencoder"]
    assert found.groups[0].scores("ciede2000") == [7.0, 9.0]


def test_groups_of_the_same_task_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    found = compared(tmp_path, one=[7.0], two=[8.0])
    assert [each.name for each in found.groups] == [
        "task.adversarial_weight 1.0",
        "task.adversarial_weight 2.0",
    ]


def test_by_their_folder_if_much_differs(tmp_path: Path) -> None:
    other = {"task.pixel": "l2", "model.width": 8, "train.ema_images": 7}
    found = compare([trained(tmp_path / "a"), trained(tmp_path / "b", settings=other)])
    assert [each.name for each in found.groups] == ["a", "b"]


def test_the_same_seed_twice_counts_once(tmp_path: Path) -> None:
    scores = {"ciede2000": 7.0}
    found = compare([trained(tmp_path / name, scores=scores) for name in ("a", "b")])
    assert found.groups[0].scores("ciede2000") == [7.0]
    assert list(found.names.values()) == ["cgan, seed 0 (a)", "cgan, seed 0 (b)"]
    assert any("no independent sample: b isn't counted" in note for note in found.notes)
    assert any("One seed of cgan" in note for note in found.notes)


# --- what a difference is worth


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 30, 101])
def test_student(freedom: int) -> None:
    for t in (0.1, 1.0, 3.0):
        assert student_share(t, freedom) == pytest.approx(1 - 2 * stats.t.sf(t, freedom))
    for share in (0.5, 0.95, 0.99):
        assert student_quantile(share, freedom) == pytest.approx(stats.t.ppf((1 + share) / 2, freedom))


def test_welch() -> None:
    ours, theirs = [1.0, 2.0, 3.0, 4.0], [10.0, 12.0, 14.0, 16.0]
    found, reference = difference(ours, theirs), stats.ttest_ind(ours, theirs, equal_var=False)
    interval = reference.confidence_interval(0.95)
    assert found.mean == pytest.approx(-10.5)
    assert found.is_clear
    assert found.margin is not None
    # Degrees of freedom are rounded down: never narrower.
    assert (interval.high - interval.low) / 2 <= found.margin <= 1.1 * (interval.high - interval.low) / 2
    more = difference(ours, theirs, comparisons=10).margin
    assert more is not None
    assert more > found.margin


@pytest.mark.parametrize(("ours", "theirs"), [([1.0], [5.0, 6.0]), ([1.0, 1.0], [5.0, 5.0]), ([1.0], [5.0])])
def test_without_a_spread_nothing_is_clear(ours: list[float], theirs: list[float]) -> None:
    found = difference(ours, theirs)
    assert found.mean < 0
    assert found.margin is None
    assert not found.is_clear


# --- the verdict

WINS = " beats "


def test_a_difference_that_seeds_carry(tmp_path: Path) -> None:
    verdict = compared(tmp_path, one=[7.0, 7.1, 7.2], two=[8.0, 8.1, 8.2]).verdict
    # Welch by hand: sqrt(2 * 0.01 / 3) = 0.0816, 4 degrees of freedom: 2.776 times that is 0.23 (rounded down: 3 or 4).
    assert verdict.line.startswith("task.adversarial_weight 1.0 beats task.adversarial_weight 2.0")
    assert "7.10 against 8.10, a difference of 1.00 ± 0.2" in verdict.line
    assert verdict.caveats == []


def test_a_difference_within_the_spread(tmp_path: Path) -> None:
    verdict = compared(tmp_path, one=[7.0, 9.0], two=[8.0, 10.0]).verdict
    assert verdict.line.startswith("Not decided")
    assert WINS not in str(verdict)


def test_one_seed_never_wins(tmp_path: Path) -> None:
    verdict = compared(tmp_path, one=[2.5], two=[13.0]).verdict
    assert verdict.line.startswith("So far ")
    assert WINS not in str(verdict)
    assert "One seed each: how much of this is chance isn't known" in str(verdict)


def test_one_seed_against_several(tmp_path: Path) -> None:
    verdict = compared(tmp_path, one=[2.5], two=[13.0, 13.1, 13.2]).verdict
    assert WINS not in str(verdict)
    assert "One seed of task.adversarial_weight 1.0" in str(verdict)


def test_equal_runs_are_not_better_in_any_score(tmp_path: Path) -> None:
    def told(path: Path, *, psnr: float) -> str:
        runs = [
            trained(path / name, scores={"ciede2000": 7.0, "psnr": each}, settings={"task.name": name})
            for name, each in {"autoencoder": 20.0, "cgan": psnr}.items()
        ]
        return str(compare(runs).verdict)

    same = told(tmp_path / "same", psnr=20.0)
    assert same.startswith("autoencoder and cgan are equal: CIEDE2000 7.00. autoencoder has the better mean in 0 of 2 ")
    assert "in 0 of 2 scores, and ties in 2." in same
    assert "in 1 of 2 scores, and ties in 1." in told(tmp_path / "lower", psnr=19.0)
    assert "in 0 of 2 scores, and ties in 1." in told(tmp_path / "higher", psnr=21.0)


def test_many_settings_need_more_than_two(tmp_path: Path) -> None:
    two = {"one": [7.0, 7.2], "two": [8.0, 8.2]}
    assert WINS in compared(tmp_path / "2", **two).verdict.line
    many = two | {f"more{number}": [9.0, 9.2] for number in range(4)}
    assert WINS not in compared(tmp_path / "6", **many).verdict.line


def test_alone_it_stands_between_baseline_and_oracle(tmp_path: Path) -> None:
    # (14 - 8) / (14 - 2): the better baseline is the constant colour.
    assert "50 % of the way from the better baseline (14.00) to the oracle (2.00)" in str(
        compared(tmp_path, one=[8.0]).verdict
    )


def test_worse_than_doing_nothing_is_said(tmp_path: Path) -> None:
    assert "no better than the baseline, 14.00" in compared(tmp_path, one=[15.0]).verdict.line


def test_higher_may_be_better_and_so_may_be_near(tmp_path: Path) -> None:
    one = {"ciede2000": 7.0, "psnr": 20.0, "colorfulness": 90.0}
    two = {"ciede2000": 8.0, "psnr": 21.0, "colorfulness": 75.0}
    rows = compare(
        [
            trained(tmp_path / "a", scores=one),
            trained(tmp_path / "b", scores=two, settings={"task.name": "autoencoder"}),
        ]
    ).rows
    best = {row.metric.name: [cell and cell.is_best for cell in row.cells] for row in rows}
    assert best == {"psnr": [False, True], "ciede2000": [True, False], "colorfulness": [True, False]}
    signed = {row.metric.name: cell.to_best.mean for row in rows for cell in row.cells if cell and cell.to_best}
    assert signed == pytest.approx({"psnr": -1.0, "ciede2000": 1.0, "colorfulness": 7.0})  # |75 - 86| - |90 - 86|


def test_runs_on_their_way(tmp_path: Path) -> None:
    found = compare([trained(tmp_path / "a", finished=False)])
    assert found.verdict.line == "There are no scores yet."
    assert "1 run is not finished: a at step 200 of 200." in found.notes
    assert "1 run is without scores yet." in found.notes


# --- what can't be compared


def test_other_test_images(tmp_path: Path) -> None:
    runs = [trained(tmp_path / "a"), trained(tmp_path / "b", images="11111111 33333333")]
    with pytest.raises(UserError, match="different test images: they can't be compared"):
        compare(runs)


def test_other_training_images_are_told(tmp_path: Path) -> None:
    found = compare([trained(tmp_path / "a"), trained(tmp_path / "b", images="33333333 22222222")])
    assert any("trained on different images" in note for note in found.notes)


def test_a_run_named_twice(tmp_path: Path) -> None:
    run = trained(tmp_path / "a")
    with pytest.raises(UserError, match="named twice"):
        compare([run, run])


def test_what_is_no_number_is_no_score(tmp_path: Path) -> None:
    run = trained(tmp_path / "a", scores={"ciede2000": 7.0})
    with run.metrics_file.open("a") as file:
        file.write(json.dumps({"step": 200, "score/ciede2000": float("nan")}) + "\n")
    assert compare([run]).groups[0].scores("ciede2000") == [7.0]
