"""The league: the same conditional GAN by colordist and by what people would use instead, under kills.

    pip install '.[league]'
    python benchmarks/league.py --json league.json                       # all of it: 40 minutes on two cores
    python benchmarks/league.py --parts kills lines --rivals colordist Accelerate
    python benchmarks/league.py --table league.json --plot league.svg    # from results

Each rival is a file in benchmarks/rivals, written as its documentation shows it, with the same networks, images and
losses (work.py). What each step sees is recorded from its input. Parts:

- *kills*: a training on two processes is killed ten times at given steps, in turns all of its processes and the last
  one alone, and started again by the same command. Images repeated and lost, the largest difference of the weights
  from an unbroken training's, seconds from kill to next step, and how often a person had to help;
- *save*: killed ten times at random moments within 0.2 s after the step that a checkpoint of 136 MB follows: how often
  a person had to help, and how often the checkpoint was being written;
- *elastic*: killed once, and continued on one process;
- *lost*: the last rank is killed, or stopped: seconds until all have ended, and whether the log names it;
- *goodput*: useful images a second, with one kill every 60 s;
- *stall*: what a checkpoint takes from the training, in steps; small, and with 136 MB;
- *wire*: bytes that a process sends in a step, counted on the network interface of a namespace (root alone);
- *speed*: images a second, one process and two;
- *lines*: that the user writes.

All rivals run in turns, part by part. Only CPUs are used.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import statistics
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from harness import Results, hardware, summary
from rivals.jobs import HERE, LIMIT, RIVALS, Job, Stuck, TimedOut, installed, namespace, schedule
from rivals.table import plot, table
from rivals.tally import after_gap, lasting, lines, repeated_and_lost, stalls, step_seconds, wire_bytes
from rivals.work import BATCH, IMAGES, write_images

KILLS, STEPS, SAVE_EVERY = 10, 320, 20
EPOCH = IMAGES // BATCH
PACKAGES = ("torch", "accelerate", "torchdata", "lightning", "torchft")
SIZES = {"small": 16, "136 MB": 64}  # widths of the networks


class League:
    """The parts, for one rival at a time."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.options = folder, options
        self.jobs: list[Job] = []
        self.images = folder / "images"
        write_images(self.images)

    def job(self, name: str, steps: int = STEPS, save_every: int = SAVE_EVERY, **more: Any) -> Job:  # noqa: ANN401
        """A new training."""
        out = Path(tempfile.mkdtemp(prefix="job-", dir=self.folder))  # an earlier run's would be continued
        job = Job(RIVALS[name], out, self.images, steps, save_every, **more)
        self.jobs.append(job)
        return job

    def unbroken(self, name: str, **more: Any) -> Job:  # noqa: ANN401
        """A training that is finished."""
        job = self.job(name, **more)
        job.start()
        job.wait_ended(600, interval=0.5)  # seldom: to look for it takes time of the cores that train
        job.kill()
        return job

    def kills(self, name: str) -> Results:
        """Ten kills against none."""
        survives = RIVALS[name].survives
        steps = STEPS * (6 if survives else 1)  # else one process alone is through before the other is back
        whole, job = self.unbroken(name), self.job(name, steps)
        started = [job.resume() - job.started]
        next_step = {"all": [], "one": []}  # type: dict[str, list[float]]
        again = 0
        for step, delay, everything in schedule(KILLS, STEPS):
            job.wait_step(step)
            wait_for_all(job)
            time.sleep(delay)
            last, killed = job.records()[-1].step, time.monotonic()
            trains = self.kill(job, everything=everything)
            next_step["all" if everything else "one"].append(trains - killed)
            again += max(0, last + 1 - min(record.step for record in job.records() if record.time >= trains))
        job.wait_step(steps, seconds=300)
        job.wait_ended(120)
        job.kill()
        started += [self.start_seconds(name) for _ in range(2)]
        final = lasting(job.records(), survives=survives)
        repeated, lost = (None, None) if survives else repeated_and_lost(final, IMAGES, EPOCH)
        if survives:  # its sampler has no epochs that all processes share
            lost = BATCH * steps - sum(len(record.images) for step in final.values() for record in step)
        return {
            "repeated": repeated,
            "lost": lost,
            "difference": None if survives else difference(whole, job),
            "by_hand": job.by_hand,
            "steps_done_again": again,
            "start_seconds": summary(started),
            "kill_to_next_step": {kind: summary(each) for kind, each in next_step.items()},
        }

    def start_seconds(self, name: str) -> float:
        """Seconds of a fresh start to its first step."""
        job = self.job(name)
        try:
            return job.resume() - job.started
        finally:
            job.kill()

    def kill(self, job: Job, *, everything: bool, limit: float = 60) -> float:
        """Kill all processes or the last one, and continue. Returns the time of the first step after that."""
        killed = time.monotonic()
        if everything:
            job.kill()
            return job.resume()
        job.send(signal.SIGKILL, job.processes - 1)
        if job.rival.survives:
            job.wait(lambda: job.records()[-1].time > killed + 1, limit)
            return after_gap(job.records(), killed)
        try:
            job.wait_ended(limit)
        except TimedOut:
            job.by_hand += 1
        job.kill()
        return job.resume()

    def save(self, name: str) -> Results:
        """Killed ten times soon after the step that a checkpoint of 136 MB follows."""
        job, seconds, writing = self.job(name, steps=10**6, save_every=10, width=SIZES["136 MB"], processes=1), [], 0
        draw = random.Random(0)
        job.resume()
        for _ in range(KILLS):
            now = job.records()[-1].step
            job.wait_step(now + 20 - now % 10)  # the one before is whole
            time.sleep(draw.uniform(0, 0.2))
            writing += job.writes()
            killed = time.monotonic()
            seconds.append(self.kill(job, everything=True) - killed)
        job.kill()
        return {"by_hand": job.by_hand, "while_writing": writing, "kill_to_next_step": summary(seconds)}

    def elastic(self, name: str) -> Results:
        """Two processes, killed, then one: the weights' difference from unbroken runs on two and on one."""
        job = self.job(name, steps=160)
        job.resume()
        job.wait_step(90)
        job.kill()
        job.processes = 1
        job.resume()
        job.wait_step(160, seconds=300)
        job.wait_ended(120)
        job.kill()
        steps = lasting(job.records(), survives=job.rival.survives)
        repeated, lost = (None, None) if job.rival.survives else repeated_and_lost(steps, IMAGES, EPOCH)
        two, one = (self.unbroken(name, steps=160, processes=count) for count in (2, 1))
        found = {"difference": difference(two, job), "repeated": repeated, "lost": lost, "by_hand": job.by_hand}
        return found | {"unbroken_one_and_two": difference(two, one)}

    def lost(self, name: str) -> Results:
        """The last rank is killed, or stopped."""
        return {kind: self.signalled(name, number) for kind, number in (("killed", 9), ("stopped", signal.SIGSTOP))}

    def signalled(self, name: str, number: int) -> Results:
        """Send a signal to the last rank, and wait for the end."""
        job = self.job(name, steps=10**6, save_every=10**6)
        job.resume()
        job.wait_step(10)
        wait_for_all(job)
        printed = len(job.log())
        pid, sent = job.send(number, 1), time.monotonic()
        found: Results = {}
        with suppress(TimedOut):
            if job.rival.survives:
                job.wait(lambda: job.records()[-1].time > sent + 1, LIMIT)
                found["next_step"] = after_gap(job.records(), sent) - sent
            else:
                found["seconds"] = job.wait_ended(LIMIT) - sent
        found["named"] = names(job.log()[printed:], 1, pid)
        job.kill()
        return found

    def goodput(self, name: str) -> Results:
        """Useful steps in two minutes, with a kill of all processes and of one."""
        job = self.job(name, steps=10**6, save_every=100)
        begin, curve = time.monotonic(), []
        job.resume()
        for number, moment in enumerate((30, 90)):
            time.sleep(max(0, begin + moment - time.monotonic()))
            self.kill(job, everything=number == 0)
        time.sleep(max(0, begin + 120 - time.monotonic()))
        records, wall = job.records(), time.monotonic() - begin
        job.kill()
        images = sum(len(r.images) for step in lasting(records, survives=job.rival.survives).values() for r in step)
        for second in range(0, 121, 2):
            steps = [record.step for record in records if record.time <= begin + second]
            curve.append((second, steps[-1] if steps else 0))
        return {"useful_images": images, "seconds": wall, "images_per_second": images / wall, "curve": curve}

    def stall(self, name: str) -> Results:
        """Both sizes, on one process."""
        found: Results = {}
        for size, width in SIZES.items():
            job = self.unbroken(name, steps=61, save_every=10, width=width, processes=1)
            found[size] = stalls(job.records(), 10)
            shutil.rmtree(job.out)
        return found

    def wire(self, name: str) -> Results:
        """Bytes of a step."""
        with namespace() as found:
            if found is None:
                return {"bytes": None}
            job = self.unbroken(name, steps=60, save_every=10**6, namespace=found)
        return {"bytes": wire_bytes(job.records(), 20, 50, 2)}

    def speed(self, name: str) -> Results:
        """Images a second."""
        found: Results = {}
        for processes in (1, 2):
            job = self.unbroken(name, steps=100, save_every=10**6, processes=processes)
            found[str(processes)] = BATCH / statistics.median(step_seconds(job.records()))
        return found

    def lines(self, name: str) -> Results:
        """Of the rival's file."""
        return {"lines": lines(HERE / RIVALS[name].file)}


