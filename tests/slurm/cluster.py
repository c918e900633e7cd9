"""A small real SLURM cluster on one machine, for the time of a test session.

As root, a node is a process tree in namespaces of its own: its host name, network address, ports, processes and
/dev/shm. The disk is shared, as it would be over NFS. All of it lives in one more such tree, with the controller and
the switch that joins the nodes, so that nothing outside is touched, and killing one process ends everything.
Without root, nodes are just daemons on ports of this machine: enough to run jobs, not to cut a node off.
"""

import getpass
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
HERE = Path(__file__).parent
NEEDED = ("slurmctld", "slurmd", "munged", "sbatch", "unshare", "nsenter", "ip", "pkill")
NETWORK = "10.77.0"
RATE = "8mbit"  # of a node's link: so slow that a training lasts long enough to be disturbed, on any machine
GPUS = 4  # a node's; not real ones

CONFIGURATION = """
ClusterName=test
SlurmctldHost={controller}({controller_address})
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
AuthType=auth/munge
CredType=cred/munge
# cred_expire: a job that is requeued waits that long, at least
AuthInfo=socket={folder}/munge.socket,cred_expire=5
# Neither systemd nor cgroups are needed.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
# Nodes claim more than the machine has.
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
# Everything quicker than on a real cluster, where a node counts as lost after five minutes.
SlurmdTimeout=10
KillWait=15
MessageTimeout=5
TCPTimeout=2
UnkillableStepTimeout=20
BatchStartTimeout=10
CompleteWait=0
MinJobAge=3600
SchedulerParameters=sched_interval=1,sched_min_interval=100000,bf_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=ALL Default=YES State=UP MaxTime=INFINITE DefaultTime=60 PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes=ALL State=UP MaxTime=INFINITE DefaultTime=60 PriorityTier=10 PreemptMode=OFF
"""


