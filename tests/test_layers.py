"""The house: rules that ``lint-imports`` cannot check. The floors that it checks are in ``pyproject.toml``."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import kaggle_digits
from kaggle_digits.kaggle.notebook import CORE

PACKAGE = Path(kaggle_digits.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

LOADED = """
import sys
from pathlib import Path
from kaggle_digits.cli import main
code = main(["submit", "--data", sys.argv[1], "--recipe", "flash", "--out", "mine.csv", "--quiet"])
extras = {"dask", "distributed", "optuna", "tomli_w"} & set(sys.modules)
sys.exit(f"imported {extras}") if extras else None
files = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "kaggle_digits"]
print(code, len(files), sum(len(Path(file).read_text(encoding="utf-8").splitlines()) for file in files))
"""


def lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


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


def test_main_job_loads_the_core_and_hardly_more(tmp_path, digits_csv):
    """Kaggle's own form needs none of the readers of other tables, and a built-in recipe none of the checks."""
    for name, text in zip(("train.csv", "test.csv"), digits_csv, strict=True):
        (tmp_path / name).write_text(text)
    done = subprocess.run([sys.executable, "-c", LOADED, str(tmp_path)], capture_output=True, text=True)
    code, modules, loaded = map(int, done.stdout.splitlines()[-1].split())
    assert code == 0, done.stderr
    assert modules <= 24
    assert loaded <= 5_460


def test_house_stays_as_small_as_it_is():
    rooms = [path for path in PACKAGE.iterdir() if path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py")))]
    assert len(rooms) <= 22
    assert sum(lines(PACKAGE / f"{name}.py") for name in CORE) <= 2_750
    assert sum(map(lines, MODULES)) <= 17_285


def test_no_function_has_more_than_eight_parameters():
    """The verbs of the command line have one for each option."""
    for file in MODULES:
        if file.parent.name == "cli":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                assert len([each for each in given if each.arg not in ("self", "cls")]) <= 8, (file, node.name)
