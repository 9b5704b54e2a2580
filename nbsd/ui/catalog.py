"""The page of the panel with all of the user's files: found as one types, grouped by kind; and the box that fetches more of them."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ipywidgets as w

from nbsd.events import Downloading, Ended, Event, Note, Started
from nbsd.ui.parts import Parts
from nbsd.ui.pickers import row_words
from nbsd.ui.view import sentence
from nbsd.words import download_words
from nbsd.worker import Job

# kind, as `models.detect` names it -> the heading above its files and what "Use" does, in this order
GROUPS: dict[str, tuple[str, str]] = {
    "checkpoint": ("Models", "Use this model"),
    "vae": ("VAE", "Use this VAE"),
    "lora": ("LoRA", "Put it into the prompt"),
    "hypernetwork": ("Hypernetworks", "Put it into the prompt"),
    "embedding": ("Embeddings", "Put it into the prompt"),
    "upscaler": ("Upscalers", ""),
    "text encoder": ("Text encoders", ""),
}
OTHERS = ("Other files", "")
WORDS = {"controlnet": "ControlNet", "unet": "no model that is used here", "part": "part of a model", "unknown": "not readable or not known"}
TAGS = {"lora": "<lora:{}:1>", "hypernetwork": "<hypernet:{}:1>", "embedding": "{}"}     # what goes into the prompt
HEADING = "\N{BOX DRAWINGS LIGHT HORIZONTAL}" * 2
ROWS = 10
PLACEHOLDER = "owner/repo, a link of Hugging Face or Civitai, or an https address"


@dataclass(frozen=True)
class Row:
    """A file of the list."""

    kind: str           # "checkpoint", "lora", ...
    title: str          # what it is called in a prompt and in a recipe
    value: str          # what a recipe says: the title, or the path where the title is not enough
    size: int           # bytes
    family: str = ""
    digest: str = ""
    path: str = ""
    problem: str = ""
    lacks: str = ""     # what a model has to take from another file

    @property
    def text(self) -> str:
        return row_words(self.title, self.family, self.size, self.digest, self.lacks)


class Catalog:
    """Widgets; what "Use" and "Get" do is told by whoever connects them."""

    def __init__(self, parts: Parts) -> None:
        self._rows: tuple[Row, ...] = ()
        self._shown: dict[str, Row] = {}            # key in the list -> row
        self.use_row: Callable[[Row], None] = lambda row: None
        self.link = parts.make(w.Text, "nbsd-control", "nbsd-link", description="Get a model, VAE, LoRA, ...", placeholder=PLACEHOLDER)
        self.get = parts.button("Get", "nbsd-get", "Fetch it into the models folder")
        self.cancel = parts.button("Cancel", "nbsd-cancel", "Stop fetching; what is here is kept, and Get goes on from there")
        self.bar = parts.make(w.FloatProgress, "nbsd-fetched", min=0.0, max=1.0)
        self.said = parts.html("nbsd-fetch-status")
        self.find = parts.make(w.Text, "nbsd-control", "nbsd-find", description="Find", placeholder="a name, kind, family or hash; then Enter")
        self.again = parts.button("Refresh", "nbsd-look-again", "Look for files again")
        self.list = parts.make(w.Select, "nbsd-control", "nbsd-list", description="Files", options=[], rows=ROWS)
        self.use = parts.button("Use", "nbsd-use", "Use the chosen file")
        self.about = parts.html("nbsd-about")
        self.page: list[w.Widget] = [
            parts.row(self.find, self.again, name="nbsd-tail"), self.list, parts.row(self.about, self.use, name="nbsd-tail"),
            parts.row(self.link, self.get, self.cancel, name="nbsd-tails"), self.bar, self.said,
        ]
        self.cancel.disabled = True
        self.find.observe(lambda _: self._show(), "value")
        # Enter. JupyterLab keeps the arrow keys in a list for itself, so this is how the keyboard chooses.
        self.find.on_msg(lambda widget, content, buffers: self._use() if content.get("event") == "submit" else None)
        self.list.observe(lambda _: self._chosen(), "value")
        self.use.on_click(lambda _: self._use())
        self._show()

    # --- files

    @property
    def row(self) -> Row | None:
        """The file that is chosen in the list."""
        return self._shown.get(self.list.value or "")

    def set_rows(self, rows: Sequence[Row]) -> None:
        """Show these files; the choice and what is typed stay."""
        self._rows = tuple(rows)
        self._show()

    def choose(self, path: str) -> Row | None:
        """Choose the file of this path in the list; None where it is not there."""
        if path not in self._shown and any(row.path == path for row in self._rows):
            self.find.value = ""
        if path in self._shown:
            self.list.value = path
        return self._shown.get(path)

    def _show(self) -> None:
        words = self.find.value.casefold().split()
        fits = [row for row in self._rows if all(word in _searched(row) for word in words)]
        options: list[tuple[str, str]] = []
        self._shown = {}
        for kind in (*GROUPS, ""):
            group = [row for row in fits if row.kind == kind or (not kind and row.kind not in GROUPS)]
            if group:
                heading = GROUPS.get(kind, OTHERS)[0]
                options.append((f"{HEADING} {heading} ({len(group)}) {HEADING}", f"# {kind}"))
                options += [(row.text if kind else f"{row.text}  ·  {WORDS.get(row.kind, row.kind)}", row.path or row.value) for row in group]
                self._shown.update({row.path or row.value: row for row in group})
        chosen = self.list.value
        if tuple(options) != tuple(self.list.options):
            self.list.options = tuple(options)
        wanted = chosen if chosen in self._shown else next(iter(self._shown), None)
        if self.list.value != wanted:
            self.list.value = wanted
        self._chosen()

    def _chosen(self) -> None:
        row = self.row
        word = GROUPS.get(row.kind, OTHERS)[1] if row else ""
        self.use.disabled = not word
        self.use.tooltip = word or "Choose a file first"
        if row is None:
            text = "" if self._shown else ("Nothing here is called so." if self._rows else "No files were found yet.")
        else:
            text = row.problem or row.path
        self.about.value = f"<code>{html.escape(text)}</code>" if row and not row.problem else html.escape(text)

    def _use(self) -> None:
        if (row := self.row) is not None and not self.use.disabled:
            self.use_row(row)

    # --- fetching: what its job tells, written through the screen only

    def queued(self) -> None:
        """A download was asked for."""
        self.get.disabled, self.cancel.disabled = True, False
        self.bar.value, self.bar.bar_style = 0.0, ""
        self._say("asking for it")

    def fail(self, error: BaseException) -> None:
        """Why a link is not fetched."""
        self.said.value = f'<div role="alert">{html.escape(sentence(error))}</div>'

    def show(self, job: Job, event: Event) -> None:
        """Show what a download tells."""
        match event:
            case Started():
                self.queued()
            case Downloading():
                self.bar.value = min(event.done / event.total, 1.0) if event.total else 0.0
                self._say(f"{event.what} · {download_words(event)}")
            case Note():
                self._say(event.text)
            case Ended():
                self._ended(event)

    def _ended(self, event: Ended) -> None:
        self.get.disabled, self.cancel.disabled = False, True
        if event.error is not None:
            self.bar.bar_style = "danger"
            self.fail(event.error)
        elif event.stopped:
            self._say("stopped; what is here is kept, and Get goes on from there")
        else:
            self.bar.value = 1.0
            self.link.value = ""

    def _say(self, text: str) -> None:
        self.said.value = f'<div role="status">{html.escape(text)}</div>'


def _searched(row: Row) -> str:
    heading = GROUPS.get(row.kind, OTHERS)[0]
    return f"{row.title} {row.kind} {heading} {row.family} {row.digest} {row.path}".casefold()


def in_prompt(row: Row, prompt: str) -> str:
    """The prompt with a network or an embedding in it; unchanged where it is there already.

    >>> in_prompt(Row("lora", "ink", "ink", 1), "a cat")
    'a cat, <lora:ink:1>'
    """
    tag = TAGS[row.kind].format(row.title)
    if tag in prompt or (row.kind != "embedding" and tag.rpartition(":")[0] + ":" in prompt):
        return prompt
    return f"{prompt.rstrip().rstrip(',')}, {tag}" if prompt.strip() else tag