class Cluster:
    """Nodes node1, node2, ... and what SLURM needs to run jobs on them."""

    def __init__(self, folder: Path, nodes: int = 3) -> None:
        """folder: must be new, and its path short, for sockets lie in it."""
        self.folder = folder
        self.names = [f"node{number}" for number in range(1, nodes + 1)]
        self.has_machines = os.geteuid() == 0 and _can_unshare()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._inits: dict[str, int] = {}
        self._port = 17000 if self.has_machines else 17000 + os.getpid() % 1000 * 10
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")

    # --- up and down

    def start(self) -> None:
        """Bring everything up; return when all nodes are idle."""
        self.folder.mkdir(parents=True)
        self._configure()
        if self.has_machines:
            self._start_machine("controller", f"{NETWORK}.254")
        munge = [f"--{key}={self.folder}/munge.{key.split('-')[0]}" for key in ("key-file", "socket", "pid-file")]
        logs = [f"--{key}-file={self.folder}/munge.{key}" for key in ("log", "seed")]
        self._start("munged", "munged", "--foreground", "--force", *munge, *logs)
        _wait_for(lambda: (self.folder / "munge.socket").exists(), 10, "munged")
        self._start("slurmctld", "slurmctld", "-D", "-i")
        for name in self.names:
            self.power_on(name)
        _wait_for(lambda: self._idle() == set(self.names), 60, "nodes", self._explain)

    def stop(self) -> None:
        """Take everything down."""
        if not self.has_machines:
            with suppress(subprocess.SubprocessError):  # jobs outlive their daemons there
                self.run("scancel", "--user", getpass.getuser())
                _wait_for(lambda: not self.run("squeue", "-h"), 30, "jobs to end")
        for name in reversed(list(self._processes)):
            self._end(name)

    def power_on(self, name: str) -> None:
        """Start a node."""
        number = int(name.removeprefix("node"))
        cores = sorted(os.sched_getaffinity(0))  # one for each, so that threads of two nodes don't wait for each other
        pinned = ["taskset", "--cpu-list", str(cores[number % len(cores)]), "slurmd", "-D"]
        if self.has_machines:
            self._start_machine(name, f"{NETWORK}.{number}", *pinned)
        else:
            self._start(name, *pinned, "-N", name)

    def power_off(self, name: str) -> None:
        """Cut a node's power: no process of it says goodbye, no packet leaves it."""
        self._link(name, "down")
        self._end(name)
        self._ip("controller", f"link delete {name}", check=False)  # the kernel takes its time
        (self.folder / f"up-{name}").unlink()

    def cut_off(self, name: str) -> None:
        """Take network and disk from a node: whatever runs there hangs, and lives."""
        self._link(name, "down")
        self.run_on(name, "bash", "-c", "kill -STOP -1")

    def heal(self, name: str) -> None:
        """Undo either."""
        if not (self.folder / f"up-{name}").exists():
            self.power_on(name)
        else:
            self._link(name, "up")
            self.run_on(name, "bash", "-c", "kill -CONT -1")

    def reconnect(self, name: str) -> None:
        """Give back what ``cut_off`` took, but leave slurmd stopped: it would kill the job that now runs elsewhere."""
        self._link(name, "up")
        self.run_on(name, "pkill", "--signal", "CONT", "--inverse", "--exact", "slurmd")

    def all_idle(self, seconds: float = 60) -> None:
        """Heal what is down, end all jobs, and wait until the cluster is as new."""
        if self.has_machines:
            for name in self.names:
                self.heal(name)
        for name in self.names:  # should it be drained: it can't be resumed where it isn't
            self.run("scontrol", "update", f"nodename={name}", "state=resume", check=False)
        self.run("scancel", "--user", getpass.getuser())
        _wait_for(lambda: self._idle() == set(self.names), seconds, "nodes", self._explain)

    # --- commands

    def run(
        self, *command: str, environment: dict[str, str] | None = None, folder: Path | None = None, check: bool = True
    ) -> str:
        """A command's output, run beside the controller; with what it says on stderr, if its status isn't checked."""
        return self._command("controller", command, environment, folder, check)

    def run_on(self, name: str, *command: str) -> str:
        """A command's output, run on a node."""
        return self._command(name, command, None, None, check=True)

    def _command(
        self, name: str, command: tuple[str, ...], environment: dict[str, str] | None, folder: Path | None, check: bool
    ) -> str:
        done = subprocess.run(
            [*self._inside(name, folder), *command],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=folder,
            env=environment,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout.strip() if check else (done.stdout + done.stderr).strip()

    # --- parts

    def _configure(self) -> None:
        controller = "controller" if self.has_machines else os.uname().nodename.split(".")[0]
        address = f"{NETWORK}.254" if self.has_machines else "127.0.0.1"
        lines = [
            CONFIGURATION.format(
                controller=controller,
                controller_address=address,
                port=self._port,
                user=getpass.getuser(),
                folder=self.folder,
            )
        ]
        hosts = ["127.0.0.1 localhost", "::1 localhost", f"{NETWORK}.254 controller"]
        for number, name in enumerate(self.names, start=1):
            node = f"NodeName={name} CPUs=32 RealMemory=64000"
            if self.has_machines:
                lines.append(f"{node} NodeAddr={NETWORK}.{number} Gres=gpu:{GPUS}")
                # Torch asks for names of addresses, in either form: without an answer it waits for one.
                hosts += [f"{NETWORK}.{number} {name}", f"::ffff:{NETWORK}.{number} {name}"]
            else:
                lines.append(f"{node} NodeHostname={controller} NodeAddr=127.0.0.1 Port={self._port + number}")
        if self.has_machines:
            lines += ["GresTypes=gpu", f"SlurmdPort={self._port + 1}"]
            devices = self.folder / "gpu"
            for number in range(GPUS):  # something to hand out: copies of /dev/null
                os.mknod(f"{devices}{number}", 0o20666, os.makedev(1, 3))
            gres = f"NodeName={','.join(self.names)} Name=gpu File={devices}[0-{GPUS - 1}]\n"
            (self.folder / "gres.conf").write_text("AutoDetect=off\n" + gres)
        (self.folder / "slurm.conf").write_text("\n".join(lines) + "\n")
        # Unless told which one, slurmd looks for a mounted cgroup file system, and dies where there is none.
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        (self.folder / "hosts").write_text("\n".join(hosts) + "\n")
        names = Path("/etc/nsswitch.conf").read_text() if Path("/etc/nsswitch.conf").exists() else "hosts: files\n"
        (self.folder / "nsswitch.conf").write_text(re.sub("(?m)^hosts:.*", "hosts: files", names))
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)

    def _start_machine(self, name: str, address: str, *command: str) -> None:
        """Make a machine; the controller comes first, and the others lie in it."""
        spaces = ["--net", "--uts", "--ipc", "--pid", "--mount"]
        unshare = ["unshare", *spaces, "--fork", "--kill-child=KILL", "--mount-proc"]
        init = ["bash", str(HERE / "machine.sh"), name, address, str(self.folder), *command]
        self._start(name, *unshare, *init)
        first = _wait_for(lambda: self._child_of(name), 10, f"first process of {name}")
        self._inits[name] = first
        if name == "controller":  # its eth0 is the switch
            self._ip(name, "link add eth0 type bridge")
        else:
            inside = self._pid_inside_controller(first)
            self._ip("controller", f"link add {name} type veth peer name eth0 netns {inside}")
            self._ip("controller", f"link set {name} master eth0 up")
            slow = ["tc", "qdisc", "add", "dev", name, "root", "tbf", "rate", RATE, "burst", "64k", "latency", "1s"]
            subprocess.run([*self._inside("controller"), *slow], check=True)
        _wait_for(lambda: (self.folder / f"up-{name}").exists(), 10, f"{name} to come up", self._explain)

    def _start(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as out:
            inside = self._inside("controller") if name != "controller" else []
            command = ("setpriv", "--pdeathsig", "KILL", *inside, *command)  # should the tests be killed
            self._processes[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def _end(self, name: str) -> None:
        """Machines and daemons alike: nothing of them is needed any more."""
        if name in self._inits:
            with suppress(ProcessLookupError):
                os.kill(self._inits.pop(name), signal.SIGKILL)
        process = self._processes.pop(name)
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _inside(self, name: str, folder: Path | None = None) -> list[str]:
        if not self.has_machines:
            return []
        return ["nsenter", "--target", str(self._inits[name]), "--all", f"--wdns={folder or Path.cwd()}", "--"]

    def _child_of(self, name: str) -> int | None:
        """The first process of a machine, once it has left for namespaces of its own."""
        parent = self._processes[name]
        if parent.poll() is not None:
            raise AssertionError(f"{name} is gone: {self._explain()}")
        pid: int | None = parent.pid
        while pid is not None and _program(pid) != "bash":
            pid = _only_child(pid)
        return pid

    def _pid_inside_controller(self, pid: int) -> int:
        """What a process is called where the controller is."""
        status = Path(f"/proc/{pid}/status").read_text()
        numbers = re.search(r"NSpid:\s+(.*)", status)
        assert numbers is not None
        return int(numbers[1].split()[-2])

    def _ip(self, name: str, command: str, *, check: bool = True) -> None:
        subprocess.run([*self._inside(name), "ip", *command.split()], capture_output=True, check=check)

    def _link(self, name: str, state: str) -> None:
        self._ip("controller", f"link set {name} {state}")

    def _idle(self) -> set[str]:
        output = self.run("sinfo", "-h", "-N", "-o", "%N %t", check=False)
        return {line.split()[0] for line in output.splitlines() if line.endswith(" idle")}

    def _explain(self) -> str:
        logs = [*self.folder.glob("*.out"), *self.folder.glob("*.log")]
        tails = [f"--- {log.name}\n" + "\n".join(log.read_text().splitlines()[-8:]) for log in logs]
        return "\n".join([*tails, self.run("sinfo", "-N", "-l", check=False)])


def why_not() -> str | None:
    """What keeps a cluster from being started here; None if nothing does."""
    missing = [program for program in NEEDED if shutil.which(program, path=_PATH) is None]
    return f"{', '.join(missing)} not installed (Debian: slurm-wlm munge iproute2 procps)" if missing else None


_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"  # where daemons are


def _can_unshare() -> bool:
    command = ["unshare", "--net", "--uts", "--ipc", "--pid", "--mount", "--fork", "--mount-proc", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _program(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _only_child(pid: int) -> int | None:
    with suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else None
    return None


def _wait_for(look: Callable[[], T | None], seconds: float, what: str, explain: Callable[[], str] = lambda: "") -> T:
    """What ``look`` returns as soon as it is something. Raises AssertionError when time is up."""
    deadline = time.monotonic() + seconds
    while True:
        if found := look():
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s for {what}\n{explain()}")
        time.sleep(0.1)
