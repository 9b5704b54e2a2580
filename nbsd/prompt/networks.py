"""`<lora:name:0.8>` and its like taken out of a prompt as data; comments taken out. Standard library only."""

from __future__ import annotations

import re
from typing import NamedTuple

_START = re.compile(r"<(\w+):")
_COMMENT_LINE = re.compile(r"(?:^|\n)#[^\n]*\n?")
_COMMENT = re.compile(r"#[^\n]*\n?")


class Network(NamedTuple):
    """A network that a prompt asks for: `<kind:item:item>`."""

    kind: str                   # "lora", "hypernet", ...
    args: tuple[str, ...]       # the items that name no value; the first is the network's name
    named: dict[str, str]       # the items of the form `name=value`
    items: tuple[str, ...]      # all of them, as they stand in the prompt


def split_networks(text: str) -> tuple[str, list[Network]]:
    """The prompt without its network tags, and the networks in their order.

    >>> split_networks("a cat <lora:ink:0.8:unet=0.5>")
    ('a cat ', [Network(kind='lora', args=('ink', '0.8'), named={'unet': '0.5'}, items=('ink', '0.8', 'unet=0.5'))])
    """
    kept: list[str] = []
    networks: list[Network] = []
    done = at = 0
    while found := _START.search(text, at):
        end = text.find(">", found.end())
        if end < 0:
            break
        at = found.end()
        if end > found.end():       # an empty tag is text
            kept.append(text[done:found.start()])
            networks.append(_network(found[1], text[found.end():end].split(":")))
            done = at = end + 1
    return "".join([*kept, text[done:]]), networks


def _network(kind: str, items: list[str]) -> Network:
    pairs = [item.split("=") for item in items]
    args = tuple(item for item, pair in zip(items, pairs, strict=True) if len(pair) != 2)
    return Network(kind, args, {pair[0]: pair[1] for pair in pairs if len(pair) == 2}, tuple(items))


def strip_comments(text: str) -> str:
    """The prompt without comments: each, from `#` to the end of its line, leaves a line break.

    As in the web UI (modules/processing_scripts/comments.py) a line that is nothing but a comment goes first, with the line break
    before it, and what is left of comments after that; so of two comment lines in a row two line breaks are left, not three.

    >>> strip_comments("a cat # furry")
    'a cat \\n'
    """
    return _COMMENT.sub("\n", _COMMENT_LINE.sub("\n", text))
