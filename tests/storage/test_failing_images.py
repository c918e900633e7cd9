"""Training on images, and reports, whose disk fails."""

from dataclasses import replace
from pathlib import Path

import pytest
from disk import BROKEN, FULL, READS, STALE, Disk, Rule
from runs import run
from small_images import save_images
from storage_runs import SETTINGS, assert_finished, at_step, files

from colordist.config import RunError
from colordist.report import report
from colordist.run.folder import RunFolder

pytestmark = [pytest.mark.storage, pytest.mark.usefixtures("_alone")]

BAD_SECTOR = replace(BROKEN, operations=("read",))
