"""Docs: every verb, option and recipe is documented, and the examples in the README work."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import kaggle_digits
from kaggle_digits import cli
from kaggle_digits.recipes import RECIPES, load_measured

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"`(kaggle-digits [^`]+)`", README)
VERBS = next(a for a in cli.build_parser()._actions if isinstance(a, argparse._SubParsersAction)).choices


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_readme_is_one(command):
    options = cli.build_parser().parse_args(shlex.split(command)[1:])
    assert options.verb in cli.VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_and_option_is_in_the_readme(verb):
    rows = [line for line in README.splitlines() if line.startswith(f"| `kaggle-digits {verb}")]
    shared = [line for line in README.splitlines() if line.startswith("- **`--")]
    assert rows
    for action in VERBS[verb]._actions:
        for option in action.option_strings:
            assert option in ("-h", "--help") or re.search(rf"{option}\b", "\n".join(rows + shared)), (verb, option)


def test_every_recipe_and_its_figures_are_in_the_readme():
    for recipe in RECIPES.values():
        row = next(line for line in README.splitlines() if line.startswith(f"| `{recipe.name}` |"))
        assert recipe.published in row
        assert load_measured().get(recipe.name, "| – |") in row


def test_figures_are_those_of_the_comparisons():
    """The script that writes the figures would not change them."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import recipes_table
    finally:
        sys.path.pop(0)
    rows = recipes_table.load_rows(sorted(recipes_table.KEPT.glob("*.json")))
    assert rows
    assert recipes_table.made_from(rows, README) == README
    assert recipes_table.measured(rows) == load_measured()


def test_python_of_the_readme_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(code.splitlines()) <= 8
    assert code.count("import") == 1
    exec(compile(code, "README.md", "exec"), {})
    assert re.fullmatch(r"[0-9.]+% of 72 held-out rows\n", capsys.readouterr().out)
    assert sum(kaggle_digits.check_submission(Path("mine.csv"), rows=360)) == 360


def test_importing_the_package_imports_nothing_heavy():
    heavy = "{'tensorflow', 'keras', 'pandas', 'numpy', 'sklearn', 'kaggle', 'jax'}"
    code = f"import sys, kaggle_digits; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_every_public_name_is_in_the_readme():
    section = README.partition("\n## In Python\n")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`(\w+)`", "".join(cells))) == sorted(kaggle_digits.__all__)


def test_every_public_name_is_found_where_the_package_says():
    listed = [name for names in kaggle_digits._MODULES.values() for name in names]
    assert sorted([*listed, "SIDE", "PIXELS", "CLASSES"]) == sorted(kaggle_digits.__all__)
    for name in kaggle_digits.__all__:
        assert getattr(kaggle_digits, name) is not None
    assert set(kaggle_digits.__all__) <= set(dir(kaggle_digits))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = kaggle_digits.nothing


def test_links_of_the_documents_lead_somewhere():
    for document in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        # The anchor of a heading is its words in lower case, joined by hyphens.
        anchors = {
            "#" + re.sub(r"[^\w ]", "", line.lstrip("# ")).lower().replace(" ", "-") for line in text.splitlines()
        }
        for target in re.findall(r"\]\(([^)]+)\)", text):
            assert target.startswith("https://") or target in anchors or (ROOT / target).exists(), (document, target)


def test_changelog_knows_this_version():
    assert f"\n## {kaggle_digits.__version__} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_make_help_lists_every_target_of_the_readme():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^    make ([\w-]+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE), target
