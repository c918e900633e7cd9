"""Division of the global batch among processes and into micro-batches. Without torch."""

from dataclasses import dataclass

from colordist.config import TrainConfig
from colordist.errors import UserError


@dataclass(frozen=True)
class BatchArithmetic:
    """Division of a global batch."""

    global_batch_size: int
    processes: int
    per_process: int
    """Images per process and step."""
    accumulation: int
    """Micro-batches per step and process."""

    @property
    def micro_batch_size(self) -> int:
        """Images of the largest micro-batch."""
        return -(-self.per_process // self.accumulation)

    def __str__(self) -> str:
        return (
            f"{self.global_batch_size} images a step = {self.processes} processes x {self.per_process} images, "
            f"in {self.accumulation} micro-batches of at most {self.micro_batch_size}"
        )


def batch_arithmetic(train: TrainConfig, processes: int) -> BatchArithmetic:
    """Divide the global batch among processes. Raises UserError, with sizes that fit, if it doesn't divide evenly."""
    total = train.global_batch_size
    if total % processes:
        batches = [size for size in (total // processes * processes, (total // processes + 1) * processes) if size]
        counts = [count for count in range(1, min(total, 2 * processes) + 1) if total % count == 0]
        raise UserError(
            f"train.global_batch_size is {total}, which {processes} processes can't share equally: try "
            f"{' or '.join(map(str, batches))}, or one of {', '.join(map(str, counts))} processes"
        )
    share = total // processes
    return BatchArithmetic(total, processes, share, -(-share // min(train.micro_batch_size or share, share)))
