"""pipeline/adetailer.py: the settings of detail passes, as the extension writes them into an infotext. The texts are of its versions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbsd.infotext.pairs import with_pairs
from nbsd.pipeline.adetailer import ROWS, Detail, chosen, ordinal, passes_in, shown, strange, unseen, written
from nbsd.pipeline.scripts import DETAILS, Script, details_of, from_pairs, said, without
from nbsd.recipe import Recipe

HEAD = "a cat\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x768, Model hash: 0123456789, Model: m, "
USUAL = "{0} confidence: 0.3, {0} dilate erode: 4, {0} mask blur: 4, {0} denoising strength: 0.4, {0} inpaint only masked: True, {0} inpaint padding: 32"
TEXTS = {
    "usual": ("Clip skip: 2, ADetailer model: face_yolov8n.pt, " + USUAL.format("ADetailer") + ", ADetailer version: 25.3.0, Hires upscale: 1.5, "
              "Hires upscaler: Latent, Denoising strength: 0.5, Version: v1.10.1", (Detail(detector="face_yolov8n.pt"),)),
    "2nd": ("ADetailer model: face_yolov8n.pt, ADetailer prompt: \"a face, [PROMPT]\", ADetailer confidence: 0.4, ADetailer mask only top k largest: 1, "
            "ADetailer dilate/erode: 32, ADetailer mask blur: 8, ADetailer denoising strength: 0.5, ADetailer inpaint only masked: True, "
            "ADetailer inpaint padding: 0, ADetailer use separate steps: True, ADetailer steps: 46, ADetailer model 2nd: hand_yolov8n.pt, "
            "ADetailer negative prompt 2nd: bad hands, ADetailer confidence 2nd: 0.5, ADetailer dilate/erode 2nd: 4, ADetailer mask blur 2nd: 4, "
            "ADetailer denoising strength 2nd: 0.6, ADetailer inpaint only masked 2nd: False, ADetailer version: 23.9.1, Version: v1.6.0", (
                Detail(detector="face_yolov8n.pt", prompt="a face, [PROMPT]", confidence=0.4, top=1, dilate=32, mask_blur=8, strength=0.5, padding=0,
                       steps=46),
                Detail(detector="hand_yolov8n.pt", negative_prompt="bad hands", confidence=0.5, strength=0.6, only_masked=False))),
    "only the 2nd": ("ADetailer model 2nd: hand.pt, ADetailer confidence 2nd: 0.3, ADetailer version: 24.5.1, Version: v1.9.4",
                     (Detail(detector="hand.pt"),)),
    "more": ("ADetailer model: mediapipe_face_full, ADetailer confidence: 0.3, ADetailer method to decide top k masks: Confidence, "
             "ADetailer mask only top k: 2, ADetailer mask min ratio: 0.01, ADetailer x offset: 4, ADetailer y offset: -8, ADetailer dilate erode: -4, "
             "ADetailer mask merge invert: Merge, ADetailer mask blur: 4, ADetailer denoising strength: 0.4, ADetailer inpaint only masked: True, "
             "ADetailer inpaint padding: 32, ADetailer use inpaint width height: True, ADetailer inpaint width: 640, ADetailer inpaint height: 512, "
             "ADetailer use separate CFG scale: True, ADetailer CFG scale: 5.5, ADetailer use separate checkpoint: True, ADetailer checkpoint: other, "
             "ADetailer use separate sampler: True, ADetailer sampler: Euler a, "
             "ADetailer use separate noise multiplier: True, ADetailer noise multiplier: 1.1, ADetailer use separate CLIP skip: True, "
             "ADetailer CLIP skip: 2, ADetailer ControlNet model: inpaint [0123abcd], ADetailer version: 25.3.0, Version: v1.10.1",
             (Detail(detector="mediapipe_face_full", top_by="Confidence", top=2, min_ratio=0.01, x_offset=4, y_offset=-8, dilate=-4, merge="Merge",
                     width=640, height=512, cfg_scale=5.5, checkpoint="other", sampler="Euler a", noise_multiplier=1.1, clip_skip=2),)),
    "nonsense": ("ADetailer model: f, ADetailer confidence: much, ADetailer steps: x, ADetailer inpaint only masked: perhaps, ADetailer version: 1",
                 (Detail(detector="f"),)),
    "none": ("ADetailer model: None, ADetailer version: 25.3.0", ()),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_is_read_and_written_back_word_for_word(name):
    text, passes = HEAD + TEXTS[name][0], TEXTS[name][1]
    recipe = Recipe.from_infotext(text)
    pairs = said(recipe)
    assert (*passes_in(pairs).values(),) == passes
    if passes:      # the panel's four controls say it again, with what has none
        script = from_pairs(pairs, Script(detail_prompt="x", confidence=0.9))
        assert script.kind == DETAILS and details_of(script, recipe) == passes
        assert with_pairs(recipe, written(passes, pairs)).infotext() == text
        assert said(without(recipe)) == {} and said(without(recipe, but=DETAILS)) == pairs


def test_a_new_one_is_written_as_the_extension_writes_it():
    plain = Detail(detector="face_yolov8n.pt", prompt="a face")
    pairs = written((plain, Detail(detector="hand.onnx", top=1, steps=9, only_masked=False)), {})
    assert ", ".join(f"{key}: {value}" for key, value in pairs.items() if value) == (
        "ADetailer model: face_yolov8n.pt, ADetailer prompt: a face, " + USUAL.format("ADetailer") + ", ADetailer model 2nd: hand.onnx, "
        "ADetailer confidence 2nd: 0.3, ADetailer method to decide top k masks 2nd: Area, ADetailer mask only top k 2nd: 1, "
        "ADetailer dilate erode 2nd: 4, ADetailer mask blur 2nd: 4, ADetailer denoising strength 2nd: 0.4, ADetailer inpaint only masked 2nd: False, "
        "ADetailer use separate steps 2nd: True, ADetailer steps 2nd: 9, ADetailer version: 25.3.0")


def test_what_was_changed_in_the_panel_replaces_what_the_text_said():
    recipe = Recipe.from_infotext(HEAD + TEXTS["2nd"][0])
    one = chosen("mediapipe", "", 0.4, 0.25, said(recipe))
    assert one == (Detail(detector="mediapipe", confidence=0.4, top=1, dilate=32, mask_blur=8, strength=0.25, padding=0, steps=46),)
    text = with_pairs(recipe, written(one, said(recipe))).infotext()
    assert "2nd" not in text and "ADetailer prompt" not in text and "ADetailer dilate/erode: 32" in text and "ADetailer version: 23.9.1" in text
    three = chosen(" a.onnx, b.onnx ,c.onnx", "a face [SEP] another [3rd] a foot", 0.5, 0.2, {})
    assert [(pass_.detector, pass_.prompt, pass_.confidence, pass_.strength) for pass_ in three] == [
        ("a.onnx", "a face [SEP] another", 0.5, 0.2), ("b.onnx", "", 0.5, 0.2), ("c.onnx", "a foot", 0.5, 0.2)]


def test_a_text_names_a_file_and_the_panel_keeps_its_path():
    here = chosen("/home/me/face.onnx, C:\\d\\hand.onnx, mediapipe", "", 0.3, 0.4, {})
    pairs = written(here, {})
    assert [value for key, value in pairs.items() if "model" in key] == ["face.onnx", "hand.onnx", "mediapipe"]
    assert from_pairs(pairs, Script(detector="mediapipe, /home/me/face.onnx")).detector == "/home/me/face.onnx, hand.onnx, mediapipe"
    assert from_pairs(pairs, Script()).detector == "face.onnx, hand.onnx, mediapipe"


def test_what_has_no_control_and_what_is_not_done_are_named():
    second, more = (said(Recipe.from_infotext(HEAD + TEXTS[name][0])) for name in ("2nd", "more"))
    assert unseen(second) == [f"ADetailer {name}" for name in (
        "mask only top k largest", "dilate/erode", "mask blur", "inpaint padding", "steps", "negative prompt 2nd", "confidence 2nd",
        "denoising strength 2nd", "inpaint only masked 2nd")]
    assert strange(second) == [] and strange(more) == ["ADetailer ControlNet model"] and unseen(more)[-1] == "ADetailer ControlNet model"


@given(st.dictionaries(st.sampled_from([f"ADetailer {row.name}{ordinal(number)}" for row in ROWS for number in (0, 1, 11)]), st.text(max_size=8)))
def test_no_pairs_make_it_fail_and_what_is_written_means_the_same(pairs):
    passes = (*passes_in(pairs).values(),)
    said_again = {key: value for key, value in (pairs | written(passes, pairs)).items() if value}
    assert not passes or (*passes_in(said_again).values(),) == passes
    assert shown(pairs) == {} or len(shown(pairs)["detectors"].split(",")) >= len(passes)
