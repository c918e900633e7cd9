"""What can be said of the templates without running them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from jobs import ROOT, Checkout

pytestmark = pytest.mark.slurm

SCRIPTS = sorted((ROOT / "slurm").glob("*.sh"))
TEMPLATES = [script for script in SCRIPTS if re.search("^#SBATCH", script.read_text(), re.MULTILINE)]


def mistakes(script: str) -> list[str]:
    """Lines that look like options of sbatch, but that sbatch doesn't read, or doesn't read as meant."""
    found, body = [], False
    for number, line in enumerate(script.splitlines(), start=1):
        if re.match(r"\s*#+\s*SBATCH", line):
            if body:
                found.append(f"{number}: after the first command")
            elif not re.match(r"#SBATCH --[a-z-]+(=\S+)?( *#.*)?$", line):
                found.append(f"{number}: not an option that stands alone")
            elif "$" in line or "`" in line:
                found.append(f"{number}: variables aren't expanded")
        elif line.strip() and not line.startswith("#"):
            body = True
    return found


@pytest.mark.parametrize(
    "line",
    [
        "# SBATCH --nodes=2",
        "##SBATCH --nodes=2",
        " #SBATCH --nodes=2",
        "#SBATCH nodes=2",
        "#SBATCH --account=$ACCOUNT",
        "set -e\n#SBATCH --nodes=2",
    ],
)
def test_the_checker_finds(line: str) -> None:
    assert len(mistakes(f"#!/bin/bash\n# A job.\n\n#SBATCH --job-name=a\n{line}\n")) == 1


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_are_clean(script: Path) -> None:
    text = script.read_text()
    assert mistakes(text) == []
    assert "\r" not in text
    subprocess.run(["bash", "-n", script], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    checked = subprocess.run(["shellcheck", "--exclude=SC1091", script], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_templates_name_no_site(template: Path) -> None:
    assert template.stat().st_mode & 0o111
    options = re.findall(r"^#SBATCH --([a-z-]+)", template.read_text(), re.MULTILINE)
    assert not {"partition", "account", "qos", "constraint", "mail-user", "chdir", "time"} & set(options)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
def test_sbatch_takes_templates(checkout: Checkout, template: Path) -> None:
    checkout.shell("sbatch", "--test-only", f"slurm/{template.name}")


def test_sbatch_refuses_what_no_node_has(checkout: Checkout) -> None:
    output = checkout.shell("sbatch", "--test-only", "--nodes=99", "slurm/cgan.sh", check=False)
    assert "Requested node configuration is not available" in output


def test_an_element_of_a_sweep_is_a_config_and_a_seed(tmp_path: Path) -> None:
    """All seeds of the first config, then all of the second."""
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "train.sh").write_text('#!/bin/bash\necho "$*"\n')
    (tmp_path / "slurm" / "train.sh").chmod(0o755)
    said = [
        subprocess.run(
            ["bash", ROOT / "slurm" / "sweep.sh", "5 7", "a.yaml", "b.yaml", "--", "--train.steps", "9"],
            env={"SLURM_ARRAY_TASK_ID": str(element), "COLORDIST_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for element in range(4)
    ]
    pairs = [("a", 5), ("a", 7), ("b", 5), ("b", 7)]
    assert said == [f"--config {config}.yaml --seed {seed} --train.steps 9" for config, seed in pairs]
