"""Find the ink of digits in a picture, with a small network.

The network gives each pixel the probability that it is ink of a digit, and that it is other writing: letters, signs,
underlines. It ignores paper, printed lines, desks, shadows and edges. ``benchmarks/package_ink.py`` trains it on
pictures that code composes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

from kaggle_digits.files import read_arrays
from kaggle_digits.handwriting.strokes import separate, usual_size
from kaggle_digits.learners.placing import rescale
from kaggle_digits.strategy import Device

if TYPE_CHECKING:
    import keras

NETWORK_FILE = Path(__file__).with_name("ink.npz")
"""The weights of the network, in the order of the layers."""

LEAST_CONTRAST = 0.08
"""Smallest range of brightness in which anything is written."""


@dataclass(frozen=True)
class Ink:
    """The ink in a picture.

    Args:
        digits: (H, W) float32, the probability of each pixel that it is ink of a digit.
        marks: (H, W) float32, the same for other writing.
        tone: (H, W) float32, how dark the ink of digits is, 0–1, whatever the light and the pen.
        factor: the picture is this many times as large as these maps.
    """

    digits: np.ndarray
    marks: np.ndarray
    tone: np.ndarray
    factor: float


def build_network() -> keras.Model:
    """Build the network: pictures (N, H, W, 3) from 0 to 1 → logits (N, H, W, 2).

    Its shape is that of a U-Net whose finest layers have half of the picture's size. H and W are multiples of 16.

    Source: Ronneberger, Fischer and Brox 2015, U-Net, arXiv 1505.04597.
    """
    import keras
    from keras import layers

    def convolve(x: keras.KerasTensor, channels: int, *, kernel: int = 3, strides: int = 1) -> keras.KerasTensor:
        return layers.Conv2D(
            channels, kernel, strides, padding="same", activation="relu", kernel_initializer="he_normal"
        )(x)

    widths = (16, 24, 40, 64)
    picture = keras.Input((None, None, 3))
    x = convolve(layers.Rescaling(2.0, offset=-1.0)(picture), widths[0], kernel=4, strides=2)
    x = convolve(x, widths[0])
    finer = []
    for width in widths[1:]:
        finer.append(x)
        x = convolve(convolve(convolve(x, width, kernel=2, strides=2), width), width)
    for width, skipped in zip(widths[-2::-1], finer[::-1], strict=True):
        x = layers.Conv2DTranspose(width, 2, strides=2)(x)
        x = convolve(layers.Add()([x, skipped]), width)
    return keras.Model(picture, layers.Conv2DTranspose(2, 4, strides=2, padding="same")(x))


class InkFinder:
    """Finds the ink of digits in pictures of any size.

    Args:
        device: where the network computes.
        file: its weights.
    """

    def __init__(self, device: Device, file: Path = NETWORK_FILE) -> None:
        self.device = device
        with device.scope():
            self.network = build_network()
            weights = self.network.weights
            arrays = read_arrays(file, {f"{number}": (tuple(each.shape), "f") for number, each in enumerate(weights)})
            for number, weight in enumerate(weights):
                weight.assign(arrays[f"{number}"].astype(np.float32))

    def find(self, picture: np.ndarray, *, is_single: bool = False) -> Ink:
        """Find the ink of a picture.

        The network knows digits of 16 to 72 pixels. So the picture is tried in several sizes. Of those in which many
        pieces are found, the one in which the network is surest is kept.

        Args:
            picture: (H, W) or (H, W, 3) float32, brightness from 0 to 1.
            is_single: whether it holds one digit, which then fills more of it than digits of a page.
        """
        usual = 52.0  # the height in pixels that digits should have
        longest = max(picture.shape)
        tried: dict[float, tuple[int, float, np.ndarray]] = {}
        for side in (160.0, 500.0, 1000.0) if is_single else (500.0, 1000.0, 160.0):
            if (is_single or side < 500) and any(count for count, *_ in tried.values()):
                break
            for _ in range(3):
                side = min(side, 1600.0, 1.5 * longest)
                if any(abs(np.log(side / other)) < 0.12 for other in tried):
                    break
                maps = self.find_at(rescale(picture, side / longest))
                digits = maps[:, :, 0]
                heights = [piece.height for piece in separate(digits > 0.5)]
                seen = digits[digits > 0.3]
                confidence = float(np.abs(2 * seen - 1).mean()) if len(seen) > 20 else 0.0
                tried[side] = sum(height > 12 for height in heights), confidence, maps
                if not heights:
                    break
                side *= usual / usual_size(heights)
        most = max(count for count, *_ in tried.values())
        side = max((side for side in tried if tried[side][0] >= most / 2), key=lambda side: tried[side][1])
        digits, marks = np.ascontiguousarray(tried[side][2].transpose(2, 0, 1))
        tone = _tone(brightness(rescale(picture, side / longest)), digits, marks)
        return Ink(digits, marks, tone, longest / side)

    def find_at(self, picture: np.ndarray) -> np.ndarray:
        """Return the maps of ink of digits and of other writing, (H, W, 2) float32, of a picture in its own size."""
        import keras

        picture = np.clip(picture, 0, 1)
        picture = picture if picture.ndim == 3 else np.repeat(picture[:, :, None], 3, axis=2)
        height, width = picture.shape[:2]
        margin = 8  # pixels, so that a digit at the edge is seen like any other
        step = 64  # JAX prepares the network anew for each size of a picture
        after = [margin + -(side + 2 * margin) % step for side in (height, width)]
        padded = np.pad(picture, [(margin, after[0]), (margin, after[1]), (0, 0)], mode="edge")[None]
        with self.device.scope():
            if keras.backend.backend() == "jax":
                logits = self.network.predict_on_batch(padded)
            else:
                logits = self.network(padded, training=False)
            maps = keras.ops.convert_to_numpy(keras.ops.sigmoid(logits))[0]
        return maps[margin : margin + height, margin : margin + width]


def _tone(grey: np.ndarray, digits: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Return how dark the ink of digits is, see ``Ink``."""
    written = ndimage.maximum_filter(np.maximum(digits, marks), 5)
    paper, ink = 1 - written, np.where(digits > 0.5, 1.0, 0.0)

    def mean_over(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(values * weights, 16) / (ndimage.gaussian_filter(weights, 16) + 1e-6)

    away = np.abs(grey - mean_over(grey, paper))
    tone = away / np.maximum(mean_over(away, ink), 0.02)
    return np.where(ndimage.maximum_filter(digits, 5) > 0.5, np.clip(tone, 0, 1), 0).astype(np.float32)


def brightness(picture: np.ndarray) -> np.ndarray:
    """Return the brightness of a picture, (H, W) or (H, W, 3), as (H, W).

    Source: the weights of red, green and blue are those of ITU-R BT.601, as Pillow uses them.
    """
    return picture if picture.ndim == 2 else picture @ np.array([0.299, 0.587, 0.114], np.float32)


def contrast(picture: np.ndarray) -> np.ndarray | None:
    """Return the ink of a tightly cropped digit, from 0 to 1, or None if nothing stands out."""
    if np.ptp(picture) < LEAST_CONTRAST:
        return None
    dark = picture < threshold(picture.ravel())
    # Remains of a printed box lie along the edge, and say nothing about the paper.
    down, across = (side // 10 for side in dark.shape)
    inner = dark[down : dark.shape[0] - down, across : dark.shape[1] - across]
    # Broad strokes may fill half of a tight crop, but hardly its corners, or those of the part within the edge.
    corners = np.mean([part[np.ix_([0, -1], [0, -1])] for part in (dark, inner)])
    if inner.mean() + corners > 1:  # light ink on dark paper
        picture, dark = -picture, ~dark
    paper, ink = np.median(picture[~dark]), np.percentile(picture[dark], 25)
    return np.clip((paper - picture) / (paper - ink), 0, 1).astype(np.float32)


def is_clean(picture: np.ndarray) -> bool:
    """Return whether a picture has only two levels of brightness, like a drawing or a scan without shadows."""
    dark = picture < threshold(picture.ravel())
    if not dark.any() or dark.all():
        return False
    within = dark.mean() * picture[dark].var() + (~dark).mean() * picture[~dark].var()
    return bool(within < 0.07 * picture.var())


def threshold(values: np.ndarray) -> float:
    """Return the value that best separates two kinds of values, by Otsu's method of 1979."""
    return float(threshold_otsu(values)) if np.ptp(values) >= 1e-6 else float(values.max())