def names(text: str, rank: int, pid: int) -> bool:
    """Whether a text names a rank, or its process."""
    return bool(re.search(rf"(rank|process)\W{{0,4}}{rank}\b|\b{pid}\b", text, re.IGNORECASE))


def wait_for_all(job: Job) -> None:
    """Wait until all processes take part in the newest steps. Where they survive each other, each begins on its own."""
    if job.rival.survives:
        job.wait(lambda: len({record.rank for record in job.records()[-20:]}) == job.processes, 120)


def difference(one: Job, other: Job) -> float:
    """The largest difference of the final weights."""
    first, second = (torch.load(job.out / "final.pt", weights_only=True) for job in (one, other))
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def repeat(league: League, names: list[str], part: str, rounds: int) -> dict[str, list[Results]]:
    """A part by all rivals in turns, in reversed order every other round."""
    found: dict[str, list[Results]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names[:: -1 if number % 2 else 1]:
            begin = time.monotonic()
            try:
                found[name].append(getattr(league, part)(name))
            except (TimedOut, Stuck, OSError, RuntimeError, ValueError, LookupError, StopIteration) as error:
                found[name].append({"failed": f"{type(error).__name__}: {error}"})
            finally:
                for job in league.jobs:
                    job.kill()
            print(f"{part:8} {name:32} {time.monotonic() - begin:5.0f} s {short(found[name][-1])}", flush=True)
    return found


def short(result: Results) -> str:
    """A result as a line, without curves."""
    return json.dumps({key: value for key, value in result.items() if key != "curve"})[:200]


PARTS = ("lines", "speed", "stall", "goodput", "kills", "save", "elastic", "wire", "lost")
REPEATED = ("speed", "stall")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rivals", nargs="+", default=list(RIVALS), choices=list(RIVALS), metavar="NAME")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS, metavar="PART")
    parser.add_argument("--rounds", type=int, default=2, help=f"of {', '.join(REPEATED)}")
    parser.add_argument("--out", type=Path, help="folder for all trainings; default: a temporary one")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="results, after each part; the same command continues"
    )
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the table of results, and run nothing")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw useful steps over time (SVG), with --table")
    options = parser.parse_args()
    if options.table:
        if not options.table.exists():
            parser.error(f"--table {options.table}: there is no such file")
        found = json.loads(options.table.read_text())
        print(table(found))
        if options.plot:
            options.plot.write_text(plot(found))
        return
    with tempfile.TemporaryDirectory(prefix="league-") as temporary:
        run(options, options.out or Path(temporary))


def run(options: argparse.Namespace, folder: Path) -> None:
    """All parts."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [name for name in options.rivals if name == "colordist" or installed([RIVALS[name].package])]
    found: Results = {"hardware": hardware(), "load": os.getloadavg()[0], "rounds": options.rounds}
    found |= {"versions": installed(PACKAGES), "names": names, "parts": {}}
    if options.json and options.json.exists():
        before = json.loads(options.json.read_text())
        if any(before[key] != found[key] for key in ("hardware", "rounds", "versions")) or before["names"] != names:
            raise SystemExit(f"{options.json} is of other rivals, versions or hardware: name another file")
        found["parts"] = before["parts"]
    league = League(folder, options)
    for part in [part for part in options.parts if part not in found["parts"]]:
        rounds = options.rounds if part in REPEATED else 1
        found["parts"][part] = repeat(league, names, part, rounds)
        if options.json:
            options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
