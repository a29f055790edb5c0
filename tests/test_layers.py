"""Layers: the data flows one way; a module imports only from those above it."""

from __future__ import annotations

import re
from pathlib import Path

import kaggle_digits
from kaggle_digits.kaggle.notebook import modules_imported

PACKAGE = Path(kaggle_digits.__file__).parent
SPINE = [
    *(
        "config",
        "recipes",
        "measured",
        "tables",
        "data",
        "calibration",
        "backend",
        "models",
        "cluster",
        "strategy",
        "runs",
        "predict",
        "fit",
        "train",
        "submission",
        "records",
        "connection",
        "competition",
        "notebook",
        "kernel",
        "submit",
        "compare",
        "devices",
        "recognize",
        "cli",
        "__main__",
    ),
]
LEAVES = {"augment", "baselines", "distortion", "handwriting", "moments", "pad", "photo", "plots", "report", "restyle"}
LEAVES_OF = {
    "predict": {"baselines", "moments"},
    "fit": {"augment", "restyle"},
    "train": {"baselines"},
    "compare": {"plots", "report"},
    "recognize": {"handwriting", "photo", "plots"},
    "cli": {"pad", "report"},
}


def imports(module: str) -> set[str]:
    """Names of the package's modules that a module imports, anywhere in it."""
    return modules_imported((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


def test_every_module_has_its_place():
    modules = {file.stem for file in PACKAGE.glob("*.py")} - {"__init__"}
    assert modules == set(SPINE) | LEAVES


def test_spine_imports_only_what_is_above():
    # `python -m kaggle_digits.submit` hands over to the command line: the one step upwards.
    faults = {
        (module, imported)
        for position, module in enumerate(SPINE)
        for imported in imports(module) - set(SPINE[:position]) - LEAVES_OF.get(module, set())
    }
    assert faults == {("submit", "cli")}


def test_leaves_import_the_spine_and_not_each_other():
    besides = {"pad": {"handwriting"}, "baselines": {"distortion"}}
    for leaf in LEAVES:
        assert imports(leaf) <= {*SPINE, *besides.get(leaf, set())}


def test_models_use_keras_and_not_its_copy_inside_tensorflow():
    for file in PACKAGE.glob("*.py"):
        assert "tf.keras" not in file.read_text(encoding="utf-8"), file


def test_only_one_module_touches_the_kaggle_client():
    touching = {
        file.stem
        for file in PACKAGE.glob("*.py")
        if re.search(r"import kaggle\b|from kaggle\b|kagglesdk\.", file.read_text(encoding="utf-8"))
    }
    assert touching == {"connection"}
