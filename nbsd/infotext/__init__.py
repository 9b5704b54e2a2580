"""The web UI's text format: read raw (`parse`), read into a recipe (`read`), written (`write`), taken out of a picture (`from_image`)."""

from nbsd.infotext.keys import ELSEWHERE, KEYS
from nbsd.infotext.metadata import from_image
from nbsd.infotext.recipes import DIFFERENCES, read, write
from nbsd.infotext.text import parse, quote, split_sampler_name, unquote

__all__ = ["DIFFERENCES", "ELSEWHERE", "KEYS", "from_image", "parse", "quote", "read", "split_sampler_name", "unquote", "write"]
