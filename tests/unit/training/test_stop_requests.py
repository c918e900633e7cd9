"""Asked to stop: by real signals, by a file, by a clock that is set by hand."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from colordist.training import stop_requests as stopping
from colordist.training.stop_requests import SIGNALS, StopRequests


class Clock:
    """Seconds go by when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stopping, "time", clock)
    return clock


@pytest.fixture
def requests(clock: Clock) -> Iterator[StopRequests]:
    """They listen until the test is over."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    requests = StopRequests()
    requests.listen()
    yield requests
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_a_request(number: signal.Signals, requests: StopRequests) -> None:
    assert requests.reason() is None
    send(number)
    assert requests.reason() == number.name
    assert requests.reason() == number.name


@pytest.mark.parametrize("after", [0.0, 0.1, 1.9])
def test_launchers_pass_a_signal_on_twice(after: float, requests: StopRequests, clock: Clock) -> None:
    send(signal.SIGTERM)
    clock.now += after
    send(signal.SIGTERM)
    send(signal.SIGINT)
    assert requests.reason() == "SIGTERM"


@pytest.mark.parametrize("number", SIGNALS)
def test_a_repeat_later_means_now(number: signal.Signals, requests: StopRequests, clock: Clock) -> None:
    send(signal.SIGUSR1)
    clock.now += 2.1
    with pytest.raises(KeyboardInterrupt):
        send(number)
    with pytest.raises(KeyboardInterrupt):
        send(number)


def test_a_file_is_a_request(requests: StopRequests, clock: Clock, tmp_path: Path) -> None:
    file = tmp_path / "stop"
    clock.now += 3
    assert requests.reason(file) is None
    file.touch()
    clock.now += 1.9
    assert requests.reason(file) is None  # a slow disk isn't asked at every step
    clock.now += 0.2
    assert requests.reason(file) == f"the file {file}"
    file.unlink()
    assert requests.reason(file) == f"the file {file}"


def test_a_signal_after_a_file_is_a_first_one(requests: StopRequests, clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "stop").touch()
    clock.now += 3
    assert requests.reason(tmp_path / "stop")
    clock.now += 3
    send(signal.SIGTERM)
    assert requests.reason() == f"the file {tmp_path / 'stop'}"


def test_the_clock_is_a_request(requests: StopRequests, clock: Clock) -> None:
    clock.now += 89
    assert requests.reason(max_minutes=1.5) is None
    clock.now += 2
    assert requests.reason(max_minutes=None) is None
    assert requests.reason(max_minutes=1.5) == "train.max_minutes 1.5"


def test_a_process_lives_on_until_it_is_told_again() -> None:
    """By the real clock."""
    script = """
import sys, time
from colordist.training.stop_requests import StopRequests
requests = StopRequests()
requests.listen()
print("listens", flush=True)
while requests.reason() is None:
    time.sleep(0.001)
print(requests.reason(), flush=True)
time.sleep(60)
"""
    command, pipe = [sys.executable, "-c", script], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "listens\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "SIGUSR1\n"
        process.send_signal(signal.SIGUSR1)  # at once: passed on by a launcher
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2.2)
        process.send_signal(signal.SIGTERM)
        assert "KeyboardInterrupt" in process.stderr.read()
