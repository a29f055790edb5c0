"""Find a sheet of paper on a desk, or a board on a wall, and set it straight.

Everything that is brighter, or darker, than one of several levels is a region. A sheet is a region with four straight
and sharp sides. Where the picture cuts a side or a corner off, the sides are continued outside of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage, spatial
from skimage.draw import polygon2mask

from kaggle_digits.learners.placing import rescale

LEAST_AREA = 0.08
"""Smallest sheet, as a share of the picture."""

BORDER = 4
"""Nothing within this many pixels of the picture's border counts as an edge of the sheet."""


@dataclass(frozen=True)
class Sheet:
    """A sheet in a picture.

    Args:
        corners: (4, 2) float64, x and y in pixels of the picture: top left, top right, bottom right, bottom left. They
            may lie outside of the picture.
        picture: (H, W) or (H, W, 3) float32, the sheet set straight, without its margin.
        known: (H, W) bool, true where the picture shows the sheet.
    """

    corners: np.ndarray
    picture: np.ndarray
    known: np.ndarray

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """Return where points on the straightened sheet, (N, 2) x and y, lie in the picture."""
        height, width = self.known.shape
        matrix = homography(_rectangle(width, height), _without_margin(self.corners))
        x, y, scale = matrix @ np.column_stack([points, np.ones(len(points))]).T
        return np.stack([x / scale, y / scale], axis=1)


def find_sheet(picture: np.ndarray, *, most: int) -> Sheet | None:
    """Find the sheet that a picture shows with its edge.

    Args:
        picture: (H, W) or (H, W, 3) float32, brightness from 0 to 1.
        most: the straightened sheet has at most this many pixels on its longer side.

    Returns:
        the sheet, or None if no edge of a sheet is in the picture.
    """
    # In a small copy, smoothed by 1.2 pixels, the texture of wood or cloth has faded.
    scale = min(1.0, 256 / max(picture.shape[:2]))
    small = rescale(picture, scale)
    small = ndimage.gaussian_filter(small, (1.2, 1.2, 0)[: small.ndim])
    channels = [small] if small.ndim == 2 else [small.mean(axis=2), small[:, :, 2], small[:, :, 0]]
    # Anything thinner than this is a thread, not a part of a sheet.
    thread = ndimage.iterate_structure(ndimage.generate_binary_structure(2, 1), 2)
    sharpest, best_corners, best_channel = 0.0, None, small
    for channel in channels:
        for brightness in (channel, -channel):  # a light sheet on a dark desk, and a dark one on a light desk
            opened = ndimage.minimum_filter(brightness, footprint=thread, mode="constant", cval=-np.inf)
            opened = ndimage.maximum_filter(opened, footprint=thread, mode="constant", cval=-np.inf)
            low, high = np.percentile(brightness, [2, 98])
            for level in np.linspace(low, high, 14)[1:-1]:
                part = _largest_part(opened > level)
                corners = None if part is None else _quadrilateral(part)
                if part is None or corners is None:
                    continue
                sharpness = _sharpness(corners, channel)
                if sharpness > sharpest and _is_filled_by(corners, part):
                    sharpest, best_corners, best_channel = sharpness, corners, channel
    if best_corners is None:
        return None
    return _straighten(picture, _on_the_edge(best_corners, best_channel) / scale, most=most)


def _largest_part(region: np.ndarray) -> np.ndarray | None:
    """Return the largest connected part of a region, if it is as large as a sheet."""
    least = LEAST_AREA / 2 * region.size
    if region.sum() < least:
        return None
    labels, _ = ndimage.label(region)
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    return labels == areas.argmax() if areas.max() >= least else None


def _quadrilateral(part: np.ndarray) -> np.ndarray | None:
    """Return the corners of the quadrilateral around a region."""
    y = np.flatnonzero(part.any(axis=1))
    first, last = part[y].argmax(axis=1), part.shape[1] - part[y, ::-1].argmax(axis=1)
    outer = np.concatenate([np.stack([x, y + down], axis=1) for x in (first, last) for down in (0, 1)])
    corners = _four_sides(outer[spatial.ConvexHull(outer).vertices].astype(float))
    return None if corners is None else _from_top_left(corners)


def _is_filled_by(corners: np.ndarray, part: np.ndarray) -> bool:
    """Return whether a region fills a quadrilateral, not counting what is written in it, and nothing else."""
    inside = polygon2mask(part.shape, corners[:, ::-1] - 0.5)
    part = ndimage.binary_fill_holes(part)
    has_size_of_sheet = LEAST_AREA * part.size <= part.sum() <= 0.985 * part.size
    return bool(has_size_of_sheet and (inside & part).sum() >= 0.955 * (inside | part).sum())


