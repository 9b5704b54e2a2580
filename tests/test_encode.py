"""Texts to vectors: what the web UI computed for the tiny model, and the rules one by one."""

from __future__ import annotations

import copy
import json
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel

from nbsd.conditioning.encode import EMPHASIS, chunk_text, encode_texts
from nbsd.conditioning.tokens import Vocabulary, token_count
from nbsd.errors import RecipeError, WrongFamilyError
from nbsd.prompt.schedule import and_parts, prompt_schedule

DATA = Path(__file__).parent / "data" / "fidelity"
CASES = json.loads((DATA / "b_conditioning.json").read_text(encoding="utf-8"))["cases"]
PLAIN = [case for case in CASES if "texts" in case]
SCHEDULES = [case for case in CASES if case.get("kind") == "get_learned_conditioning"]
PARTS = [case for case in CASES if case.get("kind") == "get_multicond_learned_conditioning"]
OPTIONS = {     # the web UI's option -> our argument
    "emphasis": "emphasis",
    "CLIP_stop_at_last_layers": "clip_skip",
    "comma_padding_backtrack": "backtrack",
    "use_old_emphasis_implementation": "old_emphasis",
}
VOCABULARY = Vocabulary()


@cache
def tiny_text_encoder() -> CLIPTextModel:
    """tiny-sd1's text encoder, float32."""
    numbers = json.loads((DATA / "models" / "tiny-sd1.config.json").read_text(encoding="utf-8"))["text_encoder"]
    model = CLIPTextModel(CLIPTextConfig(**numbers)).eval()
    prefix = "cond_stage_model.transformer."
    tensors = {
        key.removeprefix(prefix): value.float()
        for key, value in load_file(DATA / "models" / "tiny-sd1.safetensors").items()
        if key.startswith(prefix) and not key.endswith("position_ids")
    }
    if not hasattr(model, "text_model"):        # transformers 5
        tensors = {key.removeprefix("text_model."): value for key, value in tensors.items()}
    missing, strange = model.load_state_dict(tensors, strict=False)
    assert not strange
    assert all(key.endswith("position_ids") for key in missing)
    return model


@cache
def expected() -> dict[str, torch.Tensor]:
    return load_file(DATA / "b_conditioning.safetensors")


@cache
def embeddings() -> dict[str, torch.Tensor]:
    neg = load_file(DATA / "models" / "tiny-neg.safetensors")
    pt = torch.load(DATA / "models" / "tiny-embed.pt", weights_only=True)
    return {"tiny-embed": pt["string_to_param"]["*"].detach(), "tiny-neg": neg["emb_params"]}


def arguments(case: dict) -> dict:
    return {OPTIONS[key]: value for key, value in case["options"].items()}


def encode(texts: list[str], **options) -> torch.Tensor:
    return encode_texts(texts, tiny_text_encoder(), VOCABULARY, embeddings=embeddings(), **options)


def error(got: torch.Tensor, name: str) -> float:
    want = expected()[name]
    assert got.shape == want.shape
    assert got.dtype == torch.float32
    return float((got - want).abs().max())


@pytest.mark.parametrize("case", [c for c in PLAIN if "chunks" in c], ids=lambda c: c["id"])
def test_chunks_are_those_of_the_web_ui(case):
    given = {key: value for key, value in arguments(case).items() if key != "clip_skip"}
    texts = [chunk_text(text, VOCABULARY, embeddings=embeddings(), **given) for text in case["texts"]]
    for chunks, wanted in zip(texts, case["chunks"], strict=True):
        assert [one.tokens for one in chunks] == [one["tokens"] for one in wanted]
        assert [one.multipliers for one in chunks] == [one["multipliers"] for one in wanted]
        assert [[fix._asdict() for fix in one.fixes] for one in chunks] == [one["fixes"] for one in wanted]
    assert max(map(token_count, texts)) == case["token_count"]


@pytest.mark.parametrize("case", PLAIN, ids=lambda c: c["id"])
def test_vectors_are_those_of_the_web_ui(case):
    assert error(encode(case["texts"], **arguments(case)), f"{case['id']}/cond") <= 1e-5


