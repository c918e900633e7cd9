"""Whether a process has ended: known of this machine's alone, and never claimed of one that lives."""

import errno
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest

from colordist.processes import UNKNOWN, Process


def test_a_living_process_has_not_ended() -> None:
    assert not Process.current().has_ended()


def test_one_that_was_killed_has_ended_before_its_parent_looks_after_it_and_afterwards() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = psutil.Process(child.pid).create_time() - psutil.boot_time()
    process = replace(Process.current(), pid=child.pid, started=started)
    assert not process.has_ended()
    child.kill()
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        pass
    assert process.has_ended()
    child.communicate()
    assert process.has_ended()


def test_another_by_the_same_number_is_not_the_same() -> None:
    me = Process.current()
    assert replace(me, started=me.started - 60).has_ended()


def test_of_another_machine_nothing_is_known() -> None:
    me = Process.current()
    assert not replace(me, machine="another", pid=2**22 + 1).has_ended()
    assert not UNKNOWN.has_ended()


@pytest.mark.parametrize("seconds", [-5, 5])
def test_a_clock_that_is_set_ends_nobody(seconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    me, boot = Process.current(), psutil.boot_time()
    monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: boot + seconds)  # type: ignore[attr-defined]
    assert not me.has_ended()
    assert not me.has_ended()


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "too many open files"), psutil.AccessDenied(), RuntimeError()])
def test_a_look_that_fails_ends_nobody(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    me = Process.current()

    def fail(pid: int) -> None:
        raise error

    monkeypatch.setattr(psutil, "Process", fail)
    assert not me.has_ended()
    assert Process.current() == Process(me.host)
