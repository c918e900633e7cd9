"""The report's page as a file, the list of runs, and the report at W&B without a network."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from report_runs import Elements, trained

import colordist.report
from colordist.errors import UserError
from colordist.report import report
from colordist.reporting.comparison import Comparison, compare
from colordist.reporting.html import page
from colordist.reporting.listing import find, listing
from colordist.reporting.wandb_report import build, markdown, publish
from colordist.run.folder import RunFolder

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&{{7*7}}"


def two(path: Path) -> Comparison:
    return compare(
        [
            trained(path / "a", scores={"ciede2000": 7.0, "psnr": 20.0}),
            trained(path / "b", scores={"ciede2000": 8.0}, settings={"task.name": "autoencoder"}, answer=2),
        ]
    )


def test_nothing_is_fetched(tmp_path: Path) -> None:
    elements = Elements(page(two(tmp_path))).found
    assert [tag for tag, _ in elements].count("img") == 4 * 4  # images times grey, two runs and target
    for tag, attributes in elements:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, name)
        assert tag not in ("iframe", "object", "embed", "base")
        assert "@import" not in (attributes.get("style") or "")
    (policy,) = (each for _, each in elements if each.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in (policy["content"] or "")  # and a browser sees to it


def test_hostile_names_are_text(tmp_path: Path) -> None:
    settings = {"data.root": HOSTILE, "data.source": "folder"}
    named = trained(tmp_path / HOSTILE.replace("/", "|"), settings=settings)
    others = [trained(tmp_path / "b", settings={"model.width": 8, "model.depth": 2, "task.pixel": "l2"})]
    text = page(compare([named, *others]))
    plain = Elements(page(compare(others)))
    elements = Elements(text)
    assert [tag for tag, _ in elements.found].count("script") == [tag for tag, _ in plain.found].count("script")
    assert not any(attributes.get("src") == "x" for _, attributes in elements.found)
    assert not any("onerror" in attributes for _, attributes in elements.found)
    assert HOSTILE in elements.texts  # whole, in the table of settings


def test_the_table_marks_the_best(tmp_path: Path) -> None:
    text = page(two(tmp_path))
    row = text[text.index("CIEDE2000 <span") :]
    cells = re.findall(r'<td data-label="(\w+)"( class="best")?>', row)[:2]
    assert cells == [("cgan", ' class="best"'), ("autoencoder", "")]
    assert "+1.00" in row[: row.index("</tr>")]
    assert "±" not in row[: row.index("</tr>")]  # one seed each


def test_one_run_and_a_run_without_anything(tmp_path: Path) -> None:
    empty = trained(tmp_path / "a", losses=1, finished=False)
    empty.metrics_file.write_text("")
    for file in empty.samples.iterdir():
        file.unlink()
    text = page(compare([empty]))
    assert "There are no scores yet." in text
    assert "BEGIN bokeh" not in text  # no chart, no library
    assert "Settings that differ" not in text


def test_twelve_runs(tmp_path: Path) -> None:
    runs = [
        trained(
            tmp_path / f"{number}", scores={"ciede2000": 5.0 + number}, settings={"task.adversarial_weight": number / 2}
        )
        for number in range(12)
    ]
    text = page(compare(runs))
    assert text.count('class="command"') == 12
    assert "<title>12 settings, 12 runs</title>" in text


# --- the verb


def test_the_page_lies_in_the_first_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path / "a", scores={"ciede2000": 7.0})
    report([run], None)
    assert (run.path / "report.html").read_text().startswith("<!doctype html>")
    told = capsys.readouterr().out
    assert "grey (baseline)" in told
    assert f"page: {run.path / 'report.html'}" in told


def test_a_picture_instead(tmp_path: Path) -> None:
    report([trained(tmp_path / "a", scores={"ciede2000": 7.0})], tmp_path / "new" / "picture.png")
    assert (tmp_path / "new" / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["report.pdf", "report"])
def test_another_kind_of_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"neither .html nor .png"):
        report([trained(tmp_path / "a")], tmp_path / name)


def test_no_run() -> None:
    with pytest.raises(UserError, match="no run named"):
        report([], None)


@pytest.mark.parametrize(("output", "told"), [("file/a.html", "file is no folder: name"), ("a.html", "already")])
def test_an_output_that_cannot_be_written_is_found_first(
    output: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "a.html").mkdir()
    with pytest.raises(UserError, match=told):
        report([trained(tmp_path / "a")], tmp_path / output)
    assert capsys.readouterr().out == ""


def test_a_missing_run_is_named_before_its_page(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is no run folder"):
        report([RunFolder(tmp_path / "file")], None)


# --- the list


def test_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import os

    for age, (name, scores) in enumerate([("deep/new", {"ciede2000": 7.0}), ("old", None)]):
        run = trained(tmp_path / name, scores=scores, finished=age == 0)
        for file in (run.config_file, run.metrics_file):
            os.utime(file, (1e9 - age, 1e9 - age))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.yaml").write_text("]")
    (tmp_path / "damaged" / "metrics.jsonl").write_text("")
    (tmp_path / "no-run").mkdir()
    (tmp_path / "no-run" / "config.yaml").write_text("a: 1")
    colordist.report.list_runs(tmp_path)
    _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [str(tmp_path / name) for name in ("damaged", "deep/new", "old")]
    assert "damaged" in lines[0].split()
    assert lines[1].split()[1:6] == ["cgan", "finished", "200/200", "CIEDE2000", "7.00"]
    assert lines[2].split()[1:5] == ["cgan", "unfinished", "200/200", "-"]


def test_list_of_nothing(tmp_path: Path) -> None:
    assert listing(find(tmp_path), tmp_path) == f"no runs under {tmp_path}"
    with pytest.raises(UserError, match="there is no folder"):
        find(tmp_path / "nowhere")


# --- Weights & Biases

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def spec(comparison: Comparison) -> dict[str, Any]:
    """The report's whole specification, as it would be sent."""
    pytest.importorskip("wandb_workspaces", reason="needs wandb-workspaces: pip install 'colordist[report]'")
    model = build(comparison, ["id-a", "id-b"], "project", "somebody")._to_model()
    found: dict[str, Any] = json.loads(model.model_dump_json(by_alias=True, exclude_none=True))
    return found


