"""The same components, for ``--import``."""

import colordist_extension

from colordist.registry import register

register("model", "registered_pointwise")(colordist_extension.Pointwise)
register("task", "registered_refine")(colordist_extension.RefineTask)
register("source", "registered_stripes")(colordist_extension.StripesSource)
register("metric", "registered_redness")(colordist_extension.RednessMetric)
