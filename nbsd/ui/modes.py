"""What is made of what: a picture from words, from a picture, from a part of one, or a larger one. And the controls that go with it.

Names and choices: A1111 v1.10.1, modules/ui.py. The rows are like those of controls.py; a row's field is "part.field" of a recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import ipywidgets as w

from nbsd.names import IMAGE_UPSCALERS, LATENT_UPSCALERS, MASKED_CONTENTS, RESIZE_MODES, SAMPLER_FACTS, SCHEDULE_NAMES
from nbsd.pipeline.extras import Enlarging
from nbsd.pipeline.scripts import CURVES, NO_SCRIPT, OF_WORDS, SCRIPTS, Script, Several, from_pairs
from nbsd.recipe import Hires, Img2Img, Inpaint, Recipe, Soft
from nbsd.ui.controls import Choices, Control, make, put, set_tip
from nbsd.ui.parts import Parts

TXT2IMG, IMG2IMG, INPAINT, EXTRAS = "txt2img", "img2img", "inpaint", "extras"
MODES = (TXT2IMG, IMG2IMG, INPAINT, EXTRAS)

def same(*values: str) -> Choices:
    """Choices that are shown as they are."""
    return tuple((value, value) for value in values)


IMG2IMG_ROWS: tuple[Control, ...] = (
    Control("img2img.denoising_strength", "Denoising strength", "number", step=0.05, more_classes=("nbsd-only-change",),
            tip="0 to 1: how much may change; 0 gives the picture back, 1 ignores it"),
    Control("img2img.resize_mode", "Resize mode", "choice", choices=same(*RESIZE_MODES), more_classes=("nbsd-only-change",),
            tip="What happens when the picture is not as large as Settings say"),
    Control("img2img.image_cfg_scale", "Image CFG scale", "number", step=0.05, more_classes=("nbsd-only-edit", "nbsd-only-change"),
            tip="0 to 3, of InstructPix2Pix models: how closely the picture is followed"),
    Control("img2img.noise_multiplier", "Noise multiplier", "number", step=0.01, tip="1 is usual; less is flatter"),
    Control("img2img.extra_noise", "Extra noise", "number", step=0.01),
    Control("img2img.background", "Behind transparency", "text", tip="The colour behind what is transparent in the picture, as #ffffff"),
    Control("img2img.color_correction", "Colour correction", "yes", tip="Give the result the colours of the picture"),
    Control("img2img.exact_steps", "Exactly as many steps as set", "yes", tip="Else a share of them, the denoising strength"),
)
INPAINT_ROWS: tuple[Control, ...] = (
    Control("inpaint.mask_blur", "Mask blur", "whole", tip="Pixels, 0 to 64"),
    Control("inpaint.invert", "Mask mode", "choice", choices=(("Inpaint masked", False), ("Inpaint not masked", True))),
    Control("inpaint.fill", "Masked content", "choice", choices=same(*MASKED_CONTENTS),
            tip="What stands under the mask at the start"),
    Control("inpaint.only_masked", "Inpaint area", "choice", choices=(("Whole picture", False), ("Only masked", True)),
            tip="Only masked: the part is made at the full size of Settings and put back; all else stays as it is, to the byte"),
    Control("inpaint.padding", "Only masked padding", "whole", step=4, tip="Pixels around the mask that are looked at"),
    Control("inpaint.overlay", "Overlay the original", "yes", tip="What is not masked is put back afterwards"),
    Control("inpaint.round_mask", "Round the mask", "yes", tip="Greys of a mask file become black or white"),
)
SOFT_ROWS: tuple[Control, ...] = (
    Control("soft.schedule_bias", "Schedule bias", "number", step=0.1),
    Control("soft.preservation_strength", "Preservation strength", "number", step=0.05),
    Control("soft.transition_contrast_boost", "Transition contrast boost", "number", step=0.5),
    Control("soft.mask_influence", "Mask influence", "number", step=0.05),
    Control("soft.difference_threshold", "Difference threshold", "number", step=0.25),
    Control("soft.difference_contrast", "Difference contrast", "number", step=0.25),
)
HIRES_ROWS: tuple[Control, ...] = (
    Control("hires.upscaler", "Upscaler", "choice", choices=same(*LATENT_UPSCALERS, *IMAGE_UPSCALERS)),
    Control("hires.denoising_strength", "Denoising strength", "number", step=0.05, tip="0 to 1: how much the second pass may change"),
    Control("hires.steps", "Hires steps", "whole", tip="0 = as many as in the first pass"),
    Control("hires.scale", "Upscale by", "number", step=0.05, tip="1 to 4; not used when a width or a height is given"),
    Control("hires.width", "Resize width to", "whole", step=8, tip="0 = by the scale, or as the height says"),
    Control("hires.height", "Resize height to", "whole", step=8, tip="0 = by the scale, or as the width says"),
    Control("hires.sampler", "Hires sampler", "choice", choices=(("Use same sampler", ""), *same(*SAMPLER_FACTS))),
    Control("hires.schedule", "Hires schedule", "choice", choices=(("Use same scheduler", ""), *same(*SCHEDULE_NAMES))),
    Control("hires.extra_noise", "Extra noise", "number", step=0.01),
    Control("hires.model", "Hires checkpoint", "choice", choices=(("Use same checkpoint", ""),)),
    Control("hires.prompt", "Hires prompt (empty = the same)", "lines", rows=2, more_classes=("nbsd-wide",)),
    Control("hires.negative_prompt", "Hires negative prompt (empty = the same)", "lines", rows=2, more_classes=("nbsd-wide",)),
)
EXTRAS_ROWS: tuple[Control, ...] = (
    Control("extras.upscaler", "Upscaler", "choice", choices=same(*IMAGE_UPSCALERS)),
    Control("extras.scale", "Upscale by", "number", step=0.25, tip="1 to 8; not used when a width or a height is given"),
    Control("extras.width", "Resize width to", "whole", step=8, tip="0 = by the scale, or as the height says"),
    Control("extras.height", "Resize height to", "whole", step=8, tip="0 = by the scale, or as the width says"),
    Control("extras.second", "Upscaler 2", "choice", choices=same(*IMAGE_UPSCALERS), tip="Laid over the first; None = none"),
    Control("extras.visibility", "Upscaler 2 visibility", "number", step=0.05, tip="0 to 1"),
    Control("extras.crop", "Crop to fit", "yes", tip="Where width and height are given: cut what sticks out"),
)
# A script's rows are shown with it: its class says which.
SCRIPT_ROWS: tuple[Control, ...] = (
    Control("script.kind", "Script", "choice", choices=same(*SCRIPTS), more_classes=("nbsd-script",),
            tip="Faces and details: what a detector finds in each picture that was made is painted anew, larger; in img2img a denoising strength "
                "of 0 leaves the rest of the picture as it is. Loopback: change it again and again. SD upscale: enlarge it, then change it in "
                "tiles. Folder: each picture of a folder"),
    Control("script.loops", "Loops", "whole", more_classes=("nbsd-loopback",), tip="1 to 1000; each starts from what the last one made"),
    Control("script.final_strength", "Final denoising strength", "number", step=0.05, more_classes=("nbsd-loopback",),
            tip="0 to 1: of the last loop; the first one's is above"),
    Control("script.curve", "Denoising curve", "choice", choices=same(*CURVES), more_classes=("nbsd-loopback",),
            tip="How the strength goes from the first to the last loop"),
    Control("script.upscaler", "Upscaler", "choice", choices=same(*IMAGE_UPSCALERS), more_classes=("nbsd-sd-upscale",)),
    Control("script.scale", "Scale factor", "number", step=0.05, more_classes=("nbsd-sd-upscale",), tip="1 to 8"),
    Control("script.overlap", "Tile overlap", "whole", step=16, more_classes=("nbsd-sd-upscale",),
            tip="Pixels, 0 to 256; tiles are as large as Settings say"),
    Control("script.detector", "Detector", "text", more_classes=("nbsd-details", "nbsd-wide"),
            tip="mediapipe, or the name or path of a detector: a YOLO (.onnx, or .pt with the package ultralytics) or MediaPipe's for faces "
                "(.tflite), in the folder adetailer beside your models; none comes with nbsd. Several, separated by commas, look one after "
                "the other"),
    Control("script.confidence", "Detector confidence", "number", step=0.05, more_classes=("nbsd-details",), tip="0 to 1: the least that counts"),
    Control("script.detail_strength", "Denoising of details", "number", step=0.05, more_classes=("nbsd-details",),
            tip="0 to 1: how much a detail may change; 0.4 is usual"),
    Control("script.detail_prompt", "Prompt of details (empty = the same)", "text", more_classes=("nbsd-details", "nbsd-wide"),
            tip="[PROMPT] is the prompt above, [SEP] stands between the prompts of several faces, [SKIP] leaves one as it is; "
                "behind [2nd] stands the second detector's"),
    Control("script.folder", "Folder of pictures", "text", more_classes=("nbsd-folder-of", "nbsd-wide"), tip="Of this machine, or of the notebook's"),
    Control("script.masks", "Masks (empty = what is painted)", "text", more_classes=("nbsd-folder-of", "nbsd-wide", "nbsd-only-inpaint"),
            tip="A folder with masks of the same names, or one mask for all"),
    Control("script.output", "Save to (empty = as ever)", "text", more_classes=("nbsd-folder-of", "nbsd-wide"),
            tip="A folder; pictures keep their names there"),
    Control("script.own_recipes", "Each by its own recipe", "yes", more_classes=("nbsd-folder-of",),
            tip="A picture that carries a recipe is changed by its own prompts, seed, sampler, steps and scale"),
)
SEVERAL_ROWS: tuple[Control, ...] = (
    Control("several.folder", "Or all pictures of a folder", "text", more_classes=("nbsd-wide",), tip="Of this machine; empty = the picture above"),
    Control("several.output", "Save them to (empty = as ever)", "text", more_classes=("nbsd-wide",), tip="A folder; pictures keep their names there"),
)
ROWS = (*SCRIPT_ROWS, *SEVERAL_ROWS, *IMG2IMG_ROWS, *INPAINT_ROWS, *SOFT_ROWS, *HIRES_ROWS, *EXTRAS_ROWS)
_PARTS: dict[str, Callable[..., Any]] = {"img2img": Img2Img, "inpaint": Inpaint, "soft": Soft, "hires": Hires, "extras": Enlarging,
                                        "script": Script, "several": Several}


class Modes:
    """The switch between the modes, and the controls of what only some of them have."""

    def __init__(self, parts: Parts) -> None:
        self.by_field: dict[str, w.Widget] = {row.field: make(row, parts) for row in ROWS}
        self.mode = parts.make(w.ToggleButtons, "nbsd-mode", options=[(name, name) for name in MODES], value=TXT2IMG)
        self.hires = parts.make(w.Checkbox, "nbsd-control", "nbsd-yes", "nbsd-hires-on", description="Hires. fix", indent=False)
        self.soft = parts.make(w.Checkbox, "nbsd-control", "nbsd-yes", "nbsd-soft-on", description="Soft inpainting", indent=False)
        set_tip(self.hires, "Make the picture small first, then larger with more detail")
        set_tip(self.soft, "The edge of the mask is blended step by step")
        self._kept: dict[str, Any] = {name: part() for name, part in _PARTS.items()}    # with what has no control
        self._wanted = NO_SCRIPT        # the script that was chosen, in whatever mode
        self.by_field |= {"mode": self.mode, "hires": self.hires, "soft": self.soft}
        self.write(Recipe())
        for name in ("extras", "script", "several"):
            self._show(name, _PARTS[name]())
        self.mode.observe(lambda _: self._offer_scripts(), "value")
        self.by_field["script.kind"].observe(lambda change: setattr(self, "_wanted", change["new"]), "value")
        self.choose(NO_SCRIPT)

    def read(self, recipe: Recipe) -> Recipe:
        """The recipe with the parts of this mode. What a pasted recipe has beside them stays."""
        mode = self.mode.value
        if mode in (IMG2IMG, INPAINT):
            inpaint = None
            if mode == INPAINT:
                inpaint = replace(self._part("inpaint"), soft=self._part("soft") if self.soft.value else None)
            return replace(recipe, img2img=self._part("img2img"), inpaint=inpaint)
        hires = self._part("hires") if self.hires.value else None
        return replace(recipe, img2img=None, inpaint=None, hires=hires)

    def write(self, recipe: Recipe) -> None:
        """Show the parts of a recipe, and the mode that it belongs to; extras stays, where the recipe is one of words alone."""
        for name, part in (("img2img", recipe.img2img), ("inpaint", recipe.inpaint), ("hires", recipe.hires),
                           ("soft", recipe.inpaint and recipe.inpaint.soft)):
            self._show(name, part or _PARTS[name]())
        self.hires.value = recipe.hires is not None and recipe.img2img is None
        self.soft.value = recipe.inpaint is not None and recipe.inpaint.soft is not None
        self.mode.value = INPAINT if recipe.inpaint else IMG2IMG if recipe.img2img else TXT2IMG

    @property
    def enlarging(self) -> Enlarging:
        """What the controls of extras say."""
        found: Enlarging = self._part("extras")
        return found

    @property
    def several(self) -> Several:
        """The folder that extras are for."""
        found: Several = self._part("several")
        return replace(found, folder=found.folder.strip())

    @property
    def script(self) -> Script | None:
        """What is to be done besides changing the picture once; None: nothing, or not in this mode."""
        found: Script = self._part("script")
        return found if self.mode.value != EXTRAS and found.kind in self._scripts() and found.kind != NO_SCRIPT else None

    def show_script(self, pairs: dict[str, str]) -> None:
        """Show the script that an infotext tells of."""
        self.put_script(from_pairs(pairs, self._part("script")))

    def put_script(self, script: Script) -> None:
        """Show a script, as soon as the mode has it."""
        self._show("script", replace(script, kind=NO_SCRIPT))
        self.choose(script.kind)

    @property
    def chosen_script(self) -> Script:
        """The script that was chosen with its settings, also where this mode does not have it."""
        found: Script = self._part("script")
        return replace(found, kind=self._wanted)

    def choose(self, kind: str) -> None:
        """Choose a script, as soon as the mode has it."""
        self._wanted = kind
        self._offer_scripts()

    def set_files(self, models: Sequence[str], upscalers: Sequence[str]) -> None:
        """Offer these checkpoints and these upscalers' files in the hires fix."""
        for field, first, more in (("hires.model", [("Use same checkpoint", "")], models),
                                   ("hires.upscaler", [*same(*LATENT_UPSCALERS, *IMAGE_UPSCALERS)], upscalers),
                                   ("extras.upscaler", [*same(*IMAGE_UPSCALERS)], upscalers),
                                   ("script.upscaler", [*same(*IMAGE_UPSCALERS)], upscalers),
                                   ("extras.second", [*same(*IMAGE_UPSCALERS)], upscalers)):
            widget, value = self.by_field[field], self.by_field[field].value
            widget.options = [*first, *((name, name) for name in more)]
            put(widget, value)

    def _scripts(self) -> tuple[str, ...]:
        """Those of this mode."""
        return OF_WORDS if self.mode.value == TXT2IMG else SCRIPTS

    def _offer_scripts(self) -> None:
        """Offer the mode's scripts. The chosen one stays, and comes back with its mode."""
        choice, wanted = self.by_field["script.kind"], self._wanted
        if choice.options != (options := same(*self._scripts())):
            choice.options = options
        choice.value = wanted if wanted in self._scripts() else NO_SCRIPT
        self._wanted = wanted       # not what the list showed in between

    def _show(self, name: str, part: Any) -> None:
        self._kept[name] = part
        for row in ROWS:
            if row.field.startswith(f"{name}."):
                put(self.by_field[row.field], getattr(part, row.field.split(".")[1]))

    def _part(self, name: str) -> Any:
        found = {field: widget.value for field, widget in self.by_field.items() if field.startswith(f"{name}.")}
        return replace(self._kept[name], **{field.split(".")[1]: value for field, value in found.items()})
