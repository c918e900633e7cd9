"""Version, changelog, citation and constraints agree with the package."""

import re
import tomllib

import pytest
import yaml
from helpers import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import colordist

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [
    each
    for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for each in map(Requirement, group)
    if each.name != "colordist"
]


def test_changelog_and_citation_have_the_version() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[0] == "Unreleased"
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert headings[1] == f"{colordist.__version__} - {citation['date-released']}"
    assert str(citation["version"]) == colordist.__version__
    assert citation["license"] == PROJECT["license"]


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_a_tested_version_satisfies_the_requirement(requirement: Requirement) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    tested = {canonicalize_name(each.name): str(each.specifier).removeprefix("==") for each in pins}
    assert requirement.specifier.contains(tested[canonicalize_name(requirement.name)])
