"""Names and plain facts of the samplers and schedules. Standard library only.

The one place that says what a sampler is called, which schedule it runs by default and what an infotext writes for it.
`sampling.SAMPLERS` and `sampling.SCHEDULES` are built on these rows; `infotext` reads them without loading torch.
Names, aliases and flags: A1111 v1.10.1, modules/sd_samplers_*.py and modules/sd_schedulers.py.
"""

from __future__ import annotations

from dataclasses import dataclass

AUTOMATIC = "Automatic"     # the label for "the sampler's default"
_CHURN = ("s_churn", "s_tmin", "s_tmax", "s_noise")


@dataclass(frozen=True)
class SamplerFacts:
    """What is known of a sampler without running it."""

    name: str                               # as the panel shows it and an infotext spells it
    aliases: tuple[str, ...] = ()           # the web UI's other names for it
    schedule: str = AUTOMATIC               # label of the default schedule; "Automatic": the model's own sigmas
    second_order: bool = False              # prompt edits are timed for twice the steps
    brownian: bool = False                  # noise from a Brownian tree, seeded with the picture's seed only
    uses_ensd: bool = False                 # since 1.6 the infotext says ENSD for these samplers only
    discard_penultimate: bool = False       # runs one step more and drops the last sigma but one
    timesteps: bool = False                 # steps in whole time steps, has no sigma schedule
    uses_eta: str = ""                      # "eta", "eta_ddim", or "" where the sampler knows no eta
    sigma_options: tuple[str, ...] = ()     # which of the recipe's s_... fields the web UI hands to it
    novelai: tuple[str, ...] = ()           # NovelAI's names for it that are no alias


_ALL = (
    SamplerFacts("DPM++ 2M", ("k_dpmpp_2m",), "Karras"),
    SamplerFacts("DPM++ SDE", ("k_dpmpp_sde",), "Karras", second_order=True, brownian=True, uses_eta="eta", sigma_options=("s_noise",)),
    SamplerFacts("DPM++ 2M SDE", ("k_dpmpp_2m_sde",), "Exponential", brownian=True, uses_eta="eta", sigma_options=("s_noise",)),
    SamplerFacts("DPM++ 2M SDE Heun", ("k_dpmpp_2m_sde_heun",), "Exponential", brownian=True, uses_eta="eta", sigma_options=("s_noise",)),
    SamplerFacts("DPM++ 2S a", ("k_dpmpp_2s_a",), "Karras", second_order=True, uses_ensd=True, uses_eta="eta",
                 sigma_options=("s_noise",), novelai=("k_dpmpp_2s_ancestral",)),
    SamplerFacts("DPM++ 3M SDE", ("k_dpmpp_3m_sde",), "Exponential", brownian=True, discard_penultimate=True, uses_eta="eta",
                 sigma_options=("s_noise",)),
    SamplerFacts("Euler a", ("k_euler_a", "k_euler_ancestral"), uses_ensd=True, uses_eta="eta"),
    SamplerFacts("Euler", ("k_euler",), sigma_options=_CHURN),
    SamplerFacts("LMS", ("k_lms",)),
    SamplerFacts("Heun", ("k_heun",), second_order=True, sigma_options=_CHURN),
    SamplerFacts("DPM2", ("k_dpm_2",), "Karras", second_order=True, discard_penultimate=True, sigma_options=_CHURN),
    SamplerFacts("DPM2 a", ("k_dpm_2_a",), "Karras", second_order=True, uses_ensd=True, discard_penultimate=True, uses_eta="eta",
                 sigma_options=("s_noise",), novelai=("k_dpm_2_ancestral",)),
    SamplerFacts("DPM fast", ("k_dpm_fast",), uses_ensd=True, uses_eta="eta", sigma_options=("s_noise",)),
    SamplerFacts("DPM adaptive", ("k_dpm_ad",), uses_ensd=True, uses_eta="eta", novelai=("k_dpm_adaptive",)),
    SamplerFacts("Restart", ("restart",), "Karras", second_order=True),
    SamplerFacts("DDIM", ("ddim",), timesteps=True, uses_eta="eta_ddim", novelai=("ddim_v3",)),
    SamplerFacts("DDIM CFG++", ("ddim_cfgpp",), timesteps=True, uses_eta="eta_ddim"),
    SamplerFacts("PLMS", ("plms",), timesteps=True),
    SamplerFacts("UniPC", ("unipc",), timesteps=True),
    SamplerFacts("LCM", ("k_lcm",)),
)
SAMPLER_FACTS: dict[str, SamplerFacts] = {row.name: row for row in _ALL}     # in the web UI's order; the first is its default


@dataclass(frozen=True)
class ScheduleName:
    """How a schedule of noise levels is called."""

    label: str                              # as the panel shows it and an infotext spells it
    name: str                               # the web UI's internal name
    aliases: tuple[str, ...] = ()
    default_rho: float = -1.0               # -1: the schedule has none


