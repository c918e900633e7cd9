"""Ranges of settings and arguments: a value outside is refused in one line: the key, the value, and a valid one."""

import operator

from colordist.errors import UserError, printable

MOST = 10**12
"""The largest number of any key: every one has a finite range."""


def at_least(key: str, value: float | None, bound: float, most: float = MOST) -> None:
    """Raise UserError for a number below a bound, or above one that no use exceeds, or NaN. None passes."""
    if value is None or bound <= value <= most:
        return
    above = value > most
    way_out = f"try {key} {most if above else bound}"
    raise UserError(f"{key} is {value}, but must be at {f'most {most}' if above else f'least {bound}'}: {way_out}")


def in_range(key: str, value: float, low: float, high: float) -> None:
    """Raise UserError for a number outside of [low, high]."""
    if not low <= value <= high:
        nearest = high if value > high else low
        raise UserError(f"{key} is {value}, but must lie in [{low}, {high}]: try {key} {nearest}")


def above_zero(key: str, value: float, example: float) -> None:
    """Raise UserError for a number that isn't positive, or above one that no use exceeds."""
    if not 0 < value <= MOST:
        bound = f"at most {MOST}" if value > MOST else "above 0"
        raise UserError(f"{key} is {value}, but must be {bound}: try {key} {example}")


def whole(key: str, value: object, bound: int, most: int = MOST) -> int:
    """A whole number of any integer type, also NumPy's. Raises UserError for anything else, and as ``at_least``."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        shown = printable(repr(value)[:50])
        raise UserError(f"{key} is {shown}, but must be a whole number: try {key} {max(bound, 0)}")
    number = operator.index(value)
    if number.bit_length() > 128:  # Python writes numbers of up to some thousand digits
        raise UserError(f"{key} has {number.bit_length()} bits, but must be at most {most}: try {key} {max(bound, 0)}")
    at_least(key, number, bound, most)
    return number


def real(key: str, value: object, low: float, high: float) -> float:
    """A number of any real type, also NumPy's. Raises UserError for anything else, and as ``in_range``."""
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise UserError(f"{key} is {printable(repr(value)[:50])}, but must be a number: try {key} {low}")
    number = float(value)
    in_range(key, number, low, high)
    return number


def divides(key: str, depth: int, size: int) -> None:
    """Raise UserError if a size can't be halved depth times, to at least 2 pixels: one can't be normalised."""
    if size % 2**depth or size < 2 ** (depth + 1):
        valid = max((d for d in range(1, depth) if size % 2**d == 0 and size >= 2 ** (d + 1)), default=None)
        way_out = f"try {key} {valid}" if valid else f"try data.image_size {max(16, 2 ** (depth + 1))}"
        raise UserError(f"{key} is {depth}, but data.image_size {size} can't be halved that often: {way_out}")
