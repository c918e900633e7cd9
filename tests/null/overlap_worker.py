"""One of several processes: logs the streams in one backward pass of the generator, into a file.

python overlap_worker.py FILE SETTING...    rank 0 writes the file
"""

import sys
from pathlib import Path

import null_device
from torch import Tensor

from colordist.cli.parser import parse
from colordist.run.folder import RunFolder
from colordist.training.build import build_trainer

STEPS = 3  # by then DDP has rebuilt its buckets


def main(file: Path) -> None:
    config = parse().config
    assert config.run.dir is not None
    trainer = build_trainer(config, RunFolder(Path(config.run.dir)))
    trainer.start()
    for step in range(STEPS):
        trainer.advance(step)
    strategy = trainer.engine.strategies["generator"]
    backward = strategy.backward

    def logged(loss: Tensor) -> None:
        null_device.log_streams(True)
        backward(loss)
        null_device.log_streams(False)

    strategy.backward = logged  # type: ignore[method-assign]
    trainer.advance(STEPS)
    if trainer.engine.is_main:
        file.write_text("\n".join(null_device.stream_log()))
    trainer.close()
    trainer.engine.close()


if __name__ == "__main__":
    path, *sys.argv[1:] = sys.argv[1:]
    main(Path(path))
