"""A loaded model, ready to make pictures, and the shelf it was taken from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nbsd.conditioning.embeddings import Embeddings, embedding_files
from nbsd.errors import ModelError, RecipeError
from nbsd.events import Event
from nbsd.infotext.pairs import with_pairs
from nbsd.infotext.rules import in_effect
from nbsd.models import first
from nbsd.models.beside import is_word
from nbsd.models.detect import EMBEDDING
from nbsd.models.families import EDITING, INPAINTING, TOKEN_END
from nbsd.models.load import load_checkpoint
from nbsd.models.pictured import pictured_in, pictured_name
from nbsd.models.scan import places, stem
from nbsd.models.small import read_small
from nbsd.models.store import Store
from nbsd.models.strips import decode_in_strips, encode_in_strips, in_memory, is_large
from nbsd.models.upscale import UpscalerFiles
from nbsd.picture import Picture
from nbsd.pipeline.compute import Compute, choose, memory_errors
from nbsd.pipeline.fetched import here
from nbsd.pipeline.make import Control, ignore, make
from nbsd.pipeline.networks import Networks, Prepared
from nbsd.pipeline.scripts import without
from nbsd.pipeline.texts import Texts, encoders_of
from nbsd.recipe import Img2Img, Recipe, join_title, split_title
from nbsd.sampling import Step
from nbsd.sampling.parametrize import NoiseTable, downcast, zero_terminal_snr

if TYPE_CHECKING:
    from PIL import Image

    from nbsd.models.load import Checkpoint


def load(
    source: str | Path,
    *,
    vae: str | Path | None = None,
    device: str | None = None,
    dtype: str | torch.dtype | None = None,
    prediction: str | None = None,
    text_encoder: str | Path | None = None,
    embeddings: str | Path | None = None,
    networks: str | Path | None = None,
    folder: str | Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Model:
    """Load a model onto a device: a checkpoint file of the web UI (.safetensors or .ckpt), a folder of diffusers, or "first".

    `source`, `vae` and `text_encoder`: a file, "owner/repo" or "owner/repo/file.safetensors" of the Hugging Face hub, a link to the hub, to
    Civitai or to a file at any https address. What is not here yet is fetched into `folder` (by default where the host keeps models).
    `vae`: the file or folder of another VAE; "None" is the model's own; None is a file beside it that is called like it
    (model.vae.pt), where there is one. `device`: "cuda" or "cpu"; `dtype`: "float16", "float32" or "bfloat16"; both are chosen where
    they are not given. `prediction`: "epsilon" or "v_prediction" where the file cannot tell.
    `text_encoder`: where the text encoder comes from, for a file that has none: another model of the family, or a folder.
    `embeddings`: a folder of textual-inversion files, which then stand in prompts by their names.
    `networks`: a folder of LoRAs and hypernetworks, for <lora:name:0.8> and <hypernet:name:1> in prompts.
    `on_progress(done, total)` counts bytes. Raises ModelError for a file that is not such a checkpoint.
    """
    compute = choose(device, dtype)
    source = here(source, folder, on_progress)
    vae, text_encoder = (here(one, folder, on_progress) if one and not is_word(one) else one for one in (vae, text_encoder))
    with memory_errors("loading a model"):
        checkpoint = load_checkpoint(
            first.resolved(source), vae=vae, device=compute.device, dtype=compute.weights, vae_dtype=compute.vae,
            prediction=prediction, text_encoder=text_encoder, on_progress=on_progress,
        )
    return Model(checkpoint, compute, [Path(embeddings)] if embeddings else [], Networks(Store([networks] if networks else [])))


class Model:
    """A checkpoint on a device. `generate` makes pictures; `make` makes them one by one and tells how far it is."""

    def __init__(
        self, checkpoint: Checkpoint, compute: Compute, embeddings: Sequence[Path] = (), networks: Networks | None = None
    ) -> None:
        """`embeddings`: folders of textual-inversion files; `networks`: where LoRAs and hypernetworks come from."""
        self.checkpoint, self.compute = checkpoint, compute
        self.networks = networks or Networks(Store())
        self.texts = Texts(encoders_of(checkpoint), checkpoint.family)
        self._embeddings: dict[str, Path] = {}
        self.use_embeddings(embedding_files(embeddings, pictured_name))
        self._hash: Future[tuple[str, str | None]] | None = None
        self._other: tuple[str, Model] | None = None
        self._upscalers: UpscalerFiles | None = None

    def use_embeddings(self, files: Mapping[str, Path]) -> None:
        """Let these embeddings, by their names in prompts, be known from now on."""
        if files != self._embeddings or self.texts.embeddings is None:
            self._embeddings = dict(files)
            parts, modules = self.checkpoint.text_parts, self.checkpoint.text_encoders
            widths = {part.vectors: module.config.hidden_size for part, module in zip(parts, modules, strict=True)}
            self.texts.embeddings = Embeddings(files, read_small, widths)
            self.texts.forget()

    @property
    def upscalers(self) -> UpscalerFiles:
        """The upscaler files in the folders that networks come from, and beside the model."""
        if self._upscalers is None:
            self._upscalers = UpscalerFiles(self.folders, self.compute.device)
        return self._upscalers

    @property
    def folders(self) -> list[Path]:
        """Where other files lie: the folders that networks come from, and the model's own. Beside the built-in one there are none."""
        beside = [] if self.checkpoint.path == first.file() else [self.checkpoint.path.parent]
        return [*self.networks.folders, *beside]

    @property
    def name(self) -> str:
        return self.checkpoint.name

    @property
    def edits(self) -> bool:
        """Whether it is an InstructPix2Pix model, which is shown the picture that it changes."""
        return self.checkpoint.purpose == EDITING

    def __repr__(self) -> str:
        return f"<nbsd model {self.name!r}, {self.checkpoint.family.name}, {self.compute.words}>"

    def generate(
        self, recipe: Recipe, count: int = 1, batch_size: int = 1, image: Any = None, mask: Any = None,
        on_step: Callable[[Step], None] | None = None, *, batch_seeds: bool = True,
    ) -> list[Picture]:
        """Make `count` pictures, `batch_size` at a time; picture n follows `recipe.nth(n)`. They are not saved.

        `image` is changed as `recipe.img2img` says, and with a `mask`, white where it is to change, as `recipe.inpaint` says; without
        those, as their defaults say. Each is a path, the bytes of a file, a PIL picture or a `Picture`.
        The model is this one, whatever model the recipe names; each picture's recipe says what made it. What the recipe says of scripts
        (loopback, details ...) is not done: see `pipeline.jobs.scripted`.
        `on_step` sees each step of the sampler and may raise to end it. `batch_seeds`: see `pipeline.make.make`.
        Raises RecipeError, OutOfMemory.
        """
        return list(self.make(
            without(recipe), count=count, batch_size=batch_size, image=image, mask=mask, on_step=on_step or ignore, batch_seeds=batch_seeds,
        ))

    def make(
        self,
        recipe: Recipe,
        *,
        image: Any = None,
        mask: Any = None,
        first: Any = None,
        count: int = 1,
        batch_size: int = 1,
        report: Callable[[Event], None] = ignore,
        control: Control | None = None,
        on_step: Callable[[Step], None] = ignore,
        preview: bool = False,
        batch_seeds: bool = True,
        after: Callable[[Image.Image, Recipe], Image.Image] | None = None,
    ) -> Iterator[Picture]:
        """As `generate`, a picture at a time; see `pipeline.make.make`."""
        return make(
            self, recipe, image=image, mask=mask, first=first, count=count, batch_size=batch_size, report=report, control=control,
            on_step=on_step, preview=preview, batch_seeds=batch_seeds, after=after,
        )

    def other(self, title: str) -> Model:
        """The model that the hires fix names for its second pass, loaded beside this one and kept; this one where it is itself."""
        name, digest = split_title(title)
        if (not name or name in (self.name, self.checkpoint.path.name)) and (not digest or self.checkpoint.hash.startswith(digest)):
            return self
        if self._other is None or self._other[0] != title:
            self._other = None      # not two more
            store = Store([self.checkpoint.path.parent, *self.networks.folders])
            with memory_errors("loading the second pass's model"):
                checkpoint = store.checkpoint(
                    title, str(self.checkpoint.vae_path) if self.checkpoint.vae_path else None,
                    device=self.compute.device, dtype=self.compute.weights, vae_dtype=self.compute.vae,
                )
            self._other = title, Model(checkpoint, self.compute, networks=self.networks)
        self._other[1].use_embeddings(self._embeddings)
        return self._other[1]

    def require(self, recipe: Recipe) -> None:
        """Raise RecipeError where the recipe asks for what this model has not, ModelError for one that reads no prompts."""
        words = min(encoder.config.vocab_size for encoder in self.checkpoint.text_encoders)
        if words <= TOKEN_END:
            raise ModelError(f"the text encoder of {self.name} knows {words} words and CLIP's has {TOKEN_END + 1}: choose another version of it")
        if self.checkpoint.text_parts[0].layer:     # of the model's own choice; the web UI takes no notice of clip skip then either
            return
        layers = self.checkpoint.text_encoder.config.num_hidden_layers
        if recipe.clip_skip > layers:
            raise RecipeError(f"clip skip is {recipe.clip_skip}: the text encoder of {self.name} has {layers} layers, use at most {layers}")

    @contextmanager
    def with_networks(self, networks: Prepared) -> Iterator[None]:
        """The model changed by networks for the length of the block."""
        with memory_errors("applying networks"), networks.at_work():
            self.texts.networks = networks.text_key
            try:
                yield
            finally:
                self.texts.networks = ()

    def predict(self, x: Tensor, t: Tensor, context: Tensor, vector: Tensor | None = None) -> Tensor:
        """The UNet's answer [N, 4, h, w], float32, to x [N, 4 or more, h, w] at time steps t [N] with contexts [N, 77 k, width].

        `vector` [N, d]: of SDXL, the pooled texts and behind them the numbers of its family.
        """
        weights, more = self.compute.weights, {}
        if vector is not None:
            count = len(self.checkpoint.family.numbers)
            more["added_cond_kwargs"] = {"text_embeds": vector[:, :-count].to(weights), "time_ids": vector[:, -count:]}
        answer = self.checkpoint.unet(x.to(weights), t, context.to(weights), return_dict=False, **more)[0]
        return answer.to(self.compute.latents)

    def decode(self, latents: Tensor, *, whole: bool = False, check: Callable[[], None] = lambda: None) -> Tensor:
        """What the VAE makes of latents [B, 4, h, w] as a sampler leaves them: [B, 3, 8 h, 8 w], nominally -1 to 1.

        Large pictures, and all for which memory is short, go through it in strips of rows, with the result of the whole, unless `whole`;
        `check` may raise between strips.
        """
        vae = self.checkpoint.vae
        scaled = latents.to(vae.dtype) / vae.config.scaling_factor

        def at_once() -> Tensor:
            return vae.decode(scaled, return_dict=False)[0]

        def strips() -> Tensor:
            return torch.cat([decode_in_strips(vae, one[None], check) for one in scaled])

        return at_once() if whole else in_memory(at_once, strips, is_large(8 * latents.shape[3], 8 * latents.shape[2]))

    def encode(self, pixels: Tensor, *, whole: bool = False, check: Callable[[], None] = lambda: None) -> Tensor:
        """The latents [B, 4, h, w] of pixels [B, 3, H, W], -1 to 1, float32: the middle of the VAE's distribution. As `decode` otherwise."""
        vae = self.checkpoint.vae
        given = pixels.to(vae.dtype)

        def at_once() -> Tensor:
            return vae.encode(given).latent_dist.mode()

        def strips() -> Tensor:
            return torch.cat([encode_in_strips(vae, one[None], check) for one in given]).chunk(2, dim=1)[0]

        latents = at_once() if whole else in_memory(at_once, strips, is_large(pixels.shape[3], pixels.shape[2]))
        return (latents * vae.config.scaling_factor).to(self.compute.latents)

    def widen_vae(self) -> bool:
        """Let the VAE compute in float32 from now on; False where it does already."""
        if self.checkpoint.vae.dtype == torch.float32:
            return False
        self.checkpoint.vae.float()
        return True

    def table(self, recipe: Recipe) -> NoiseTable:
        """The noise levels of the model's training, as the recipe wants them read."""
        alphas = self.checkpoint.alphas_cumprod
        if recipe.downcast_alphas:
            alphas = downcast(alphas)
        if recipe.zero_terminal_snr:
            alphas = zero_terminal_snr(alphas)
        elif self.checkpoint.zero_terminal_snr:     # of the model itself: no old text may make it infinite
            alphas = zero_terminal_snr(alphas.float())
        return NoiseTable(alphas, quantize=recipe.quantize_timesteps)

    def start_hashing(self) -> None:
        """Compute the files' hashes, which the infotext needs, beside the picture (4 GB take some seconds the first time)."""
        if self._hash is None:
            with_thread = ThreadPoolExecutor(1, thread_name_prefix="nbsd-hash")
            self._hash = with_thread.submit(lambda: (self.checkpoint.hash, self.checkpoint.text_title))
            with_thread.shutdown(wait=False)

    def signed(
        self, recipe: Recipe, networks: Prepared | None = None, used: Collection[str] | None = None, second: Prepared | None = None
    ) -> Recipe:
        """The recipe with the model, the VAE, the networks and the embeddings that were really used.

        `second`: the networks of the hires fix. `used`: guidance rules that had an effect (`Guidance.used`); settings of others go: the web
        UI writes those that had one.
        """
        self.start_hashing()
        assert self._hash is not None
        vae = join_title(self.checkpoint.vae_name or "", self.checkpoint.vae_hash or "")
        effective, shown = self._shown(recipe if used is None else in_effect(recipe, used))
        digest, texts = self._hash.result()
        signed = replace(effective, model=join_title(self.name, digest), vae=vae, text_encoder=texts)
        hashes = ", ".join(dict.fromkeys(one.signature for one in (networks, second) if one is not None and one.signature))
        shown["Hypernet hash"] = networks.hypernetwork_hash if networks else ""
        return with_pairs(signed, {**shown, "Lora hashes": hashes, "TI hashes": self.texts.signature(recipe)})

    def _shown(self, recipe: Recipe) -> tuple[Recipe, dict[str, str]]:
        """The recipe without settings of what other models read beside the latents, and the pairs that are said of what this one does."""
        purpose, how, said = self.checkpoint.purpose, recipe.img2img, {"Conditional mask weight": "", "Image CFG scale": ""}
        if purpose == INPAINTING:
            said["Conditional mask weight"] = str(recipe.mask_weight)
        elif recipe.mask_weight != Recipe.mask_weight:
            recipe = replace(recipe, mask_weight=Recipe.mask_weight)
        if how and purpose == EDITING:
            said["Image CFG scale"] = str(how.image_cfg_scale)
        elif how and how.image_cfg_scale != Img2Img.image_cfg_scale:
            recipe = replace(recipe, img2img=replace(how, image_cfg_scale=Img2Img.image_cfg_scale))
        return recipe, said