def test_the_report_at_wandb(tmp_path: Path) -> None:
    comparison = two(tmp_path)
    whole = spec(comparison)
    blocks = {block["type"]: block for block in whole["spec"]["blocks"]}
    assert comparison.verdict.line in blocks["markdown-block"]["content"].replace("\\", "")
    grid = blocks["panel-grid"]["metadata"]
    (runs,) = grid["runSets"]
    assert runs["filters"]["filters"][0]["value"] == ["id-a", "id-b"]
    panels = grid["panelBankSectionConfig"]["panels"]
    lines = [panel["config"]["metrics"] for panel in panels if panel["viewType"] == "Run History Line Plot"]
    assert lines == [
        ["score/ciede2000"],
        ["pace/images_per_second"],
        ["loss/generator/l1"],
        ["loss/discriminator/real"],
    ]
    kinds = {panel["viewType"]: panel["config"] for panel in panels}
    assert kinds["Media Browser"]["mediaKeys"] == ["samples"]
    assert "Run Comparer" in kinds
    places = [tuple(panel["layout"].values()) for panel in panels]
    assert len(set(places)) == len(places)


def test_markdown_takes_names_for_text(tmp_path: Path) -> None:
    scores = {"ciede2000": 7.0}
    other = {"data.classes": "a|b*c*", "data.source": "folder"}
    text = markdown(
        compare([trained(tmp_path / "a", scores=scores), trained(tmp_path / "b", scores=scores, settings=other)])
    )
    assert r"a\|b\*c\*" in text
    head, *rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in (head, *rows)}) == 1


def test_without_a_key_the_page_is_still_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    run = trained(tmp_path / "a", scores={"ciede2000": 7.0})
    (run.path / "wandb.json").write_text('{"id": "ab12"}')
    with pytest.raises(UserError, match=r"^--wandb: there is no key: run `wandb login` once"):
        report([run], None, wandb=True)
    assert (run.path / "report.html").exists()


@pytest.mark.parametrize("text", ["[", "{}", '{"id": 5}', '{"id": "a\\u001b[31m"}', '{"id": "\') or 1"}', '{"id": ""}'])
@pytest.mark.parametrize("file", ["wandb.json", "wandb_id"])
def test_an_id_of_wandb_that_is_none(file: str, text: str, tmp_path: Path) -> None:
    run = trained(tmp_path / "a", scores={"ciede2000": 7.0})
    (run.path / file).write_text(text)
    with pytest.raises(UserError, match=rf"{file} is damaged: ") as refused:
        publish(compare([run]))
    assert str(refused.value).isprintable()


def test_runs_that_wandb_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="wasn't tracked by W&B"):
        publish(two(tmp_path))
