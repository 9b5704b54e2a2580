"""prompt/networks.py: network tags, exactly as recorded, and comments."""

from __future__ import annotations

import doctest
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbsd.prompt import networks
from nbsd.prompt.networks import Network, split_networks, strip_comments

LONG = 100_000     # characters; what cost more than linear time would hang here. Its speed is measured by bench/parsers.py
CASES = json.loads((Path(__file__).parent / "data/fidelity/a_prompts.json").read_text(encoding="utf-8"))["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_recorded(case):
    text, networks = split_networks(case["prompt"])
    kinds: dict[str, list[list[str]]] = {}
    for network in networks:
        kinds.setdefault(network.kind, []).append(list(network.items))
    assert {"prompt": text, "nets": kinds} == case["extra_networks"]


@pytest.mark.parametrize(("tag", "network"), [
    ("<lora:ink:0.8>", Network("lora", ("ink", "0.8"), {}, ("ink", "0.8"))),
    ("<lora:ink:te=0.5:unet=1>", Network("lora", ("ink",), {"te": "0.5", "unet": "1"}, ("ink", "te=0.5", "unet=1"))),
    ("<lora:a=b=c>", Network("lora", ("a=b=c",), {}, ("a=b=c",))),
    ("<lora::>", Network("lora", ("", ""), {}, ("", ""))),
    ("<lora:a<b:c>", Network("lora", ("a<b", "c"), {}, ("a<b", "c"))),
])
def test_tags(tag, network):
    assert split_networks(f"x {tag} y") == ("x  y", [network])


@pytest.mark.parametrize("text", ["<lora:>", "<lora>", "<:a>", "< lora:a>", "<lora:a", "a < b > c"])
def test_what_is_no_tag(text):
    assert split_networks(text) == (text, [])


@pytest.mark.parametrize(("text", "rest"), [
    ("a cat # furry\nand a dog", "a cat \nand a dog"),
    ("a\n# a line of its own\nb", "a\nb"),
    ("# first\na", "\na"),
    ("a\n# one\n# two\nb", "a\n\nb"),
    ("a # end", "a \n"),
    ("no comment", "no comment"),
])
def test_comments(text, rest):
    assert strip_comments(text) == rest


@given(st.lists(st.sampled_from(["<", "<lora:", ">", ":", "=", "a", "#", "\n"])).map("".join))
def test_nothing_is_lost(text):
    rest, networks = split_networks(text)
    tags = [f"<{network.kind}:{':'.join(network.items)}>" for network in networks]
    assert len(rest) + sum(map(len, tags)) == len(text) and all(tag in text for tag in tags)
    assert "#" not in strip_comments(text)


@pytest.mark.parametrize("piece", ["<a:", "<a:>", "<a:b>", "<", "<aaaa", "#", "#\n", ">"])
def test_a_long_text_is_no_trouble(piece):
    text = (piece * LONG)[:LONG]
    rest, found = split_networks(text)
    assert len(rest) + sum(len(network.kind) + len(":".join(network.items)) + 3 for network in found) == LONG
    assert "#" not in strip_comments(text)


def test_the_examples_in_the_docstrings_hold():
    result = doctest.testmod(networks)
    assert result.attempted and not result.failed
