"""Read the pieces of a row as digits: pieces of a broken digit are merged, and digits that touch are cut.

A row is a list of atoms from left to right: connected pieces, or parts of them between possible cuts. Neighbouring
atoms may form one digit. A network reads every such group, and the best sequence of groups wins. Atoms may be left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kaggle_digits.handwriting import strokes as s
from kaggle_digits.handwriting.normalise import normalise_digit
from kaggle_digits.handwriting.strokes import Strokes

Classify = Callable[[np.ndarray], np.ndarray]
"""(N, 784) uint8 → (N, 10) probabilities."""

LIKELY = 0.6
"""A piece is likely a digit from this probability on."""

CERTAIN = 0.85
"""A piece that is a digit with at least this probability is not cut."""


@dataclass(frozen=True, eq=False)
class Part:
    """Strokes as the network read them.

    Args:
        strokes: the strokes.
        pixels: (784,) uint8, what the network saw.
        probabilities: (10,) float.
        is_whole: whether the strokes are a piece as it is on the page, neither cut nor merged.
    """

    strokes: Strokes
    pixels: np.ndarray
    probabilities: np.ndarray
    is_whole: bool = False

    @property
    def certainty(self) -> float:
        """The probability of the likeliest digit."""
        return float(self.probabilities.max())


@dataclass(frozen=True)
class _Atom:
    """A piece, or what lies between two possible cuts of it.

    Args:
        piece: the piece as the network read it.
        strokes: the atom's own strokes; None if there are hardly any.
        start, end: the cuts, as ``strokes.cuts`` returns them; None for the sides of the piece.
        cost: what the cut at its start costs.
    """

    piece: Part
    strokes: Strokes | None
    start: np.ndarray | None = None
    end: np.ndarray | None = None
    cost: float = 0.0


@dataclass(frozen=True)
class _Group:
    """Neighbouring atoms of a row as one digit: its first atom, the one after its last, and what merging costs."""

    first: int
    end: int
    cost: float
    strokes: Strokes
    part: Part | None = None


def read_parts(pieces: Sequence[Strokes], ink: np.ndarray, classify: Classify) -> list[Part]:
    """Read each piece as one digit."""
    if not pieces:
        return []
    views = [[normalise_digit(s.cut_out(piece, layer)) for piece in pieces] for layer in ink]
    probabilities = np.mean([classify(np.stack(pixels)) for pixels in views], axis=0)
    return list(map(Part, pieces, views[0], probabilities))


def read_rows(
    rows: Sequence[Sequence[Strokes]], ink: np.ndarray, usual: float, classify: Classify
) -> list[tuple[list[Part], list[Strokes], bool]]:
    """Read rows of pieces.

    Args:
        rows: the pieces of each row.
        ink: (N, H, W) float32, the ink of the page, seen in N ways. All are read, and the first one is cut.
        usual: the usual height of digits in pixels.
        classify: reads digits.

    Returns:
        for each row its digits from left to right, the pieces that were left out, and whether most pieces are digits.
    """
    alone = iter(read_parts(list(itertools.chain(*rows)), ink, classify))
    whole = [[replace(next(alone), is_whole=True) for _ in pieces] for pieces in rows]
    atoms = [_atoms(parts, ink, usual) for parts in whole]
    groups = [_groups(row, usual) for row in atoms]
    unread = [group.strokes for row in groups for group in row if group.part is None]
    parts = iter(read_parts(unread, ink, classify))
    groups = [[group if group.part else replace(group, part=next(parts)) for group in row] for row in groups]
    large = [[part for part in parts if part.strokes.size > 0.45 * usual] for parts in whole]
    # Letters can be cut into digits. So where most pieces are no digits, no part of a piece is.
    likely = [[part.certainty >= LIKELY for part in parts] for parts in large]
    on_page = np.mean([each for row in likely for each in row] or [True])
    are_digits = [np.mean(row if len(row) > 2 else on_page) >= 0.5 for row in likely]
    return [
        (*_best_sequence(*row, usual), bool(each))
        for row, each in zip(zip(atoms, groups, strict=True), are_digits, strict=True)
    ]


def _atoms(parts: list[Part], ink: np.ndarray, usual: float) -> list[_Atom]:
    """Return the atoms of a row, from left to right."""
    atoms = []
    for part in sorted(parts, key=lambda part: part.strokes.middle[0]):
        piece = part.strokes
        is_one_digit = part.certainty >= CERTAIN and piece.width < 1.1 * piece.height
        seams: list[np.ndarray | None] = [None, None]
        if not is_one_digit and piece.width >= 0.5 * usual and piece.height >= s.LOW * usual:
            left, top, right, bottom = piece.box
            seams = [None, *s.cuts(piece, ink[0, top:bottom, left:right]), None]
        # Two digits side by side are wide, so cutting a wide piece costs less.
        cost = float(np.interp(piece.width / piece.height, (0.75, 1.1, 1.5), (2.5, 0.6, 0.1)))
        for start, end in itertools.pairwise(seams):
            strokes = piece if len(seams) == 2 else s.between(piece, start, end)
            atoms.append(_Atom(part, strokes, start, end, 0.0 if start is None else cost))
    return atoms


def _groups(atoms: list[_Atom], usual: float) -> list[_Group]:
    """Return the groups of neighbouring atoms that may be one digit each."""
    most_atoms = 7
    groups = []
    for first, start in enumerate(atoms):
        whole = start.piece.strokes
        cost = 0.0
        for end in range(first + 1, min(len(atoms), first + most_atoms) + 1):
            group = atoms[first:end]
            before, atom = atoms[end - 2], atoms[end - 1]
            merging = 0.0
            if len(group) > 1 and atom.start is None:
                merging = _cost_of_merging(_joined(group[:-1]), before, atom, usual)
            strokes = _joined(group)
            if strokes is None:
                continue
            tallest = max(each.piece.strokes.height for each in group)
            is_wide = strokes.width > 1.5 * max(usual, strokes.height)
            is_high = strokes.height > max(1.45 * usual, 1.15 * tallest)
            if not np.isfinite(merging) or (len(group) > 1 and (is_wide or is_high)):
                break
            cost += merging
            if strokes is not whole and _may_be_digit(strokes, usual):
                groups.append(_Group(first, end, cost, strokes))
        if start.start is None and _may_be_digit(whole, usual):  # however wide it is, and whatever its parts are
            of_piece = sum(each.piece is start.piece for each in atoms)
            groups.append(_Group(first, first + of_piece, 0.0, whole, start.piece))
    return groups


def _may_be_digit(strokes: Strokes, usual: float) -> bool:
    return strokes.height >= s.LOW * usual or s.is_loop(strokes)  # a small loop is a small zero


def _joined(atoms: Sequence[_Atom]) -> Strokes | None:
    """Return the strokes of neighbouring atoms, or None if there are hardly any."""
    joined = None
    for _, each in itertools.groupby(atoms, key=lambda atom: id(atom.piece)):
        of_piece = list(each)
        piece, start, end = of_piece[0].piece.strokes, of_piece[0].start, of_piece[-1].end
        strokes = piece if start is None and end is None else s.between(piece, start, end)
        if strokes:
            joined = s.union(joined, strokes) if joined else strokes
    return joined


def _cost_of_merging(strokes: Strokes | None, before: _Atom, atom: _Atom, usual: float) -> float:
    """Return what it costs to take strokes and the next piece for one digit; infinite if they are surely two."""
    if strokes is None or atom.strokes is None:
        return 0.0
    across, down = s.gap(strokes, atom.strokes)
    is_small = min(strokes.height, atom.strokes.height) < 0.55 * usual
    are_sure = min(before.piece.certainty, atom.piece.certainty) >= 0.97
    if across > 0.3 * usual or down > 0.35 * usual or (are_sure and not is_small):
        return np.inf
    is_stacked = across < -0.4 * min(strokes.width, atom.strokes.width)
    distance = float(np.hypot(max(0, across), max(0, down)))
    # In a row, no digit stands on another one.
    return (-0.3 if is_small and is_stacked else 0.2 if is_small or is_stacked else 0.7) + 4 * distance / usual


def _best_sequence(atoms: list[_Atom], groups: list[_Group], usual: float) -> tuple[list[Part], list[Strokes]]:
    """Return the digits of a row and what was left out: the sequence with the greatest score.

    The score is the sum of the logarithms of the digits' probabilities, less the costs of cutting, merging and leaving
    out.
    """
    starting: dict[int, list[_Group]] = {}
    for group in groups:
        starting.setdefault(group.first, []).append(group)
    best: list[tuple[float, list[Part], list[Strokes]]] = [(0.0, [], [])]
    best += [(-np.inf, [], [])] * len(atoms)
    for first, atom in enumerate(atoms):
        score, parts, left_out = best[first]
        score -= atom.cost
        size = atom.strokes.size / usual if atom.strokes else 0.0
        without = [*left_out, atom.strokes] if atom.strokes else left_out
        ways = [(first + 1, (score - 0.3 - 4 * size, parts, without))]
        for group in starting.get(first, []):
            assert group.part is not None  # all groups were read
            # An unreadable wide part may be several digits, so it costs as much as several.
            weight = max(1.0, group.strokes.width / (0.7 * max(usual, group.strokes.height)))
            gain = weight * float(np.log(max(group.part.certainty, 1e-4))) - group.cost
            ways.append((group.end, (score + gain, [*parts, group.part], left_out)))
        for end, way in ways:
            best[end] = max(best[end], way, key=lambda way: way[0])
    return best[-1][1:]