class Shelf:
    """The models of some folders; keeps those that were used last, so that the next recipe need not load them again."""

    def __init__(self, folders: Sequence[str | Path], device: str | None = None, dtype: str | None = None) -> None:
        self._store, self._device, self._dtype = Store(folders), device, dtype
        self._networks = Networks(self._store)
        self._models: list[Model] = []      # of the checkpoints that are held; each keeps what it encoded

    def also(self, folder: Path) -> None:
        """Look in this folder too, from now on."""
        if folder not in self._store.folders:
            self._store.folders.append(folder)

    def model(self, recipe: Recipe, on_progress: Callable[[int, int], None] | None = None) -> Model:
        """The model and VAE that a recipe names, loaded. A load that fails leaves the old model in place."""
        compute = choose(self._device, self._dtype)
        with memory_errors("loading a model"):
            checkpoint = self._store.checkpoint(
                recipe.model, recipe.vae, device=compute.device, dtype=compute.weights, vae_dtype=compute.vae, text_title=recipe.text_encoder,
                on_progress=on_progress,
            )
        self._models = [model for model in self._models if model.checkpoint in self._store.rack]
        model = next((one for one in self._models if one.checkpoint is checkpoint), None)
        if model is None:
            model = Model(checkpoint, compute, networks=self._networks)
            self._models.append(model)
        files = {stem(entry.path): entry.path for entry in self._store.scan() if entry.kind == EMBEDDING}
        pictures = pictured_in({place for folder in self._store.folders for place in places(folder)} | {path.parent for path in files.values()})
        model.use_embeddings({**{name: path for name, path in pictures.items() if path.stem not in files}, **files})
        return model
