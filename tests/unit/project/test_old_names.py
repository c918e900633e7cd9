"""Names of version 0.1 are gone: of modules, classes, functions, settings and JSON keys. Prose may use any word."""

import ast
import re
from pathlib import Path

import pytest
from helpers import ROOT

IDENTIFIERS = {
    *("plan", "Plan", "Portion", "portions", "begin_turn", "_turn", "awake", "asleep", "wake", "_wake", "learners"),
    *("Learner", "DDPLearner", "DeepSpeedLearner", "learner", "truth", "truth_grey", "truth_index", "truth_flip"),
    *("chance", "CHANCES", "draws", "Examiner", "examiner", "build_examiner", "Pictures", "Heading", "HEADINGS"),
    *("Judge", "Beat", "heir", "silence", "patience", "together", "Watch", "tell", "Shelf", "shelf"),
    *("surroundings", "foresee", "checkup", "empty_pool", "pool_slots", "Recomputable", "recompute", "recomputes"),
    *("gradient_checkpointing", "factors", "difference_weight", "MarkedSplit", "tell_damaged", "stand_in"),
    *("chosen_features", "chosen_metrics", "own_scores", "begin_with", "impatient", "FLOORS", "is_below_floor"),
    *("ceiling", "floors", "refuse_drift", "refuse_difference", "refuse_other_settings", "refuse_fenced_off"),
    *("refuse_other_run", "refuse_lost_parts", "refuse_other_images", "refuse_unfit_launch", "refuse_penalties"),
    *("ModelConfig", "LossConfig", "DiscriminatorConfig", "OptimizersConfig", "RunningStatistics"),
    *("GlobalBatchNorm2d", "build_decolorizer", "cost_model"),
}
MODULES = {
    *("build", "build_classifier", "build_source", "build_task", "checkup", "classifier_file", "classifier_training"),
    *("colorizer", "evaluation", "fetching", "lock", "memory", "model_card", "network", "onnx_file", "photo_files"),
    *("run_folder", "snapshot", "stopping", "trainer", "transfer", "weights", "engine.agreement", "engine.batch_norm"),
    *("engine.judge", "engine.learner", "engine.meeting", "engine.watch", "data.plan", "data.shelf", "data.archive"),
    *("data.folder", "metrics.floors", "metrics.chosen", "metrics.own", "models.recompute", "tasks.draws"),
    *("tasks.pool", "tasks.task", "reporting.told", "reporting.board"),
}
KEYS = (
    *("loss.pixel", "loss.draws", "loss.difference_weight", "loss.adversarial_weight", "loss.warmup_steps"),
    *("loss.pool_slots", "run.silence", "run.patience", "optimizer.generator.factors"),
    *("train.gradient_checkpointing", "evaluate.classifier", "evaluate.networks", "reference/ceiling"),
    *("reference/truth",),
)
MAY_NAME_THEM = {
    "colordist/cli/legacy.py",  # says what they are called now
    "experiments/same_as.py",  # compares with a commit that has them
    *(f"tests/unit/{name}.py" for name in ("project/test_old_names", "cli/test_cli", "project/test_imports")),
}


def files(*suffixes: str) -> list[Path]:
    folders = ("colordist", "tests", "benchmarks", "experiments", "configs", "slurm", "launch", "docs")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in suffixes]
    found += [ROOT / "README.md", ROOT / "CONTRIBUTING.md"] if ".md" in suffixes else []
    return [path for path in sorted(found) if str(path.relative_to(ROOT)) not in MAY_NAME_THEM]


def names(source: str) -> set[str]:
    """The identifiers of a module."""
    kinds = {ast.Name: "id", ast.Attribute: "attr", ast.arg: "arg", ast.keyword: "arg"}
    kinds |= dict.fromkeys((ast.FunctionDef, ast.ClassDef), "name")
    return {getattr(node, kinds[type(node)]) for node in ast.walk(ast.parse(source)) if type(node) in kinds}


@pytest.mark.parametrize("path", files(".py"), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_old_identifier(path: Path) -> None:
    assert names(path.read_text()) & IDENTIFIERS == set()


def test_no_old_module() -> None:
    package = ROOT / "colordist"
    there = {str(path.relative_to(package).with_suffix("")).replace("/", ".") for path in package.rglob("*.py")}
    assert there & MODULES == set()
    assert "training.trainer" in there  # they are named in the same way


def test_no_old_key() -> None:
    pattern = re.compile("|".join(rf"(?<![\w.]){re.escape(key)}(?!\w)" for key in KEYS))
    found = {
        str(path.relative_to(ROOT)): sorted(set(pattern.findall(path.read_text())))
        for path in files(".py", ".md", ".yaml", ".sh")
        if "snapshots_0.1" not in path.parts and pattern.search(path.read_text())
    }
    assert found == {}
