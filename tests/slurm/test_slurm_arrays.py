"""Several runs at once, and jobs that wait for others."""

import pytest
from jobs import TINY, TINY_GAN, Checkout, Job

pytestmark = pytest.mark.slurm

SHORT = [*TINY, "--train.steps", "4", "--evaluate.every", "4", "--checkpoint.every", "4"]


def test_one_element_of_four_fails_and_the_report_names_it(checkout: Checkout) -> None:
    (checkout.path / "runs").mkdir()
    (checkout.path / "runs" / "a-1").write_text("in the way of a run folder\n")
    output = checkout.shell(
        *("slurm/sweep.sh", "configs/ae.yaml", "configs/quickstart_ae.yaml", "--", *SHORT),
        *("--run.dir", "runs/a-%a"),
        SEEDS="3 4",
        PARALLEL="2",
    )
    array = output.split()[-1]
    runs = [f"runs/a-{element}" for element in range(4)]
    report = checkout.sbatch(f"--dependency=afterany:{array}", "slurm/report.sh", "runs/report.html", *runs)
    assert report.wait() == "FAILED"
    states = [Job(checkout, f"{array}_{element}").facts()["JobState"] for element in range(4)]
    assert states == ["COMPLETED", "FAILED", "COMPLETED", "COMPLETED"]
    assert "can't be written" in Job(checkout, f"{array}_1").log
    assert "not finished, so not in the report: runs/a-1\n" in report.log
    assert (checkout.path / "runs" / "report.html").exists()


def test_compare_ends_in_a_report(checkout: Checkout) -> None:
    own = " ".join(TINY_GAN[len(TINY) :])
    output = checkout.shell("slurm/compare.sh", "--nodes=1", "--", *SHORT, SEEDS="5", OUT="runs/compare", CGAN=own)
    report = output.splitlines()[-1]
    assert report.endswith("will be at runs/compare/report.html")
    job = Job(checkout, report.split()[1].rstrip(","))
    assert job.wait() == "COMPLETED", output + job.log
    for task in ("ae", "cgan"):
        run = checkout.path / "runs" / "compare" / f"{task}-5"
        assert (run / "evaluation-synthetic.json").exists()
        assert "seed: 5" in (run / "config.yaml").read_text()
    assert (checkout.path / "runs" / "compare" / "report.html").exists()