def _four_sides(polygon: np.ndarray) -> np.ndarray | None:
    """Remove sides of a convex polygon, (N, 2), until four are left: each time the one that adds the least area."""
    polygon = polygon.copy()
    while len(polygon) > 4:
        before, start, end, after = (np.roll(polygon, shift, axis=0) for shift in (1, 0, -1, -2))
        meeting, ahead = _meeting(before, start, after, end)
        added = np.abs(_cross(end - start, meeting - start)) / 2
        added[~ahead] = np.inf
        index = int(added.argmin())
        if not np.isfinite(added[index]):
            return None
        polygon[index] = meeting[index]
        polygon = np.delete(polygon, (index + 1) % len(polygon), axis=0)
    return polygon if len(polygon) == 4 else None


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _meeting(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where the lines from a through b and from c through d meet, and whether that is beyond b and beyond d."""
    turn = _cross(b - a, d - c)
    safe = np.where(np.abs(turn) < 1e-9, 1.0, turn)
    first, second = _cross(c - a, d - c) / safe, _cross(c - a, b - a) / safe
    return a + first[:, None] * (b - a), (np.abs(turn) >= 1e-9) & (first >= 1) & (second >= 1)


def _from_top_left(corners: np.ndarray) -> np.ndarray:
    """Order corners clockwise on the screen, so that the first side is the one nearest to level, at the top."""
    if _cross(corners[1] - corners[0], corners[2] - corners[1]) < 0:
        corners = corners[::-1]
    sides = np.roll(corners, -1, axis=0) - corners
    angles = np.degrees(np.arctan2(sides[:, 1], sides[:, 0]))
    return np.roll(corners, -int(np.abs(angles).argmin()), axis=0)


def _sides(corners: np.ndarray, size: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield, for each side, the points on it that are in a picture of this size, (N, 2), and the direction inwards."""
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        along = end - start
        points = start + np.linspace(0.03, 0.97, 60)[:, None] * along
        inwards = np.array([-along[1], along[0]]) / np.hypot(*along)  # corners are in clockwise order
        yield points[((points > BORDER) & (points < size - BORDER)).all(axis=1)], inwards


def _sharpness(corners: np.ndarray, brightness: np.ndarray) -> float:
    """Return how much brightness changes across the sides in the picture, or 0 if the shape is not a sheet's."""
    size = np.array(brightness.shape[::-1])
    if np.hypot(*(np.roll(corners, -1, axis=0) - corners).T).min() < 0.1 * size.max():
        return 0.0
    is_sharp, total = [False] * 4, 0.0
    for side, (points, inwards) in enumerate(_sides(corners, size)):
        if len(points) < 9:  # this side is outside of the picture, or along its edge
            continue
        outside, edge, inside = (_sample(brightness, points + offset * inwards) for offset in (-2.5, 2.5, 5.5))
        step = edge - outside
        # Light that changes slowly is no edge.
        slow = np.abs(inside - edge)
        share = (np.sign(np.median(step)) * step > np.maximum(0.045, slow)).mean()
        if share < 0.35:
            return 0.0
        is_sharp[side] = share >= 0.7
        total += float(np.median(np.abs(step))) * len(points)
    # The edge of a shadow is a line, too, but it has no corner.
    inner = np.all((corners > BORDER) & (corners < size - BORDER), axis=1)
    return total if any(inner[side] and is_sharp[side] and is_sharp[side - 1] for side in range(4)) else 0.0


def _on_the_edge(corners: np.ndarray, brightness: np.ndarray) -> np.ndarray:
    """Move each side of a sheet to where brightness changes most, because a blurred edge is darker than the sheet."""
    most = 4  # pixels of the small copy from a side to its edge
    offsets = np.linspace(-most, most, 8 * most + 1)
    lines = np.stack([corners, np.roll(corners, -1, axis=0)], axis=1)
    for side, (points, inwards) in enumerate(_sides(corners, np.array(brightness.shape[::-1]))):
        if len(points) < 18:  # hardly anything of this side is in the picture
            continue
        for end, half in enumerate(np.array_split(points, 2)):
            profile = [np.median(_sample(brightness, half + offset * inwards)) for offset in offsets]
            lines[side, end] = half.mean(axis=0) + offsets[np.abs(np.gradient(profile)).argmax()] * inwards
    before = np.roll(lines, 1, axis=0)
    meeting, _ = _meeting(before[:, 0], before[:, 1], lines[:, 0], lines[:, 1])
    near = np.abs(meeting - corners).max(axis=1, keepdims=True) <= 3 * most
    return np.where(near, meeting, corners)


def _sample(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    return ndimage.map_coordinates(image, points[:, ::-1].T - 0.5, order=1, mode="nearest")


def homography(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the projective map, (3, 3), that takes four points (4, 2) to four others; no three may be in a line."""
    rows = []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    return np.append(np.linalg.solve(np.array(rows, float), np.ravel(target)), 1).reshape(3, 3)


def _without_margin(corners: np.ndarray) -> np.ndarray:
    """Return the corners of a sheet without its edge and the edge's shadow."""
    margin = 0.013  # along each side, as a share of the sheet
    middle = corners.mean(axis=0)
    return middle + (1 - 2 * margin) * (corners - middle)


def _rectangle(width: int, height: int) -> np.ndarray:
    return np.array([[0, 0], [width, 0], [width, height], [0, height]])


def _straighten(picture: np.ndarray, corners: np.ndarray, *, most: int) -> Sheet | None:
    inner = _without_margin(corners)
    sides = np.hypot(*(np.roll(inner, -1, axis=0) - inner).T)
    lengths = (sides[:2] + sides[2:]) / 2
    scale = min(1.0, most / max(lengths))
    size = (max(1, round(lengths[0] * scale)), max(1, round(lengths[1] * scale)))
    if scale < 1:
        picture = rescale(picture, scale)
    matrix = tuple(homography(_rectangle(*size), inner * scale).ravel()[:8])

    def warp(layer: np.ndarray, how: Image.Resampling) -> np.ndarray:
        image = Image.fromarray(np.ascontiguousarray(layer, np.float32))
        return np.asarray(image.transform(size, Image.Transform.PERSPECTIVE, matrix, how, fillcolor=-1))

    layers = np.moveaxis(np.atleast_3d(picture), 2, 0)
    known = warp(np.ones(picture.shape[:2]), Image.Resampling.NEAREST) > 0
    if not known.all():  # the border of the picture is no edge of the sheet
        known = ndimage.binary_erosion(known, iterations=3, border_value=1)
    if not known.any():
        return None
    warped = np.stack([warp(layer, Image.Resampling.BICUBIC) for layer in layers], axis=2).clip(0, 1)
    warped[~known] = np.median(warped[known], axis=0)
    return Sheet(corners, warped[:, :, 0] if picture.ndim == 2 else warped, known)
