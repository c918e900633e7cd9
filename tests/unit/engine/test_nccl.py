"""What is said when NCCL can't start."""

import re

import pytest

from colordist.engine.nccl import start_error

HEAD = (
    "NCCL error in: NCCLUtils.cpp:92, unhandled system error (run with NCCL_DEBUG=INFO for details), NCCL version 2.30"
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            f"{HEAD}\nncclSystemError: a call failed.\nLast error:\nsocket refused\nmore",
            r"8 processes \(socket refused\)",
        ),
        (f"{HEAD}\nLast error:\n", r"8 processes \(NCCL error in: "),
        (
            f"{HEAD}\nLast error:\nDuplicate GPU detected : rank 1 and rank 0",
            r"rank 0\): start one process for each GPU; all MIG devices",
        ),
    ],
)
def test_nccls_reason_and_a_way_out_in_one_line(text: str, said: str) -> None:
    line = str(start_error(RuntimeError(text), 8))
    assert "\n" not in line
    assert re.search(said, line)