_SCHEDULES = (
    ScheduleName(AUTOMATIC, "automatic"),
    ScheduleName("Uniform", "uniform"),
    ScheduleName("Karras", "karras", default_rho=7.0),
    ScheduleName("Exponential", "exponential"),
    ScheduleName("Polyexponential", "polyexponential", default_rho=1.0),
    ScheduleName("SGM Uniform", "sgm_uniform", ("SGMUniform",)),
    ScheduleName("KL Optimal", "kl_optimal"),
    ScheduleName("Align Your Steps", "align_your_steps"),
    ScheduleName("Simple", "simple"),
    ScheduleName("Normal", "normal"),
    ScheduleName("DDIM", "ddim"),
    ScheduleName("Beta", "beta"),
)
SCHEDULE_NAMES: dict[str, ScheduleName] = {row.label: row for row in _SCHEDULES}

# --- changing a given picture: the words of the web UI's page

STRETCH, CROP, FILL, LATENT_RESIZE = "Just resize", "Crop and resize", "Resize and fill", "Just resize (latent upscale)"
RESIZE_MODES = (STRETCH, CROP, FILL, LATENT_RESIZE)
FILLED, ORIGINAL, LATENT_NOISE, LATENT_NOTHING = "fill", "original", "latent noise", "latent nothing"
MASKED_CONTENTS = (FILLED, ORIGINAL, LATENT_NOISE, LATENT_NOTHING)
# How latents are brought to the size of the second pass: torch's name of the way, and whether it smooths where it makes smaller.
LATENT_UPSCALERS: dict[str, tuple[str, bool]] = {
    "Latent": ("bilinear", False),
    "Latent (antialiased)": ("bilinear", True),
    "Latent (bicubic)": ("bicubic", False),
    "Latent (bicubic antialiased)": ("bicubic", True),
    "Latent (nearest)": ("nearest", False),
    "Latent (nearest-exact)": ("nearest-exact", False),
}
NO_UPSCALER, LANCZOS, NEAREST = "None", "Lanczos", "Nearest"
IMAGE_UPSCALERS = (NO_UPSCALER, LANCZOS, NEAREST)       # besides model files


@dataclass(frozen=True)
class UpscalerFile:
    """What the web UI calls an upscaler that it fetches by itself."""

    stems: tuple[str, ...]      # of the file, as it was published or as the web UI keeps it
    link: str = ""              # where its makers published it


_REAL = "https://github.com/xinntao/Real-ESRGAN/releases/download/"
# modules/realesrgan_model.py, dat_model.py, esrgan_model.py and the built-in extensions for SwinIR and ScuNET. Others go by their files' names
UPSCALER_FILES: dict[str, UpscalerFile] = {
    "R-ESRGAN General 4xV3": UpscalerFile(("realesr-general-x4v3",), f"{_REAL}v0.2.5.0/realesr-general-x4v3.pth"),
    "R-ESRGAN General WDN 4xV3": UpscalerFile(("realesr-general-wdn-x4v3",), f"{_REAL}v0.2.5.0/realesr-general-wdn-x4v3.pth"),
    "R-ESRGAN AnimeVideo": UpscalerFile(("realesr-animevideov3",), f"{_REAL}v0.2.5.0/realesr-animevideov3.pth"),
    "R-ESRGAN 4x+": UpscalerFile(("RealESRGAN_x4plus",), f"{_REAL}v0.1.0/RealESRGAN_x4plus.pth"),
    "R-ESRGAN 4x+ Anime6B": UpscalerFile(("RealESRGAN_x4plus_anime_6B",), f"{_REAL}v0.2.2.4/RealESRGAN_x4plus_anime_6B.pth"),
    "R-ESRGAN 2x+": UpscalerFile(("RealESRGAN_x2plus",), f"{_REAL}v0.2.1/RealESRGAN_x2plus.pth"),
    "ESRGAN_4x": UpscalerFile(("ESRGAN",)),
    "DAT x2": UpscalerFile(("DAT_x2",)),
    "DAT x3": UpscalerFile(("DAT_x3",)),
    "DAT x4": UpscalerFile(("DAT_x4",)),
    "SwinIR 4x": UpscalerFile(("SwinIR_4x", "003_realSR_BSRGAN_DFOWMFC_s64w8_SwinIR-L_x4_GAN")),
    "SwinIR_4x": UpscalerFile(("003_realSR_BSRGAN_DFOWMFC_s64w8_SwinIR-L_x4_GAN",)),
    "ScuNET": UpscalerFile(("scunet_color_real_gan",)),
    "ScuNET GAN": UpscalerFile(("ScuNET", "scunet_color_real_gan")),
    "ScuNET PSNR": UpscalerFile(("scunet_color_real_psnr",)),
}
