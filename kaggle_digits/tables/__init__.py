"""Tables of digits in other places and other forms than Kaggle's, or with wrong values.

This module has what all tables share, and the source of the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # importing NumPy costs 0.1 s, and `check` does not need it
    import numpy as np

COMPETITION = "digit-recognizer"
ZIP_NAME = f"{COMPETITION}.zip"
SAMPLE = "sample"  # the name of the built-in sample, in place of a path


@dataclass(frozen=True)
class Rows:
    """The contents of a table.

    Args:
        pixels: (N, 784) uint8, 0–255, ink is bright.
        digits: (N,) int64, 0–9; None if the table has no labels.
        notes: differences from Kaggle's own form, for people.
    """

    pixels: np.ndarray
    digits: np.ndarray | None
    notes: tuple[str, ...] = ()


class Table(Protocol):
    """A table of digits."""

    @property
    def is_kaggle(self) -> bool:
        """Whether it may be the competition's own file."""

    def read(self, kind: str, *, beside: Table | None = None) -> Rows:
        """Read the whole table.

        Args:
            kind: "train", which must have labels, or "test".
            beside: the training table of the same source. Its labels show whether the images of both are upright.

        Raises:
            DataError: it is damaged, malformed or ambiguous, or a training table has no labels.
        """

    def load(self, kind: str) -> Rows:
        """Read the whole table as ``read`` does, but do not turn the images."""

    def count(self) -> int:
        """Count the rows without parsing them.

        Raises:
            DataError: it is damaged, or not a table of digits.
        """


@dataclass(frozen=True)
class Source:
    """Where the data comes from.

    Args:
        name: a path, or "sample", as ``--data`` takes it.
        tables: the tables by kind, "train", "test" or both. It is empty for the built-in sample.
    """

    name: str
    tables: dict[str, Table]

    def __str__(self) -> str:
        return "this folder" if self.name == "." else self.name

    @property
    def is_sample(self) -> bool:
        """Whether this is the built-in sample. The name does not decide, because a folder may have the same one."""
        return not self.tables

    def name_for(self, folder: Path) -> str:
        """Return the name by which files in a folder refer to the source, to find it again.

        It stays relative if both lie below the current folder, which may be moved as a whole.
        """
        here = Path.cwd()
        below = (Path(path).resolve().is_relative_to(here) for path in (self.name, folder))
        return self.name if self.is_sample or all(below) else str(Path(self.name).resolve())