@pytest.mark.parametrize("case", SCHEDULES, ids=lambda c: c["id"])
def test_texts_of_one_schedule_are_encoded_together(case):
    schedule = prompt_schedule(case["prompt"], case["steps"])
    assert [until for until, _ in schedule] == case["end_at_step"]
    for index, got in enumerate(encode([text for _, text in schedule], **arguments(case))):
        assert error(got, f"{case['id']}/cond{index}") <= 1e-5


@pytest.mark.parametrize("case", PARTS, ids=lambda c: c["id"])
def test_parts_of_an_and_prompt_are_encoded_apart(case):
    steps, parts = case["steps"], and_parts(case["prompt"])
    assert [part.weight for part in parts] == [part["weight"] for part in case["parts"]]
    for step in (0, steps - 1):
        contexts = []
        for part in parts:
            schedule = prompt_schedule(part.text, steps)
            now = next(index for index, (until, _) in enumerate(schedule) if until >= step)
            contexts.append(encode([text for _, text in schedule], **arguments(case))[now])
        longest = max(len(context) for context in contexts)
        stacked = torch.stack([torch.cat([c, c[-1:].expand(longest - len(c), -1)]) for c in contexts])
        assert error(stacked, f"{case['id']}/stacked_step{step}") <= 1e-5


def test_a_text_alone_differs_from_the_same_text_in_company():
    alone, together = encode(["a (cat:1.3)"])[0], encode(["a (cat:1.3)", "a dog"])[0]
    assert float((alone - together).abs().max()) > 1e-4


def test_a_text_repeated_counts_each_time_it_stands_in_the_schedule():
    once, twice = encode(["a (cat:1.3)", "dog"]), encode(["a (cat:1.3)", "dog", "dog"])
    assert float((once[0] - twice[0]).abs().max()) > 1e-5
    torch.testing.assert_close(twice[1], twice[2], rtol=0, atol=0)


def test_a_shorter_text_is_filled_up_with_the_empty_prompt():
    got = encode(["cat", "cat BREAK dog"])
    torch.testing.assert_close(got[0, 77:], encode([""])[0], rtol=0, atol=2e-6)
    torch.testing.assert_close(got[:, :77], encode(["cat", "cat"]), rtol=0, atol=2e-6)


@pytest.mark.parametrize("emphasis", ["No norm", "Ignore", "None"])
def test_other_emphasis_modes_do_not_look_at_other_texts(emphasis):
    alone, together = encode(["a (cat:1.3)"], emphasis=emphasis), encode(["a (cat:1.3)", "[dog]"], emphasis=emphasis)
    torch.testing.assert_close(alone[0], together[0], rtol=0, atol=2e-6)


def test_without_emphasis_the_old_one_leaves_brackets_in_the_text_too():
    old, new = (encode(["a ((cat))"], emphasis="None", old_emphasis=old) for old in (True, False))
    torch.testing.assert_close(old, new, rtol=0, atol=0)


def test_original_emphasis_keeps_the_mean():
    plain, weighted = encode(["a cat sat"]), encode(["a ((cat:1.4) sat)"])
    assert float(weighted.mean()) == pytest.approx(float(plain.mean()), abs=1e-6)
    assert float((plain - weighted).abs().max()) > 0.05


def test_text_is_read_from_left_to_right_only():
    one, other = encode(["a cat sat on a mat", "a cat sat on a chair"], emphasis="Ignore")
    torch.testing.assert_close(one[:6], other[:6], rtol=0, atol=2e-6)
    assert float((one[6] - other[6]).abs().max()) > 1e-3


def test_more_chunks_than_the_text_encoder_reads_at_once(monkeypatch):
    texts = [" BREAK ".join(f"cat {n} (dog:1.{i}) {i}" for n in range(4)) for i in range(6)]
    together = encode(texts)
    monkeypatch.setattr("nbsd.conditioning.encode.AT_ONCE", 5)
    torch.testing.assert_close(encode(texts), together, rtol=0, atol=2e-6)


