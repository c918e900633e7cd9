"""Specs of scores that are no longer computed, so that reports of older runs still show them."""

from colordist.metrics.specs import MetricSpec

REMOVED = (
    MetricSpec("classifier_frechet", "Fréchet (custom classifier)", "lower", digits=3),
    MetricSpec("classifier_kernel", "Kernel x1000 (custom classifier)", "lower", digits=3),
    MetricSpec("classifier_accuracy", "Accuracy % (custom classifier)", "higher", digits=1),
)
"""By a classifier of 0.57 million parameters that was trained for each data set: docs/experiments.md."""
