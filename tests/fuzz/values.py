"""Hostile and plain values: for settings, arguments and parsed documents."""

from typing import Any, Literal, get_args, get_origin

from hypothesis import strategies as st

NUMBERS = st.one_of(
    st.integers(-3, 40),
    st.sampled_from([0, -1, 2**31, 2**63, -(2**63), 10**9, 10**30, 10**400, 255, 65536]),
    st.sampled_from([0.0, -0.0, 1e-300, 1e300, 0.5, -1.5, float("inf"), float("-inf"), float("nan")]),
    st.floats(),
)
TEXTS = st.one_of(
    st.sampled_from(["", " ", "null", "true", "-1", "1e9", "~", "../..", "/", ".", "a/b", "x" * 300, "x" * 5000, "\0",
                     "a\nb", "\x1b[31mred", "\x1b]0;title\x07", "{", "[a", "a: b", "*", "&a", "--", "-", "@", "a@b",
                     "%s", "{0}", "${HOME}", "‮", "\ud800", "é", "\u2028", "/dev/zero", "/proc/self/mem"]),
    st.text(max_size=12),
)  # fmt: skip
PLAIN = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=5,
)


def fitting(hint: Any) -> st.SearchStrategy[Any]:  # noqa: ANN401  any type that a setting may have
    """Values of a setting's type, and sometimes any other."""
    if get_origin(hint) is Literal:
        own: st.SearchStrategy[Any] = st.sampled_from(get_args(hint))
    elif hint is bool:
        own = st.booleans()
    elif hint in (int, float):
        own = NUMBERS
    elif get_origin(hint) is list:
        own = st.lists(fitting(get_args(hint)[0]), max_size=3)
    elif get_args(hint):
        own = st.one_of(*[fitting(each) for each in get_args(hint)])
    else:
        own = TEXTS
    return st.one_of(own, own, VALUES)
