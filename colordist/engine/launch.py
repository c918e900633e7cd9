"""Rank and world size, from the launcher's environment variables. Read only here, before torch is imported."""

import os
from dataclasses import dataclass

from colordist.engine.variables import WAY_OUT, check, integer
from colordist.errors import UserError


@dataclass(frozen=True)
class Launch:
    """Rank and world size of this process."""

    rank: int
    world_size: int
    local_rank: int = 0
    """Among the processes of its machine."""

    @classmethod
    def read(cls) -> "Launch":
        """Read the environment. Raises UserError where it is inconsistent."""
        environment = os.environ
        for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"):
            if "WORLD_SIZE" not in environment and integer(name, 1) > 1:
                raise UserError(f"{name} is {environment[name]}, but launches by MPI aren't supported: {WAY_OUT}")
        names = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        for name, other in (*((name, "WORLD_SIZE") for name in names), ("WORLD_SIZE", "RANK")):
            if name in environment and other not in environment:
                raise UserError(f"{name} is {environment[name]!r}, but {other} is not set: {WAY_OUT}")
        world_size = integer("WORLD_SIZE", 1)
        for name, most in (("RANK", world_size - 1), ("LOCAL_RANK", world_size - 1), ("LOCAL_WORLD_SIZE", world_size)):
            if integer(name, 0) > most:
                raise UserError(f"{name} is {environment[name]}, but WORLD_SIZE is {world_size}: {WAY_OUT}")
        if world_size > 1 and integer("MASTER_PORT", 1) == 0:  # each process would wait at another one
            raise UserError(f"MASTER_PORT is 0, but must be a port that all processes know: {WAY_OUT}")
        check()
        return cls(integer("RANK", 0), world_size, integer("LOCAL_RANK", 0))


def adopt_slurm_step() -> None:
    """Set a launcher's variables from those of a step of SLURM whose tasks are the processes, if there is no launcher.

    The trainer doesn't do so: ``srun python -m colordist.train`` may as well mean several runs.
    """
    try:
        check()
    except UserError:  # which ``Launch.read`` raises again
        return
    if "WORLD_SIZE" not in os.environ and (tasks := integer("SLURM_STEP_NUM_TASKS", 1)) > 1:
        for name, source in (("RANK", "SLURM_PROCID"), ("LOCAL_RANK", "SLURM_LOCALID")):
            os.environ[name] = os.environ.get(source, "0")
        os.environ["WORLD_SIZE"] = str(tasks)


def let_threads_sleep() -> None:
    """Have GNU OpenMP's threads spin for microseconds only, then sleep. Must be called before torch is imported.

    By default they spin for milliseconds. On a busy machine that takes the core that the last thread is waiting for:
    small operations then take up to fifty times as long.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def is_first() -> bool:
    """Whether this is rank 0, which reports errors; also where the environment is inconsistent."""
    try:
        return Launch.read().rank == 0
    except UserError:
        return True
