"""Shapes that are no digits, drawn stroke by stroke like the digits in ``drawn``."""

from __future__ import annotations

import numpy as np
from drawn import Stroke, arc


def _polar(radius: object, turns: float = 1, points: int = 80) -> Stroke:
    """Return a curve around the middle whose radius depends on the angle."""
    angles = np.linspace(0, 2 * np.pi * turns, points)
    return [
        (0.5 + float(r * np.cos(a)), 0.5 + float(r * np.sin(a))) for a, r in zip(angles, radius(angles), strict=True)
    ]


def _heart() -> Stroke:
    angles = np.linspace(0, 2 * np.pi, 60)
    x = 16 * np.sin(angles) ** 3
    y = 13 * np.cos(angles) - 5 * np.cos(2 * angles) - 2 * np.cos(3 * angles) - np.cos(4 * angles)
    return [(0.5 + float(i) / 40, 0.45 - float(j) / 40) for i, j in zip(x, y, strict=True)]


def _scribble(seed: int) -> Stroke:
    return [(float(x), float(y)) for x, y in np.random.default_rng(seed).uniform(0.1, 0.9, (14, 2))]


NO_DIGITS: dict[str, list[Stroke]] = {
    "A": [[(0.15, 0.95), (0.5, 0.05), (0.85, 0.95)], [(0.28, 0.62), (0.72, 0.62)]],
    "E": [[(0.8, 0.08), (0.25, 0.08), (0.25, 0.92), (0.8, 0.92)], [(0.25, 0.5), (0.7, 0.5)]],
    "F": [[(0.8, 0.08), (0.25, 0.08), (0.25, 0.95)], [(0.25, 0.48), (0.7, 0.48)]],
    "H": [[(0.2, 0.05), (0.2, 0.95)], [(0.8, 0.05), (0.8, 0.95)], [(0.2, 0.5), (0.8, 0.5)]],
    "K": [[(0.25, 0.05), (0.25, 0.95)], [(0.8, 0.05), (0.25, 0.55), (0.8, 0.95)]],
    "M": [[(0.12, 0.95), (0.2, 0.05), (0.5, 0.6), (0.8, 0.05), (0.88, 0.95)]],
    "R": [[(0.25, 0.95), (0.25, 0.05), *arc(0.3, 0.28, 0.42, 0.23, -90, 90), (0.8, 0.95)]],
    "T": [[(0.15, 0.08), (0.85, 0.08)], [(0.5, 0.08), (0.5, 0.95)]],
    "W": [[(0.08, 0.05), (0.28, 0.95), (0.5, 0.35), (0.72, 0.95), (0.92, 0.05)]],
    "X": [[(0.15, 0.05), (0.85, 0.95)], [(0.85, 0.05), (0.15, 0.95)]],
    "Y": [[(0.15, 0.05), (0.5, 0.5), (0.85, 0.05)], [(0.5, 0.5), (0.5, 0.95)]],
    "heart": [_heart()],
    "dot": [[(0.5, 0.5)]],
    "level line": [[(0.05, 0.5), (0.95, 0.5)]],
    "plus": [[(0.1, 0.5), (0.9, 0.5)], [(0.5, 0.1), (0.5, 0.9)]],
    "equals": [[(0.1, 0.38), (0.9, 0.38)], [(0.1, 0.62), (0.9, 0.62)]],
    "scribble": [_scribble(1)],
    "another scribble": [_scribble(2)],
    "spiral": [_polar(lambda a: 0.03 * a, turns=2.4)],
    "star": [[(0.5 + 0.45 * float(np.sin(a)), 0.5 - 0.45 * float(np.cos(a))) for a in np.arange(6) * 4 * np.pi / 5]],
    "face": [arc(0.5, 0.5, 0.44, 0.44, -90, 270), [(0.35, 0.4)], [(0.65, 0.4)], arc(0.5, 0.55, 0.22, 0.2, 20, 160)],
    "circle over the edge": [arc(0.0, 0.5, 0.6, 0.5, -90, 270)],
    "tick": [[(0.1, 0.55), (0.4, 0.9), (0.95, 0.1)]],
    "house": [[(0.15, 0.95), (0.15, 0.4), (0.5, 0.05), (0.85, 0.4), (0.85, 0.95), (0.15, 0.95)]],
}