def test_ten_thousand_words():
    vectors = encode([", ".join(f"word{n} (cat:1.1)" for n in range(5000))])
    assert vectors.shape[0] == 1
    assert vectors.shape[1] % 77 == 0
    assert vectors.shape[1] > 77 * 200
    assert bool(vectors.isfinite().all())


def test_embeddings_leave_the_text_encoder_as_it_was():
    model, before = tiny_text_encoder(), encode(["a tiny cat"])
    table = model.get_input_embeddings()
    encode(["a tiny-embed cat"])
    assert not table._forward_hooks
    with pytest.raises(WrongFamilyError, match=r"'tiny-embed' has vectors of 47 numbers, the model's text encoder takes 48"):
        encode_texts(["a tiny-embed cat"], model, VOCABULARY, embeddings={"tiny-embed": torch.zeros(3, 47)})
    assert not table._forward_hooks
    torch.testing.assert_close(encode(["a tiny cat"]), before, rtol=0, atol=0)


def test_two_embeddings_of_one_length_are_not_taken_for_each_other():
    two = {"cat": torch.zeros(1, 48), "dog": torch.linspace(-1, 1, 48).view(1, 48)}
    cat, dog = encode_texts(["cat", "dog"], tiny_text_encoder(), VOCABULARY, embeddings=two)
    assert float((cat - dog).abs().max()) > 1e-3


def test_an_embedding_at_the_end_of_a_cut_text_goes_over_the_end_token():
    # old emphasis only; the web UI lets the first vector of a name at place 75 stand where the end token was
    text = " ".join(["cat"] * 75)
    plain, over = encode([text], old_emphasis=True), encode([text + " tiny-embed"], old_emphasis=True)
    torch.testing.assert_close(plain[:, :76], over[:, :76], rtol=0, atol=2e-6)
    assert float((plain[:, 76] - over[:, 76]).abs().max()) > 1e-3


def test_rows_with_and_without_embeddings_do_not_mix():
    both = encode(["a tiny-embed cat", "tiny-neg, (tiny-neg)", "a cat"], emphasis="Ignore")
    for row, text in zip(both, ["a tiny-embed cat", "tiny-neg, (tiny-neg)", "a cat"], strict=True):
        torch.testing.assert_close(row, encode([text], emphasis="Ignore")[0], rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_skip": 13}, "clip skip is 13, but the model's text encoder has 12 layers: use 1 to 12"),
        ({"emphasis": "original"}, "no emphasis mode is called 'original': use one of Original, No norm, Ignore, None"),
        ({"dialect": "comfy"}, "no prompt dialect is called 'comfy'"),
        ({"dialect": "novelai", "old_emphasis": True}, "the old emphasis knows the web UI's brackets only"),
    ],
)
def test_refusals_say_what_to_do(options, message):
    with pytest.raises(RecipeError) as caught:
        encode(["a cat"], **options)
    assert message in str(caught.value)


def test_every_layer_can_be_chosen():
    layers = [encode(["a cat"], clip_skip=skip) for skip in range(1, 13)]
    assert all(float((a - b).abs().max()) > 1e-3 for a, b in pairwise(layers))


def test_no_gradients_are_recorded():
    assert not encode(["a cat"]).requires_grad


@pytest.mark.parametrize("options", [{"clip_skip": 1}, {"clip_skip": 2}, {"emphasis": "Ignore"}], ids=str)
def test_half_precision_gives_float32(options):
    model, text = copy.deepcopy(tiny_text_encoder()).bfloat16(), "a (tiny-embed:1.2) cat"
    got = encode_texts([text], model, VOCABULARY, embeddings=embeddings(), **options)
    assert got.dtype == torch.float32
    assert float((got - encode([text], **options)).abs().max()) < 0.2


def test_every_mode_of_the_recipe_has_a_row():
    assert list(EMPHASIS) == ["Original", "No norm", "Ignore", "None"]
