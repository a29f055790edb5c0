"""Compare images by how far one must be distorted to look like another: the image distortion model.

Every pixel of one image looks for its best match in the other, within two pixels of its own place, and takes its eight
neighbours with it. The model compares how the ink changes from pixel to pixel, not the ink itself. So two writings of a
digit are near each other if their strokes are only displaced, and far apart if their strokes differ.

Source: Keysers, Deselaers, Gollan and Ney 2007, Deformation models for image recognition, IEEE PAMI 29(8). With the
three nearest of 60,000 images, they misread 0.54% of MNIST's test images.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
from scipy.ndimage import correlate1d

from kaggle_digits.digits import CLASSES, SIDE


def nearest_distances(images: np.ndarray, references: np.ndarray, digits: np.ndarray, candidates: int) -> np.ndarray:
    """Return the distance from each image to the nearest reference of every digit.

    Args:
        images: (N, 784) float32, 0–1.
        references: (M, 784) float32, 0–1, M at least 1.
        digits: (M,) integers, 0–9, of the references.
        candidates: how many references of each digit are compared, the nearest by Euclidean distance.

    Returns:
        (N, 10) float64, 0 or more; infinite for digits without a reference.
    """
    products = np.square(references).sum(axis=1) - 2 * (images @ references.T)
    present, chosen = np.unique(digits), []
    for digit in present:
        own = np.flatnonzero(digits == digit)
        kept = min(candidates, len(own))
        chosen.append(own[np.argpartition(products[:, own], kept - 1, axis=1)[:, :kept]])
    used, places = np.unique(np.concatenate(chosen, axis=1), return_inverse=True)
    gradients, references_gradients = image_gradients(images), image_gradients(references[used])
    ends = np.cumsum([own.shape[1] for own in chosen])
    starts = ends - [own.shape[1] for own in chosen]

    def compare(image: int) -> np.ndarray:
        taken = references_gradients[places.reshape(len(images), -1)[image]]
        return np.minimum.reduceat(distortion_distances(gradients[image], taken), starts)

    # Threads suffice, because NumPy releases Python's lock while it computes.
    distances = np.full((len(images), CLASSES), np.inf)
    with ThreadPoolExecutor(joblib.cpu_count()) as pool:
        for image, nearest in enumerate(pool.map(compare, range(len(images)))):
            distances[image, present] = nearest
    return distances


def image_gradients(images: np.ndarray) -> np.ndarray:
    """Return how fast the ink of every image increases to the right and downwards, by Sobel's filters.

    Args:
        images: (N, 784) float32, 0–1.

    Returns:
        (N, 2, 28, 28) float32, −1 to 1.
    """
    squares = images.reshape(-1, SIDE, SIDE)
    rises = [
        correlate1d(correlate1d(squares, [-1, 0, 1], axis=along), [1, 2, 1], axis=across) / 4
        for along, across in ((2, 1), (1, 2))
    ]
    return np.stack(rises, axis=1)


def distortion_distances(image: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Return the distance from an image to each reference, with every pixel compared to its best match there.

    Args:
        image: (2, 28, 28) float32, one row of ``image_gradients``.
        references: (M, 2, 28, 28) float32, rows of ``image_gradients``.

    Returns:
        (M,) float32, 0 or more. Each pixel contributes the squared differences of itself and its neighbours, summed, at
        its best match.
    """
    warp = 2  # a pixel's match may be this many pixels away along each axis
    context = 1  # a pixel is compared together with this many neighbours in each direction
    margin, side = warp + context, SIDE + 2 * context
    # References lie along the last axis, because NumPy is fastest there.
    framed = np.zeros((2, SIDE + 2 * margin, SIDE + 2 * margin, len(references)), np.float32)
    framed[:, margin:-margin, margin:-margin] = references.transpose(1, 2, 3, 0)
    wanted = np.pad(image, ((0, 0), (context, context), (context, context)))[..., None]
    least = np.full((SIDE, SIDE, len(references)), np.inf, np.float32)
    for down in range(2 * warp + 1):
        for right in range(2 * warp + 1):
            squares = framed[:, down : down + side, right : right + side] - wanted
            squares *= squares
            squares[0] += squares[1]
            rows = sum(squares[0, first : first + SIDE] for first in range(2 * context + 1))
            np.minimum(least, sum(rows[:, first : first + SIDE] for first in range(2 * context + 1)), out=least)
    return least.sum(axis=(0, 1))
