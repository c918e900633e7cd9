"""Addresses that can be listened at, and one line for those that can't."""

import socket

import pytest

from colordist.errors import UserError
from colordist.serving.address import FIRST_PORT, is_local, listen, url


def test_a_taken_port_is_one_line() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        assert url(first) == f"http://127.0.0.1:{port}"
        with pytest.raises(UserError, match=f"^--port {port} is taken: try another one, or leave --port out$"):
            listen("127.0.0.1", port)


def test_without_a_port_the_next_free_one_is_taken() -> None:
    with listen("127.0.0.1") as first, listen("127.0.0.1") as second:
        ports = [each.getsockname()[1] for each in (first, second)]
        assert FIRST_PORT <= ports[0] < ports[1] < FIRST_PORT + 100


@pytest.mark.parametrize("host", ["", "no such host", "x" * 300, "a..b", "\u2028", "nowhere.invalid"])
def test_an_unknown_host_is_one_line(host: str) -> None:
    with pytest.raises(UserError, match=r"^--host '.*' is unknown: try --host 127\.0\.0\.1$"):
        listen(host, 0)


def test_an_address_of_another_machine_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^--host 192\.0\.2\.1 is no address of this machine"):
        listen("192.0.2.1", 0)


def test_addresses_for_a_browser() -> None:
    with listen("0.0.0.0", 0) as everywhere, listen("localhost", 0) as here:
        assert url(everywhere) == f"http://localhost:{everywhere.getsockname()[1]}"
        assert not is_local(everywhere)
        assert is_local(here)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6() -> None:
    try:
        listener = listen("::1", 0)
    except UserError:
        pytest.skip("no IPv6 here")
    with listener:
        assert url(listener) == f"http://[::1]:{listener.getsockname()[1]}"
        assert is_local(listener)
