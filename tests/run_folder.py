"""Run folders that no training made: written by hand, or with a damaged run.json."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from kaggle_digits.files import write_arrays
from kaggle_digits.recipe import Network, Recipe
from kaggle_digits.recipes import RECIPES
from kaggle_digits.run import RowCounts, Run
from kaggle_digits.strategy import Device

UPRIGHT = replace(RECIPES["fast"], name="upright", deslant=True)
RESIDUAL = replace(
    RECIPES["resnet-192"],
    name="residual",
    layers=(("Residual", {"filters": 4}), ("Flatten", {}), ("Dense", {"units": 10})),
)


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


def write_untrained(folder: Path, recipe: Network, seed: int = 0) -> Path:
    """Write a run folder of a network with random weights, whose probabilities are not all alike."""
    import keras

    from kaggle_digits.models import build_model, named_weights

    folder.mkdir(parents=True, exist_ok=True)
    write_run(folder, recipe)
    keras.utils.set_random_seed(seed)
    weights = {name: keras.ops.convert_to_numpy(w) for name, w in named_weights(build_model(recipe)).items()}
    write_arrays(folder / "model.npz", weights)
    return folder
