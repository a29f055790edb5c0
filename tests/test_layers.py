"""Layers: rules that ``lint-imports`` cannot check. The contracts that it checks are in ``pyproject.toml``."""

from __future__ import annotations

import re
from pathlib import Path

import kaggle_digits

PACKAGE = Path(kaggle_digits.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))


def test_models_use_keras_and_not_its_copy_inside_tensorflow():
    for file in MODULES:
        assert "tf.keras" not in file.read_text(encoding="utf-8"), file


def test_only_one_module_touches_the_kaggle_client():
    touching = {
        str(file.relative_to(PACKAGE))
        for file in MODULES
        if re.search(r"import kaggle\b|from kaggle\b|kagglesdk\.", file.read_text(encoding="utf-8"))
    }
    assert touching == {"kaggle/client.py"}
