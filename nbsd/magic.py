"""`%load_ext nbsd`, and then cells that are prompts:

    %%sd --model animal.safetensors --steps 28
    a cat, (masterpiece:1.2)
    Negative prompt: blurry
"""

from __future__ import annotations

import argparse
import shlex
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, NoReturn

from IPython.core.error import UsageError
from IPython.display import display

from nbsd.cli import add_recipe_options, recipe_from
from nbsd.errors import ModelError, NbsdError

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from nbsd.studio import Studio

NEGATIVE = "Negative prompt:"       # starts the negative prompt, as in an infotext

_last_model: str | None = None      # what the last cell named


def load_ipython_extension(shell: InteractiveShell) -> None:
    """What `%load_ext nbsd` calls."""
    shell.magics_manager.register_function(sd, magic_kind="cell", magic_name="sd")


def sd(line: str, cell: str) -> None:
    """Make pictures from the prompt in this cell and show them below it. `%%sd --help` lists the options."""
    global _last_model
    from nbsd.models import first

    try:
        given = parser().parse_args(shlex.split(line))
    except SystemExit:              # --help has printed what it has to say
        return
    except ValueError as error:     # of shlex
        raise UsageError(f"%%sd: {error} in: {line}") from None
    given.prompt, given.negative_prompt = prompts(cell)
    try:
        _last_model = _here(given.model) or _last_model
        given.model = _last_model or studio().recipe.model or first.NAME    # it decides on the size; without any it is the built-in one
        recipe = replace(recipe_from(given), model=_last_model, vae=_here(given.vae), text_encoder=_here(given.text_encoder))
        for picture in studio().generate(recipe, given.count, given.batch_size):
            display(picture)
    except NbsdError as error:
        raise UsageError(str(error)) from error     # IPython shows the sentence of a UsageError, without a traceback


def _here(title: str | None) -> str | None:
    """A name as it is; for a link, which only the user writes here and no pasted recipe, the file that it leads to, fetched."""
    from nbsd.pipeline.fetched import here, link_of

    return str(here(title)) if title and link_of(title) is not None and not _known(title) else title


def _known(title: str) -> bool:
    """Whether it names a file here, such as "folder/name"."""
    from nbsd.models.store import Store

    try:
        return bool(Store(studio().folders).find(title))
    except ModelError:
        return False


def prompts(cell: str) -> tuple[str, str]:
    """Prompt and negative prompt of a cell.

    >>> prompts("a cat,\\nsleeping\\nNegative prompt: blurry\\n")
    ('a cat,\\nsleeping', 'blurry')
    """
    head, _, tail = f"\n{cell.strip()}".partition(f"\n{NEGATIVE}")
    return head.strip(), tail.strip()


class Options(argparse.ArgumentParser):
    """Tells a wrong option as IPython does, and does not end the kernel."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"%%sd: {message} (%%sd --help lists the options)")


def parser() -> argparse.ArgumentParser:
    options = Options(prog="%%sd", description="Make pictures from the prompt in this cell. 'Negative prompt:' starts the other one.")
    options.add_argument("--model", metavar="NAME", help="a model's name, hash, file or link (the one of the last cell)")
    options.add_argument("--vae", metavar="NAME", help="use this VAE, not the one in the model's file")
    options.add_argument("--text-encoder", metavar="NAME", help="take the text encoder from this model, where the model's file has none")
    add_recipe_options(options)
    return options


@cache
def studio() -> Studio:
    """One for the kernel; it shares the loaded model with the panel."""
    from nbsd.studio import Studio

    return Studio()
