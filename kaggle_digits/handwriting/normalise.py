"""Turn the ink of a digit into an image like those of MNIST."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from kaggle_digits.learners.placing import BOX, ink_box, place_ink, rescale


def normalise_digit(ink: np.ndarray) -> np.ndarray:
    """Thicken or thin a digit, and place it in an image as MNIST's makers did, see ``learners.placing.place_ink``.

    Strokes thinner or broader than nearly all of MNIST's get the nearest width that is usual there.

    Args:
        ink: (H, W) float32, from 0 (paper) to 1 (ink).

    Returns:
        (784,) uint8, 0–255.
    """
    fine_side = 80  # pixels on the longer side of a digit while its strokes are measured
    framed = np.pad(ink, 2)
    left, top, right, bottom = ink_box(framed > 0.35 * framed.max())
    scale = fine_side / max(right - left, bottom - top)
    fine = np.clip(rescale(framed, scale), 0, 1)
    strokes = fine > 0.5 * fine.max()
    left, top, right, bottom = ink_box(strokes)
    side = max(right - left, bottom - top)
    ratio = stroke_width(strokes) / side
    usual = np.clip(ratio, 0.09, 0.2)  # 90% of the digits in train.csv lie between these ratios
    if usual != ratio and fine_side / scale >= 1.5 * BOX:  # the strokes of a smaller digit are too coarse to change
        # Moving the outline also changes the box. This distance makes the width right for the new box.
        fine = _move_outline(strokes, (usual - ratio) * side / (2 * (1 - usual)))
    return place_ink(fine)


def stroke_width(mask: np.ndarray) -> float:
    """Return the mean width of strokes in pixels, which is four times the mean distance to their edge."""
    distances = ndimage.distance_transform_edt(np.pad(mask, 1))
    return float(4 * (distances[distances > 0].mean() - 0.5) + 1)


def _move_outline(mask: np.ndarray, distance: float) -> np.ndarray:
    """Move the outline of strokes out by a distance in pixels, or in if negative. Return 0 to 1, with soft edges."""
    margin = int(max(0, distance)) + 2
    mask = np.pad(mask, margin)
    inside, outside = ndimage.distance_transform_edt(mask), ndimage.distance_transform_edt(~mask)
    distance = max(distance, 1 - inside.max())  # something must be left of every digit
    return np.clip(np.where(mask, inside, 1 - outside) + distance, 0, 1).astype(np.float32)
