"""Show a comparison as a table for a terminal, and as a single HTML page.

The page contains its pictures. It has no scripts and fetches nothing.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaggle_digits.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1150px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.6em } h2 { font-size: 1.2em; margin-top: 2em }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 14px }
th, td { padding: .3em .8em; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th { border-bottom-color: #888; vertical-align: bottom }
th:first-child, td:first-child, td.text { text-align: left }
td.text { white-space: normal; color: #a02020 }
tr:hover td { background: #f4f6f9 }
img { max-width: 100% }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); gap: 1em }
figure { margin: 0 } figcaption { font-weight: 600 }
p.small { color: #555; font-size: 13px }
"""


HEAD = ("recipe", "trainings", "accuracy", "published", "difference", "seconds to train", "to predict", "parameters")


def describe(comparison: Mapping[str, Any]) -> str:
    """Return a comparison as a table for a terminal.

    Args:
        comparison: as ``compare.compare`` returns it.
    """
    table = [HEAD, *(_texts(row) for row in comparison["recipes"] if not row["failed"])]
    widths = [max(map(len, texts)) for texts in zip(*table, strict=True)]
    widths[0] = max(widths[0], *(len(row["recipe"]) for row in comparison["recipes"]))
    lines = [
        f"{name:{widths[0]}}  " + "  ".join(f"{text:>{width}}" for text, width in zip(texts, widths[1:], strict=True))
        for name, *texts in table
    ]
    lines += [f"{row['recipe']:{widths[0]}}  failed: {row['failed']}" for row in comparison["recipes"] if row["failed"]]
    return "\n".join([_what_was_done(comparison), *lines])


def _what_was_done(comparison: Mapping[str, Any]) -> str:
    rows = comparison["rows"]
    return (
        f"Trained on the same {rows['training']:,} rows of {comparison['data']} and scored on the same "
        f"{rows['held_out']:,} held-out rows, which played no part in training. Networks are scored with their last "
        "weights."
    )


def _texts(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells of a row that did not fail, in the order of HEAD."""
    return (
        row["recipe"],
        str(len(row["seeds"])),
        format_accuracy(row),
        row["published"],
        f"{100 * row['difference']:+.2f}" if row["difference"] is not None else "",
        f"{row['train_seconds']:,.1f}",
        f"{row['predict_seconds']:,.1f}",
        f"{row['parameters']:,}",
    )


def format_accuracy(row: Mapping[str, Any]) -> str:
    """Return a row's accuracy in percent, with its standard deviation if there were several trainings.

    >>> format_accuracy({"accuracy": 0.98756, "accuracy_std": 0.0012})
    '98.76 ± 0.12 %'
    """
    spread = f" ± {100 * row['accuracy_std']:.2f}" if row["accuracy_std"] is not None else ""
    return f"{100 * row['accuracy']:.2f}{spread} %"


def write_report(
    file: Path, comparison: Mapping[str, Any], traces: Figure | None, confusions: Mapping[str, Figure]
) -> None:
    """Write the HTML page. The file appears whole or not at all.

    Args:
        file: the file to write.
        comparison: as ``compare.compare`` returns it.
        traces: accuracy and loss against batches and seconds, if any network was trained.
        confusions: the confusion matrix of each recipe, by its name.
    """
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width, initial-scale=1'>",
        f"<title>Recipes compared</title><style>{STYLE}</style>",
        "<h1>Recipes compared</h1>",
        f"<p>{escape(_what_was_done(comparison))} ± is the standard deviation over several trainings. Seconds are "
        "medians.</p>",
        "<div class=wide>",
        _table(HEAD, (_summary_row(row) for row in comparison["recipes"])),
        "</div>",
    ]
    networks = [row for row in comparison["recipes"] if row.get("until") and row["loss_spread"] is not None]
    if networks:
        targets = list(networks[0]["until"])
        head = ["recipe", *(f"{unit} until {target}" for target in targets for unit in ("batches", "seconds"))]
        parts += [
            "<h2>How fast, and how steady</h2>",
            "<p class=small>The table shows the median batches and seconds of training until that accuracy on the "
            "held-out rows was first measured. A dash means that not every training reached it. In the first epoch, "
            "the accuracy is measured whenever the number of batches has grown by a tenth, and then after each epoch. "
            "The time that measuring takes is not counted. The spread is the standard deviation of the loss over the "
            "last 200 batches.</p><div class=wide>",
            _table([*head, "spread of the loss"], (_speed_row(row, targets) for row in networks)),
            "</div>",
        ]
    if traces:
        parts += ["<h2>During training</h2>", _picture(traces, "accuracy and loss against batches and seconds")]
    if confusions:
        parts += ["<h2>Which digits are read as which</h2><div class=grid>"]
        for name, figure in confusions.items():
            caption = f"<figcaption>{escape(name)}</figcaption>"
            parts.append(f"<figure>{caption}{_picture(figure, f'confusion matrix of {name}')}</figure>")
        parts.append("</div>")
    parts += [
        f"<p class=small>Made by kaggle-digits, commit {escape(comparison['commit'] or 'unknown')}.</p></html>",
    ]
    with atomic_path(file) as path:
        path.write_text("\n".join(parts) + "\n", encoding="utf-8")


def _summary_row(row: Mapping[str, Any]) -> str:
    if row["failed"]:
        return _cells(row["recipe"]) + f"<td class=text colspan={len(HEAD) - 1}>failed: {escape(row['failed'])}</td>"
    return _cells(*_texts(row))


def _speed_row(row: Mapping[str, Any], targets: Iterable[str]) -> str:
    cells = [row["recipe"]]
    for target in targets:
        found = row["until"][target]
        cells += [f"{found['batches']:,.0f}", f"{found['seconds']:,.1f}"] if found else ["–", "–"]
    return _cells(*cells, f"{row['loss_spread']:.4f}")


def _cells(*texts: str) -> str:
    return "".join(f"<td>{escape(text)}</td>" for text in texts)


def _table(head: Iterable[str], rows: Iterable[str]) -> str:
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    return f"<table><tr>{titles}</tr>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


def _picture(figure: Figure, description: str) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=100)
    encoded = base64.b64encode(stream.getvalue()).decode()
    return f"<img alt='{escape(description, quote=True)}' src='data:image/png;base64,{encoded}'>"
