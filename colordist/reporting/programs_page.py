"""The page on programs: scores beside baselines and oracle, and photographs with the answers to them."""

from colordist.evaluation.pairs import Pairs
from colordist.reporting.charts import COLORS
from colordist.reporting.drawing import Style
from colordist.reporting.html import island, score_table
from colordist.reporting.photos import EACH, examples
from colordist.reporting.programs import Programs
from colordist.reporting.template import render
from colordist.reporting.viewer import figures


def page(programs: Programs, pairs: Pairs) -> str:
    """Render the page as HTML."""
    judgement, verdict = programs.judgement, programs.verdict
    groups = [
        {"name": name, "seeds": 1, "style": Style(number % COLORS, "solid"), "folder": folder}
        for number, (name, folder) in enumerate(judgement.answers.items())
    ]
    photos = examples(judgement, pairs)
    which = "All photographs" if len(photos) == len(judgement.images) else f"The {EACH} worst, middle and best ones"
    table = score_table(programs.rows, judgement.specs, groups, intervals=True)
    context = table | {
        "title": " and ".join(judgement.answers) if len(groups) < 3 else f"{len(groups)} programs",
        "verdict": verdict,
        "notes": verdict.caveats,
        "scored": f"{len(judgement.images)} photographs, each at its own size",
        "paired": True,
        "chosen": f"{which}, by the mean {judgement.specs.primary.label} of all answers.",
        "photos": figures(photos),
        "folder": judgement.photographs,
        "data": island({"runs": []}),
        "sections": [("scores", "Scores"), ("photographs", "Photographs"), ("programs", "Programs")],
    }
    return render("programs.html", context)
