"""Addresses that a server listens at."""

import errno
import socket

from colordist.errors import UserError, printable

FIRST_PORT = 7860  # Gradio's
_TRIES = 100


def listen(host: str, port: int | None = None) -> socket.socket:
    """Open a socket that listens at a host's address.

    port: None: 7860 or the next free one; 0: any. Raises UserError for an unknown host, or a port that can't be used.
    """
    family, address = _resolved(host)
    if port is not None:
        try:
            return _bound(family, address, port)
        except OSError as error:
            raise UserError(_reason(error, host, port)) from None
    for number in range(FIRST_PORT, FIRST_PORT + _TRIES):
        try:
            return _bound(family, address, number)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise UserError(_reason(error, host, number)) from None
    raise UserError(f"ports {FIRST_PORT} to {FIRST_PORT + _TRIES - 1} are taken: give a free one by --port")


def url(listener: socket.socket) -> str:
    """The address that a browser on this machine opens."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_local(listener: socket.socket) -> bool:
    """Whether only this machine reaches it."""
    host = str(listener.getsockname()[0])
    return host.startswith("127.") or host == "::1"


def _resolved(host: str) -> tuple[int, str]:
    """Family and numeric address of a host. Raises UserError for an unknown one."""
    try:
        found = socket.getaddrinfo(host or None, None, type=socket.SOCK_STREAM) if host else []
    except (OSError, UnicodeError):
        found = []
    if not found:
        raise UserError(f"--host {printable(host)!r} is unknown: try --host 127.0.0.1")
    family, *_, address = found[0]
    return family, str(address[0])


def _bound(family: int, address: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # free again right after a server has ended
        listener.bind((address, port))
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener


def _reason(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"--port {port} is taken: try another one, or leave --port out"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host {printable(host)} is no address of this machine: try --host 127.0.0.1"
    return f"--host {printable(host)} --port {port} can't be used ({error.strerror}): try others"
