"""The launcher's environment variables: rank and world size. Read only here, before torch is imported."""

import os
from dataclasses import dataclass

from colordist.config import UserError

_LAST_PORT = 2**16 - 1
_WAY_OUT = "start with accelerate launch or torchrun, or unset the variables of another launch"


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
            if "WORLD_SIZE" not in environment and environment.get(name, "1") != "1":
                raise UserError(f"{name} is {environment[name]}, but launches by MPI aren't supported: {_WAY_OUT}")
        names = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        for name, other in (*((name, "WORLD_SIZE") for name in names), ("WORLD_SIZE", "RANK")):
            if name in environment and other not in environment:
                raise UserError(f"{name} is {environment[name]!r}, but {other} is not set: {_WAY_OUT}")
        world_size = number("WORLD_SIZE", 1, at_least=1)
        for name, at_least, most in (
            ("RANK", 0, world_size - 1),
            ("LOCAL_RANK", 0, world_size - 1),
            ("LOCAL_WORLD_SIZE", 1, world_size),
        ):
            if number(name, at_least, at_least=at_least) > most:
                raise UserError(f"{name} is {environment[name]}, but WORLD_SIZE is {world_size}: {_WAY_OUT}")
        if number("MASTER_PORT", 0, at_least=0) > _LAST_PORT:
            port = environment["MASTER_PORT"]
            raise UserError(f"MASTER_PORT is {port}, but must be at most {_LAST_PORT}: {_WAY_OUT}")
        return cls(number("RANK", 0, at_least=0), world_size, number("LOCAL_RANK", 0, at_least=0))


def adopt_slurm_step() -> None:
    """Set a launcher's variables from those of a step of SLURM whose tasks are the processes, if there is no launcher.

    The trainer doesn't do so: ``srun python -m colordist.train`` may as well mean several runs.
    """
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if "WORLD_SIZE" not in os.environ and tasks != "1":
        for name, source in (("RANK", "SLURM_PROCID"), ("LOCAL_RANK", "SLURM_LOCALID")):
            os.environ[name] = os.environ.get(source, "0")
        os.environ["WORLD_SIZE"] = tasks


def let_threads_sleep() -> None:
    """Have GNU OpenMP's threads spin for microseconds only, then sleep. Must be called before torch is imported.

    By default they spin for milliseconds. On a busy machine that takes the core that the last thread is waiting for:
    small operations then take up to fifty times as long.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def number(name: str, default: int, *, at_least: int) -> int:
    """An environment variable as an integer. Raises UserError where it is none, or too small."""
    text = os.environ.get(name, str(default))
    if not text.isdecimal() or int(text) < at_least:
        raise UserError(f"{name} is {text!r}, but must be a whole number, at least {at_least}: {_WAY_OUT}")
    return int(text)


def is_first() -> bool:
    """Whether this is rank 0, which reports errors; also where the environment is inconsistent."""
    try:
        return Launch.read().rank == 0
    except UserError:
        return True
