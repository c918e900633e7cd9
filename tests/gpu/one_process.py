"""A process that a launcher starts on a GPU: a few steps in double precision, and what it ran on, as JSON.

torchrun --nproc_per_node 1 one_process.py FILE
"""

import json
import sys
from pathlib import Path

from gpu_helpers import Training, double


def main(file: Path) -> None:
    run = Training(double("cgan"))
    logs = [run.step(step) for step in range(3)]
    found = {
        "device": run.engine.device.type,
        "backend": run.engine.backend,
        "network": type(run.strategy("generator").trainable).__name__,
        "logs": logs,
    }
    file.write_text(json.dumps(found))
    run.engine.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
