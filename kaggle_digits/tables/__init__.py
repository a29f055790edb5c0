"""A table of digits in whatever form people have it: another place, another form, a wrong value.

Here is what all of them have in common, and where the data comes from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # importing NumPy costs 0.1 s, and `check` does not need it
    import numpy as np

COMPETITION = "digit-recognizer"
ZIP_NAME = f"{COMPETITION}.zip"
SAMPLE = "sample"  # names the built-in sample if it is given instead of a path


@dataclass(frozen=True)
class Rows:
    """What a table holds.

    Args:
        pixels: (N, 784) uint8, 0–255, ink is bright.
        digits: (N,) int64, 0–9; None if the table has no labels.
        notes: what was understood differently from Kaggle's own form, for people.
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
            beside: the training table of the same source. Its labels say how the images of both lie.

        Raises:
            DataError: it is damaged, malformed or ambiguous, or a training table has no labels.
        """

    def load(self, kind: str) -> Rows:
        """Read the whole table as ``read`` does, but leave the images as they lie."""

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
        """Return the name under which files in a folder keep it, so that it can be found again.

        It stays relative if it and the folder lie below the current folder, which may be moved as a whole.
        """
        here = Path.cwd()
        below = (Path(path).resolve().is_relative_to(here) for path in (self.name, folder))
        return self.name if self.is_sample or all(below) else str(Path(self.name).resolve())
