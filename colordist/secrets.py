"""Passwords and tokens: they are never written into files, logs or messages."""

import os
import re

_VARIABLES = ("WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_SHORTEST = 8  # characters of a token; a shorter text may be anything
_TOKEN = re.compile(
    r"\bhf_(?:[A-Za-z0-9]{30,}|oauth_[\w.-]{20,})"  # of the Hub; shorter ones are names, as hf_datasets
    r"|(?<=:/)(/?)(?!git@)[^/\s]+@"  # in an address
)


def redacted(text: str) -> str:
    """Text with asterisks for passwords in addresses, tokens of the Hub and keys in the environment."""
    for name in _VARIABLES:
        if len(value := os.environ.get(name, "").strip()) >= _SHORTEST:
            text = text.replace(value, "***")
    return _TOKEN.sub(lambda found: f"{found[1]}***@" if found[1] is not None else "***", text)
