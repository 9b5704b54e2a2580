"""Draws the losses of a training run into one picture. Run: python -m tools.first_model.curves FOLDER curves.png"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, MARGIN = 300, 180, 30
STAGES = {"half": "autoencoder, 64 pixels", "text": "text encoder", "decoder": "decoder, 128 pixels", "train": "UNet", "soft": "softening"}


def losses(log: Path) -> dict[int, float]:
    """The loss by step; where a run was taken up again before its last line, the later line counts."""
    return {int(step): float(loss) for step, loss in re.findall(r"^(\d+) loss ([\d.]+)", log.read_text(), re.MULTILINE)}


def plot(title: str, seen: dict[int, float]) -> Image.Image:
    """One curve; its scale begins at zero and ends at the 98th percentile, so that a bad start does not flatten the rest."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default()
    steps, values = sorted(seen), [seen[step] for step in sorted(seen)]
    top = sorted(values)[int(0.98 * (len(values) - 1))] * 1.05
    wide, high = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN
    points = [(MARGIN + wide * step / steps[-1], MARGIN + high * (1 - min(value / top, 1))) for step, value in zip(steps, values, strict=True)]
    draw.rectangle((MARGIN, MARGIN, MARGIN + wide, MARGIN + high), outline="#bbb")
    draw.line(points, fill="#1a73e8", width=2)
    draw.text((MARGIN, 8), f"{title}: {values[0]:.3g} to {values[-1]:.3g}", "black", font)
    draw.text((2, MARGIN - 4), f"{top:.2g}", "#666", font)
    draw.text((2, HEIGHT - MARGIN - 8), "0", "#666", font)
    draw.text((WIDTH - MARGIN - 60, HEIGHT - MARGIN + 6), f"{steps[-1]} steps", "#666", font)
    return picture


def draw_all(folder: Path) -> Image.Image:
    plots = [plot(title, seen) for name, title in STAGES.items() if (folder / f"{name}.log").exists() and (seen := losses(folder / f"{name}.log"))]
    sheet = Image.new("RGB", (3 * WIDTH, (len(plots) + 2) // 3 * HEIGHT), "white")
    for place, one in enumerate(plots):
        sheet.paste(one, (place % 3 * WIDTH, place // 3 * HEIGHT))
    return sheet


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    chosen = parser.parse_args()
    draw_all(chosen.folder).save(chosen.file)
