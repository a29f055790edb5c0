"""Digits drawn stroke by stroke, and pages of them as a camera sees them: with light, shadows, ruling and noise."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from skimage.transform import estimate_transform, warp

Stroke = list[tuple[float, float]]


def arc(x: float, y: float, across: float, down: float, start: float, end: float) -> Stroke:
    """Return points on an ellipse around (x, y), from one angle to another in degrees, clockwise from the right."""
    angles = np.deg2rad(np.linspace(start, end, 25))
    return [(x + across * float(np.cos(a)), y + down * float(np.sin(a))) for a in angles]


STROKES: dict[int, list[Stroke]] = {
    0: [arc(0.5, 0.5, 0.3, 0.45, -90, 270)],
    1: [[(0.3, 0.3), (0.55, 0.05), (0.5, 0.95)]],
    2: [[*arc(0.48, 0.28, 0.27, 0.23, -170, 40), (0.22, 0.93), (0.8, 0.9)]],
    3: [[*arc(0.45, 0.27, 0.27, 0.22, -150, 90), *arc(0.45, 0.7, 0.32, 0.22, -90, 140)]],
    4: [[(0.4, 0.08), (0.2, 0.6), (0.82, 0.58)], [(0.64, 0.3), (0.58, 0.95)]],
    5: [[(0.75, 0.08), (0.34, 0.08), (0.29, 0.42), *arc(0.47, 0.66, 0.29, 0.26, -115, 140)]],
    6: [[(0.65, 0.06), (0.4, 0.3), (0.26, 0.62), *arc(0.5, 0.7, 0.24, 0.23, 180, -180)]],
    7: [[(0.2, 0.12), (0.78, 0.1), (0.4, 0.95)]],
    8: [[*arc(0.5, 0.28, 0.22, 0.21, 90, -270), *arc(0.5, 0.72, 0.27, 0.23, -90, 270)]],
    9: [[*arc(0.47, 0.3, 0.24, 0.23, 0, -360), (0.7, 0.32), (0.6, 0.95)]],
}
"""The strokes of each digit, in a box of 1 × 1 whose y axis points down."""


def draw_page(
    rows: list[str],
    *,
    size: int = 60,
    pen: float = 5.0,
    seed: int = 0,
    turn: float = 0.0,
    ruling: str = "plain",
    gap: float = 1.5,
    fade: float = 0.0,
) -> np.ndarray:
    """Draw a page of digits.

    Args:
        rows: the digits of each row.
        size: height of a digit in pixels.
        pen: width of the strokes in pixels.
        seed: seed for the size, slant and place of each digit, and for the noise.
        turn: rotation of the page in degrees.
        ruling: "plain", "ruled", "squared" or "dashed" paper.
        fade: the share of its darkness that the ink loses in places.
        gap: from one digit to the next, in heights of a digit. A space in a row leaves a place empty.

    Returns:
        (H, W) float32 brightness, 0 to 1.
    """
    rng = np.random.default_rng(seed)
    width, height = int((max(map(len, rows)) * 1.5 + 1.5) * size), int((len(rows) * 1.8 + 1.2) * size)
    fine = 3
    page = Image.new("L", (width * fine, height * fine), 0)
    canvas = ImageDraw.Draw(page)
    for number, row in enumerate(rows):
        for place, digit in enumerate(row):
            if digit == " ":
                continue
            left = (0.9 + gap * place + rng.uniform(-0.1, 0.1)) * size
            top = (0.9 + 1.8 * number + rng.uniform(-0.12, 0.12)) * size
            tall, slant = size * rng.uniform(0.85, 1.1), rng.uniform(-0.05, 0.2)
            for stroke in STROKES[int(digit)]:
                points = [
                    (fine * (left + tall * (0.85 * x - slant * (y - 0.5))), fine * (top + tall * y)) for x, y in stroke
                ]
                canvas.line(points, fill=255, width=round(pen * fine), joint="curve")
                for x, y in (points[0], points[-1]):
                    canvas.circle((x, y), pen * fine / 2, fill=255)
    ink = np.asarray(page.resize((width, height), Image.Resampling.BOX), np.float32) / 255
    ink *= 1 - fade * np.abs(np.sin(np.arange(width) / 23))
    lines = np.zeros_like(ink)
    if ruling in ("ruled", "squared", "dashed"):
        lines[int(0.5 * size) :: int(0.6 * size)] = 1
    if ruling == "squared":
        lines[:, int(0.2 * size) :: int(0.6 * size)] = 1
    if ruling == "dashed":
        lines[:, np.arange(width) % 14 < 5] = 0
    reflected = 0.92 * (1 - 0.75 * ink) * (1 - 0.4 * ndimage.gaussian_filter(lines, 0.6))
    reflected = ndimage.rotate(reflected, turn, reshape=False, order=1, mode="nearest")
    y, x = np.mgrid[:height, :width]
    # Light falls from one side, and a hand casts a shadow.
    light = 0.55 + 0.4 * x / width
    light *= 1 - 0.3 / (1 + np.exp(-(y - 0.6 * height - 0.2 * x) / (0.08 * height)))
    photographed = ndimage.gaussian_filter(reflected * light, 0.7) + rng.normal(0, 0.01, reflected.shape)
    return np.clip(photographed, 0, 1).astype(np.float32)


def put_on_desk(page: np.ndarray, *, desk: float, turn: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Photograph a page that lies on a desk, from a little to one side.

    Args:
        page: (H, W) float32 brightness, 0 to 1.
        desk: how bright the desk is.
        turn: degrees by which the page is turned, clockwise.
        seed: seed for the grain of the desk.

    Returns:
        the picture, and the corners of the page in it, (4, 2) x and y, clockwise from the top left.
    """
    rng = np.random.default_rng(seed)
    height, width = page.shape
    angle = np.deg2rad(turn)
    corners = np.array([[-width, -height], [width, -height], [0.94 * width, height], [-width, 0.95 * height]]) / 2
    corners = corners @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    size = np.ceil(1.25 * np.ptp(corners, axis=0)).astype(int)
    corners += size / 2
    grain = ndimage.gaussian_filter(rng.normal(0, 1, size[::-1]), (2, 30))
    picture = desk * (1 + 0.1 * grain / grain.std())
    matrix = estimate_transform(
        "projective", np.array([[0, 0], [width, 0], [width, height], [0, height]]), corners
    ).params
    lying = warp(page.astype(float), np.linalg.inv(matrix), output_shape=size[::-1], order=1, cval=-1)
    picture = ndimage.gaussian_filter(np.where(lying >= 0, lying, picture), 0.8)
    return np.clip(picture, 0, 1).astype(np.float32), corners
