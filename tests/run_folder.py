"""Run folders that no training made: written by hand, or with a damaged run.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kaggle_digits.recipe import Recipe
from kaggle_digits.run import RowCounts, Run
from kaggle_digits.strategy import Device


def write_run(
    folder: str | Path, recipe: Recipe, *, finished: bool = True, damage: dict[str, Any] | None = None
) -> Run:
    """Write a run.json that says that a recipe was trained, with `damage` replacing fields of the recipe."""
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    device = Device("cpu", None, 1, "float32", "test")
    run = Run(
        folder=folder,
        recipe=recipe,
        seed=0,
        source="test",
        rows=RowCounts(0, 0, 0),
        device=device,
        versions={},
        commit=None,
        finished=finished,
    )
    run.save()
    fields = json.loads((folder / "run.json").read_text())
    fields["recipe"] |= damage or {}
    del fields["checksum"]  # as of a version of this package that wrote such a recipe
    (folder / "run.json").write_text(json.dumps(fields))
    return run
