"""Errors that a user sees as one line, and the texts in them."""

from colordist.secrets import redacted


class UserError(Exception):
    """A user's mistake: one line with what is wrong, where, and the way out. Exit code 2."""


class RunError(Exception):
    """A failure that is not the user's mistake: one line. Exit code 1."""


def one_line(error: BaseException | str, most: int = 120) -> str:
    """The message of another library's exception, or a text, in one printable line of at most so many characters."""
    name = "" if isinstance(error, str) else type(error).__name__
    text = redacted(" ".join(str(error).split()))  # before a token is cut in half, and no longer recognised
    return printable(text or name)[:most]


def printable(text: str) -> str:
    """Text with a question mark for each character that would break a line, as file names may have."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def shortened(text: str, most: int = 500) -> str:
    """Printable text of about this many characters at most: the end of a message, the way out, stays."""
    text = printable(redacted(text))
    return text if len(text) <= most else f"{text[: most * 3 // 5]} [...] {text[-most * 2 // 5 :]}"
