"""Write the figures of comparisons into docs/benchmarks/recipes.md and into kaggle_digits/recipes/measured.json.

    .venv/bin/kaggle-digits compare --recipes all --data digit-recognizer.zip --out compare
    .venv/bin/python benchmarks/recipes_table.py compare/compare.json

Seconds are worth something only if nothing else ran meanwhile. You can name several files. If a recipe is in more than
one, its most repeated measurement counts. Without a name, the script reads benchmarks/compare, which holds the files
that the figures come from.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from kaggle_digits.analysis.report import format_accuracy
from kaggle_digits.recipe import Recipe
from kaggle_digits.recipes import FOLDER, RECIPES

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "benchmarks" / "compare"
PAGE = ROOT / "docs" / "benchmarks" / "recipes.md"
MEASURED = FOLDER / "measured.json"
THIRD_CONVOLUTION = ("cnn-16-32", "cnn-16-32-64")


def load_rows(files: list[Path]) -> dict[str, dict[str, Any]]:
    """Return recipe → its most repeated measurement, in the order of the recipes."""
    rows: dict[str, dict[str, Any]] = {}
    for file in files:
        comparison = json.loads(file.read_text(encoding="utf-8"))
        sizes = (comparison["rows"]["training"], comparison["rows"]["held_out"])
        assert sizes == (36_000, 6_000), f"{file}: not the competition's data"
        for row in comparison["recipes"]:
            name = row["recipe"]
            recipe = RECIPES[name]
            assert _with_defaults(recipe, row["settings"]) == _with_defaults(recipe, recipe.settings()), (
                f"{file}: {name} has other settings now; measure it anew"
            )
            if not row["failed"] and len(row["accuracies"]) > len(rows.get(name, {"accuracies": ()})["accuracies"]):
                rows[name] = row
    return {name: rows[name] for name in RECIPES if name in rows}


def _with_defaults(recipe: Recipe, settings: dict[str, Any]) -> dict[str, Any]:
    """Add the defaults of settings that did not exist yet when a recipe was measured."""
    whole = {field.name: field.default for field in fields(recipe) if field.default is not MISSING} | settings
    if recipe.members:
        pairs = zip(recipe.members, settings["members"], strict=True)
        whole["members"] = [_with_defaults(member, own) for member, own in pairs]
    return whole


def recipes_table(rows: dict[str, dict[str, Any]]) -> str:
    """Return the table of all recipes."""
    lines = [
        "| recipe | what | published | here | trainings | seconds to train | to predict | parameters |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, recipe in RECIPES.items():
        published = recipe.published + (f", {recipe.published_seconds:,g} s" if recipe.published_seconds else "")
        cells = ["–"] * 5
        if name in rows:
            row = rows[name]
            cells = [
                format_accuracy(row),
                str(len(row["accuracies"])),
                f"{row['train_seconds']:,.0f}",
                f"{row['predict_seconds']:.1f}",
                f"{row['parameters']:,}" if recipe.networks else "",
            ]
        lines.append(f"| `{name}` | {recipe.summary} | {published} | {' | '.join(cells)} |")
    return "\n".join(lines)


def third_convolution_table(rows: dict[str, dict[str, Any]]) -> str:
    """Return the table that shows what a third convolution brings."""
    first = rows[THIRD_CONVOLUTION[0]]
    heads = [f"batches, seconds until {target}" for target in first["until"]]
    lines = [f"| recipe | {' | '.join(heads)} | accuracy | spread of the loss |", "|---" * (len(heads) + 3) + "|"]
    for name in THIRD_CONVOLUTION:
        row = rows[name]
        reached = [
            f"{found['batches']:.0f}, {found['seconds']:.1f} s" if found else "not every time"
            for found in row["until"].values()
        ]
        lines.append(f"| `{name}` | {' | '.join(reached)} | {format_accuracy(row)} | {row['loss_spread']:.3f} |")
    return "\n".join(lines)


def measured(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the contents of kaggle_digits/recipes/measured.json."""
    return {
        name: {
            "accuracy": format_accuracy(row),
            "seconds": round(row["train_seconds"] + row["predict_seconds"], 1),
            "parameters": row["parameters"] if RECIPES[name].networks else None,
        }
        for name, row in rows.items()
    }


def replace_between(text: str, name: str, table: str) -> str:
    """Put a table between the two marks that carry the name."""
    begin, end = f"<!-- {name}: made by benchmarks/recipes_table.py -->\n", f"<!-- end of {name} -->\n"
    before, found, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    assert found, f"{PAGE} has no mark {begin.strip()}"
    assert found_end, f"{PAGE} has no mark {end.strip()}"
    return f"{before}{begin}{table}\n{end}{after}"


def made_from(rows: dict[str, dict[str, Any]], page: str) -> str:
    """Return the page with both tables made from these rows."""
    text = replace_between(page, "recipes", recipes_table(rows))
    return replace_between(text, "third convolution", third_convolution_table(rows))


def main() -> None:
    """Write the page and measured.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="compare.json of comparisons on the competition's data")
    rows = load_rows(parser.parse_args().files or sorted(KEPT.glob("*.json")))
    PAGE.write_text(made_from(rows, PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    MEASURED.write_text(json.dumps(measured(rows), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
