"""One page about a run, an ensemble, a validation or a comparison."""

from __future__ import annotations

import logging
import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kaggle_digits.analysis.calibration import calibration_error
from kaggle_digits.analysis.html import Page, Section, picture, write_page
from kaggle_digits.analysis.occlusion import nearest_rows, occlusion_map
from kaggle_digits.analysis.plots import (
    plot_confusion,
    plot_confusions,
    plot_curves,
    plot_label_counts,
    plot_learning_rate,
    plot_reasons,
    plot_reliability,
    plot_worst,
)
from kaggle_digits.analysis.validate import (
    COMPARISON_FILE,
    LABELS_FILE,
    Pair,
    Validation,
    find_better,
    format_p,
    load_validation,
    suspect_labels,
    verdict,
)
from kaggle_digits.analysis.validate import JSON_FILE as VALIDATION_JSON
from kaggle_digits.data import (
    SAMPLE,
    Source,
    Split,
    TrainingRows,
    find_source,
    fold_rows,
    load_train,
)
from kaggle_digits.digits import calibrate, counted, describe_accuracy
from kaggle_digits.errors import DataError, RunError, SubmissionError
from kaggle_digits.files import read_json
from kaggle_digits.learners import load_run, read_finished
from kaggle_digits.learners.members import run_folders
from kaggle_digits.recipes import RECIPES
from kaggle_digits.run import RUN_FILE, RowCounts, Run, member_folder, read_run
from kaggle_digits.submission import read_submission
from kaggle_digits.tables.find import find_again

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

COMPARE_FRACTION = 1 / 7
"""``compare`` holds out this share of the rows, as in MNIST, which has 60,000 rows to train on and 10,000 to score.

Of the competition's 42,000 rows, 36,000 are trained on and 6,000 are held out."""
COMPARE_FILE, REPORT_FILE = "compare.json", "report.html"
MISTAKES, COLUMNS = 60, 6
"""The most mistakes on a page, and the columns of their grid, which fits a phone."""
REASONS = 8
"""For this many of the worst mistakes the page says why."""


def report(folder: Path, out: Path | None = None, *, data: str | None = None) -> Path:
    """Write a page about what a folder holds.

    Args:
        folder: a run folder, or the folder of a validation or a comparison.
        out: the file to write; None for report.html in the folder. An existing file is replaced.
        data: where the training rows are, see ``data.find_source``; None for where the run found them. Without them the
            page has no pictures of mistakes.

    Returns:
        the file that was written.

    Raises:
        RunError: the folder holds none of these, or a file in it is damaged.
    """
    builders: dict[str, Callable[[Path, str | None], Page]] = {
        RUN_FILE: _page_of_run,
        VALIDATION_JSON: _page_of_validation,
        COMPARISON_FILE: lambda where, _: _page_of_folds(where),
        COMPARE_FILE: lambda where, _: page_of_comparison(where),
    }
    found = next((name for name in builders if (folder / name).exists()), None)
    build = builders[found] if found else _page_of_members
    if not found and run_folders(folder) == [folder]:
        raise RunError(
            f"{folder}: nothing to report on in it. Expected {', '.join(builders)}, as train, validate and compare "
            "leave, or the run folders of members. Name such a folder."
        )
    file = out or folder / REPORT_FILE
    try:
        page = build(folder, data)
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # what is missing in a damaged file
        raise RunError(
            f"{folder / (found or '')}: cannot be reported on ({type(error).__name__}: {error}). Expected what this "
            "version of kaggle-digits wrote. Repeat the command that made it."
        ) from error
    write_page(file, page)
    return file


def _page_of_run(folder: Path, data: str | None) -> Page:
    run = read_finished(folder)
    recipe, members = run.recipe, run.members
    networks = [member for member in members if member.recipe.networks] or ([run] if recipe.networks else [])
    lead = f"{recipe.summary[:1].upper()}{recipe.summary[1:]}."
    where = run.source
    sections: list[Section] = []
    if members:
        sections.append(_members_section(members))
    if networks:
        curves = {member.folder.name if members else recipe.name: member.epochs for member in networks}
        rates = picture(plot_learning_rate(_learning_rates(networks)))
        sections.append(_training_section(curves, ("learning rate", rates)))
    if run.accuracy is not None:
        lead += (
            f" It reads {describe_accuracy(run.accuracy, run.rows.held_out)} of {run.rows.held_out:,} held-out rows "
            "right, which played no part in training."
        )
        probabilities = calibrate(run.probabilities, run.temperature or 1.0)
        sections += _reading_sections(probabilities, run.held_out_digits)
        found = _find_rows(run, data)
        sections += _mistakes_sections(run, probabilities, found)
        where = found.source if isinstance(found, _Found) else where
    sections += _submission_sections(run)
    return Page(
        title=f"{recipe.name}, seed {run.seed}",
        lead=lead,
        facts=_facts(run, where),
        command=_command(run, where),
        sections=sections,
        commit=run.commit,
    )


def _page_of_members(folder: Path, data: str | None) -> Page:  # noqa: ARG001
    """Return the page about members that were trained by several commands, or by ``submit --folds``."""
    members = [read_finished(each) for each in run_folders(folder)]
    networks = [member for member in members if member.recipe.networks]
    sections = [_members_section(members)]
    if networks:
        sections.append(_training_section({member.folder.name: member.epochs for member in networks}))
    return Page(
        title=f"{len(members)} members in {folder.name}",
        lead="`kaggle-digits predict` averages them. Each has a page of its own: name its folder.",
        facts=_facts(members[0], members[0].source)[1:],
        sections=[*sections, *_submission_sections(members[0])],
        commit=members[0].commit,
    )


def _facts(run: Run, source: str) -> list[tuple[str, str]]:
    facts = [
        ("Recipe", f"{run.recipe.name} ({run.recipe.source})"),
        (
            "Epochs",
            " + ".join(f"{len(each.epochs)}" for each in (run.members or [run]) if each.recipe.networks) or "none",
        ),
        ("Rows", f"{run.rows.training:,} to train on, {run.rows.held_out:,} held out, of {_place(source)}"),
        ("Device", str(run.device)),
        ("Seconds", f"{run.seconds:,.1f} to train, {run.validation_seconds:,.1f} to read the held-out rows"),
        ("Parameters", f"{run.parameters:,}" if run.parameters is not None else "unknown"),
        ("Calibration", f"temperature {run.temperature}" if run.temperature else "none"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in run.versions.items())),
        ("Run folder", str(run.folder)),
    ]
    if run.devices_before:
        facts.insert(4, ("Begun on", "; ".join(map(str, run.devices_before))))
    if run.submission:
        facts.append(("Submission", run.submission))
    return facts


def _command(run: Run, source: str) -> str:
    """Return the command that repeats a training; "" if it was not made by train or submit, or not from a file.

    Args:
        run: the training.
        source: where its rows are now.
    """
    recipe, rows = run.recipe, run.rows
    usual = RECIPES.get(recipe.name)
    name = recipe.name if usual else recipe.source
    is_here = all(Path(each).exists() for each in (name, source) if each not in (recipe.name, SAMPLE))
    if not is_here or rows.held_out != math.ceil(recipe.validation_fraction * (rows.training + rows.held_out)):
        return ""
    parts = [
        "kaggle-digits",
        "train",
        "--recipe",
        name,
        "--run",
        "again",
        "--data",
        source,
        "--seed",
        str(run.seed),
    ]
    if usual and usual.settings() != recipe.settings():
        epochs = {network.epochs for network in recipe.networks}
        if len(epochs) != 1 or usual.with_epochs(min(epochs)).settings() != recipe.settings():
            return ""
        parts += ["--epochs", str(min(epochs))]
    return shlex.join(parts)


def _training_section(curves: dict[str, list[dict[str, Any]]], *more: tuple[str, str]) -> Section:
    pictures = [("loss and accuracy of each epoch", picture(plot_curves(curves, stacked=True))), *more]
    return Section("During training", pictures=pictures)


def _members_section(members: Sequence[Run]) -> Section:
    return Section(
        "Members",
        "A method that is not a network reads only rows that the networks are not sure of. It has no accuracy here.",
        head=("member", "recipe", "seed", "held-out accuracy", "seconds to train", "parameters"),
        rows=[
            (
                member.folder.name,
                member.recipe.name,
                str(member.seed),
                f"{member.accuracy:.2%}" if member.accuracy is not None else "–",
                f"{member.seconds:,.1f}",
                f"{member.parameters or 0:,}",
            )
            for member in members
        ],
    )


def _learning_rates(runs: Sequence[Run]) -> dict[str, np.ndarray]:
    """Return the learning rate at every step of each training, by the name of its recipe."""
    from kaggle_digits.devices import import_tensorflow

    import_tensorflow()
    from kaggle_digits.analysis.schedule import learning_rates

    found = {}
    for run in runs:
        (network,) = run.recipe.networks
        accuracies = [epoch.get("tuning_accuracy", 0.0) for epoch in run.epochs]
        found[run.recipe.name] = learning_rates(network, run.rows.training, accuracies)
    return found


def _reading_sections(probabilities: np.ndarray, digits: np.ndarray) -> list[Section]:
    error = calibration_error(probabilities, digits)
    return [
        Section(
            "What is read as what, and how surely",
            f"Of the digits that are given as 90% sure, 90% should be right. The mean difference is {error:.2%}.",
            pictures=[
                ("confusion matrix", picture(plot_confusion(probabilities, digits))),
                ("certainty and accuracy", picture(plot_reliability(probabilities, digits))),
            ],
        )
    ]


@dataclass(frozen=True)
class _Found:
    """The rows of a run: those trained on, those held out with their numbers in the file, and the source's name."""

    training: TrainingRows
    held_out: TrainingRows
    numbers: np.ndarray
    source: str


ROW_NUMBERS = "The first row below the header of the training file is row 1."


def _mistakes_sections(run: Run, probabilities: np.ndarray, found: _Found | str) -> list[Section]:
    if isinstance(found, str):
        return [Section("Worst mistakes", found)]
    held_out = found.held_out
    wrong = int((probabilities.argmax(axis=1) != held_out.digits).sum())
    sections = [_reasons_section(run, found.training, held_out, probabilities)]
    if wrong:
        title = "All mistakes" if wrong <= MISTAKES else f"The {MISTAKES} surest mistakes"
        figure = plot_worst(
            held_out.pixels, probabilities, held_out.digits, most=MISTAKES, columns=COLUMNS, numbers=found.numbers
        )
        sections.append(Section(title, ROW_NUMBERS, pictures=[("mistakes", picture(figure))]))
    return sections


def _reasons_section(
    run: Run, training: TrainingRows, held_out: TrainingRows, probabilities: np.ndarray, where: str = ""
) -> Section:
    """Show what decided the worst mistakes.

    Args:
        run: what made them.
        training, held_out: its rows.
        probabilities: (N, 10), what it read in the held-out rows.
        where: is added to the title.
    """
    read, certainty = probabilities.argmax(axis=1), probabilities.max(axis=1)
    worst = [row for row in np.argsort(-certainty, kind="stable") if read[row] != held_out.digits[row]][:REASONS]
    title = f"Worst mistakes, and why{where}"
    if not worst:
        return Section(title, f"There is no mistake among {len(held_out):,} held-out rows.")
    try:
        predict = load_run(run.folder).predict
    except RunError as error:
        return Section(title, f"The trained form cannot be loaded: {error}")
    # An ensemble asks its classical member where the networks are not sure. What is near for it is what counts.
    recipe = next((member for member in run.recipe.members if not member.networks), run.recipe)
    near = nearest_rows(recipe, held_out.pixels[worst], training, min(3, len(training)))
    figure = plot_reasons(
        held_out.pixels[worst],
        [f"is {held_out.digits[row]}, read {read[row]} ({certainty[row]:.0%})" for row in worst],
        np.stack([occlusion_map(predict, held_out.pixels[row], int(read[row])) for row in worst]),
        training.pixels[near],
        training.digits[near],
    )
    return Section(
        title,
        "The surest mistakes come first. Orange marks the parts that speak for the reading: without them its "
        "probability falls. Blue marks those that speak against it. Beside them are the nearest training images.",
        pictures=[("the worst mistakes, with occlusion maps and the nearest training images", picture(figure))],
    )


def _find_rows(run: Run, data: str | None) -> _Found | str:
    """Return the rows of a run, or say why not. They are known by their checksum, wherever they are now."""
    seen = False
    for source in _sources(run.source, run.folder, data):
        try:
            rows = load_train(source)
        except DataError as error:
            log.warning("%s", error)
            continue
        seen = True
        numbered = TrainingRows(np.arange(1, len(rows) + 1)[:, None], rows.digits)
        # Runs of 2026 do not say how their rows were divided: most as this command does.
        split = run.split or Split(fraction=run.recipe.validation_fraction, seed=run.seed)
        training, held_out = split.of(numbered)
        parts = [rows.take(part.pixels[:, 0] - 1) for part in (training, held_out)]
        if RowCounts.of(*parts) == run.rows:
            return _Found(parts[0], parts[1], held_out.pixels[:, 0], source.name)
    where = _place(data or run.source)
    if seen:
        return f"The rows of {where} are others than those of the training, or were divided in another way."
    return f"The training rows were not found at {where}, nor where data usually is. Name them with --data."


def _place(name: str) -> str:
    """Return what a page calls a source. It may be read in another folder than the one that "." stood for."""
    return "the folder that it ran in" if name == "." else name


def _sources(name: str, folder: Path, data: str | None) -> Iterator[Source]:
    """Yield the sources that may have the rows that a file in a folder names; only one if the user has named it."""
    if not data:
        yield from find_again(name, folder)
        return
    try:
        yield find_source(data)
    except DataError as error:
        log.warning("%s", error)


def _submission_sections(run: Run) -> list[Section]:
    file = Path(run.submission) if run.submission else None
    if not file or not file.is_file():
        return []
    try:
        digits = read_submission(file).digits
    except SubmissionError:  # somebody has changed the file since
        digits = None
    if digits is None:
        return []
    figure = plot_label_counts(np.array(digits))
    return [Section("Labels of the submission", pictures=[("how often each digit was predicted", picture(figure))])]


def _page_of_validation(folder: Path, data: str | None) -> Page:
    found = load_validation(folder)
    fields, probabilities, digits = found.fields, found.probabilities, found.digits
    suspects = suspect_labels(probabilities, digits)
    sections = [
        Section(
            "Folds",
            head=("", *(f"{number}" for number in range(1, len(fields["fold_accuracies"]) + 1))),
            rows=[("accuracy", *(f"{each:.2%}" for each in fields["fold_accuracies"]))],
        ),
        Section(
            "Digits",
            head=("", *map(str, range(10))),
            rows=[
                ("accuracy", *("–" if each is None else f"{each:.2%}" for each in fields["digit_accuracies"])),
                ("rows", *(f"{(digits == digit).sum():,}" for digit in range(10))),
            ],
        ),
        *_reading_sections(probabilities, digits),
    ]
    where = fields["data"]
    for source in _sources(where, folder, data):
        try:
            rows = load_train(source)
        except DataError as error:
            log.warning("%s", error)
            continue
        if np.array_equal(rows.digits, digits):
            sections += _validation_mistakes(found, rows, suspects)
            where = source.name
            break
    else:
        text = f"The rows were not found at {_place(data or where)}, nor where data usually is. Name them with --data."
        sections.append(Section("Worst mistakes", text))
    return Page(
        title=f"{found.recipe.name}, cross-validated over {fields['folds']} folds",
        lead=_validation_lead(found),
        facts=[
            ("Recipe", f"{found.recipe.name} ({found.recipe.source}): {found.recipe.summary}"),
            ("Rows", f"{fields['rows']:,} of {_place(fields['data'])}"),
            ("Spread over folds", f"{100 * fields['fold_std']:.3f} points (standard deviation)"),
            ("Repeats", f"{fields['repeat']}: {', '.join(f'{each:.3%}' for each in fields['accuracies'])}"),
            ("Seconds", f"{fields['seconds']:,.0f} to train and to read"),
            ("Device", f"{fields['device']['kind']}, {fields['device']['precision']} ({fields['device']['reason']})"),
            ("Versions", ", ".join(f"{name} {version}" for name, version in fields["versions"].items())),
            (
                "Labels that look wrong",
                "not judged: too many rows are misread for that"
                if suspects is None
                else f"{len(suspects):,}, listed in {folder / LABELS_FILE}",
            ),
        ],
        command=shlex.join(
            [
                *("kaggle-digits", "validate", "--recipe"),
                found.recipe.name if found.recipe.name in RECIPES else found.recipe.source,
                *("--folds", str(fields["folds"]), "--repeat", str(fields["repeat"]), "--seed", str(fields["seed"])),
                *("--data", where, "--out", "again"),
            ]
        ),
        sections=sections,
        commit=fields["commit"],
    )


def _validation_lead(found: Validation) -> str:
    fields = found.fields
    return (
        f"It reads {fields['accuracy']:.3%} ± {fields['standard_error']:.3%} (1 standard error) of {fields['rows']:,} "
        f"rows right, each with a model that did not see it: {counted(fields['mistakes'], 'mistake')}."
    )


def _validation_mistakes(found: Validation, rows: TrainingRows, suspects: np.ndarray | None) -> list[Section]:
    """Say why the worst mistakes of the first fold were made, and show those of all folds, and suspicious labels."""
    folds = found.fields["folds"]
    of_row = fold_rows(rows, folds, seed=found.fields["seed"])
    sections = []
    if (first := member_folder(found.folder, 1, folds)).exists():
        training, held_out = Split(seed=found.fields["seed"], folds=folds, fold=0).of(rows)
        run = read_finished(first)
        sections.append(
            _reasons_section(run, training, held_out, found.probabilities[of_row == 0], ": in the first fold")
        )
    numbers = np.arange(1, len(rows) + 1)
    worst = plot_worst(rows.pixels, found.probabilities, rows.digits, most=MISTAKES, columns=COLUMNS, numbers=numbers)
    pictures = [("mistakes", picture(worst))]
    sections.append(Section("The surest mistakes of all folds", ROW_NUMBERS, pictures=pictures))
    if suspects is not None and len(suspects):
        shown = suspects[:40]
        figure = plot_worst(
            rows.pixels[shown],
            found.probabilities[shown],
            rows.digits[shown],
            most=40,
            columns=COLUMNS,
            numbers=numbers[shown],
        )
        text = "Another digit is read at least as surely as that digit usually is. Look at them before you change any."
        pictures = [("labels that look wrong", picture(figure))]
        sections.append(Section("Labels that look wrong", text, pictures=pictures))
    return sections


def _page_of_folds(folder: Path) -> Page:
    comparison = read_json(folder / COMPARISON_FILE)
    found = [load_validation(folder / name) for name in comparison["recipes"]]
    compared = [Pair(**pair) for pair in comparison["pairs"]]
    pairs = [
        (
            f"{pair.first} − {pair.second}",
            f"{100 * pair.difference:+.3f} ± {100 * pair.standard_error:.3f}",
            f"{pair.only_first:,}",
            f"{pair.only_second:,}",
            format_p(pair.p).removeprefix("p ").removeprefix("= "),
            verdict(better),
        )
        for pair, better in zip(compared, find_better(compared), strict=True)
    ]
    fields = found[0].fields
    return Page(
        title="Recipes compared over folds",
        lead=f"Each of {fields['rows']:,} rows of {_place(fields['data'])} was read with a model that did not see "
        f"it, on the same {fields['folds']} folds for every recipe. ± is one standard error.",
        sections=[
            Section(
                "",
                head=("recipe", "accuracy", "mistakes", "spread over folds", "seconds", "parameters"),
                rows=[
                    (
                        each.recipe.name,
                        f"{each.fields['accuracy']:.3%} ± {each.fields['standard_error']:.3%}",
                        f"{each.fields['mistakes']:,}",
                        f"{100 * each.fields['fold_std']:.3f}",
                        f"{each.fields['seconds']:,.0f}",
                        f"{each.fields['parameters']:,}",
                    )
                    for each in found
                ],
            ),
            Section(
                "Which is better",
                "p is the probability of such a difference, or a greater one, if both were equally good. It covers "
                "which rows were drawn, not the seeds of the trainings. Of many pairs, some are below 0.05 by chance; "
                "the verdict allows for that.",
                head=("difference", "points", "only the first reads right", "only the second", "p", "verdict"),
                rows=pairs,
            ),
            Section(
                "Which digits are read as which",
                SAME_COLOURS,
                pictures=[
                    (name, picture(figure))
                    for name, figure in plot_confusions(
                        {each.recipe.name: (each.probabilities, each.digits) for each in found}
                    ).items()
                ],
            ),
        ],
        commit=fields["commit"],
    )


SAME_COLOURS = "A colour stands for the same number of mistakes in all of them."


def describe(comparison: Mapping[str, Any]) -> str:
    """Return a comparison as a table for a terminal.

    Args:
        comparison: as ``compare.compare`` returns it.
    """
    done = [row for row in comparison["recipes"] if not row["failed"]]
    theirs = any(row["published_accuracy"] is not None for row in done)
    head = ["recipe", "n", "accuracy", *(["theirs"] if theirs else []), "train s", "read s", "weights"]
    table = [head]
    for row in done:
        published = row["published_accuracy"]
        table.append(
            [
                row["recipe"],
                str(len(row["seeds"])),
                format_accuracy(row),
                *([f"{published:.2%}" if published is not None else ""] if theirs else []),
                *_costs(row),
            ]
        )
    widths = [max(map(len, texts)) for texts in zip(*table, strict=True)]
    widths[0] = max(widths[0], *(len(row["recipe"]) for row in comparison["recipes"]))
    lines = [
        f"{name:{widths[0]}} " + "  ".join(f"{text:>{width}}" for text, width in zip(texts, widths[1:], strict=True))
        for name, *texts in table
    ]
    lines += [f"{row['recipe']:{widths[0]}}  failed: {row['failed']}" for row in comparison["recipes"] if row["failed"]]
    return "\n".join([_what_was_done(comparison), *lines])


def _costs(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the seconds to train, those to predict, and the number of parameters, as text."""
    return f"{row['train_seconds']:,.1f}", f"{row['predict_seconds']:,.1f}", f"{row['parameters']:,}"


def _what_was_done(comparison: Mapping[str, Any]) -> str:
    rows, done = comparison["rows"], [row for row in comparison["recipes"] if not row["failed"]]
    last = " Networks are scored with their last weights." if any(row.get("epochs") for row in done) else ""
    spreads = {len(row["seeds"]) > 1 for row in done}
    meanings = [
        *(["the standard deviation over the trainings"] if True in spreads else []),
        *(["the standard error, where there is one training"] if False in spreads else []),
    ]
    spread = f" ± is {', or '.join(meanings)}." if meanings else ""
    return (
        f"Trained on the same {rows['training']:,} rows of {_place(comparison['data'])} and scored on the same "
        f"{rows['held_out']:,} held-out rows, which played no part in training.{last}{spread}"
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return the head and the cells of the table of a comparison, without columns that would be empty."""
    done = [row for row in rows if not row["failed"]]
    published = any(row["published"] not in (None, "none") for row in done)
    difference = any(row["difference"] is not None for row in done)
    head = [
        *("recipe", "trainings", "accuracy"),
        *(["published"] if published else []),
        *(["difference"] if difference else []),
        *("seconds to train", "to predict", "parameters"),
    ]
    cells = []
    for row in rows:
        if row["failed"]:
            cells.append([row["recipe"], f"failed: {row['failed']}"])
            continue
        by = f"{100 * row['difference']:+.2f}" if row["difference"] is not None else "–"
        named = row["published"] if row["published"] not in (None, "none") else "–"
        cells.append(
            [
                row["recipe"],
                str(len(row["seeds"])),
                format_accuracy(row),
                *([named] if published else []),
                *([by] if difference else []),
                *_costs(row),
            ]
        )
    return head, cells


def format_accuracy(row: Mapping[str, Any]) -> str:
    """Return a row's accuracy in percent, with its standard deviation, or its standard error after one training.

    >>> format_accuracy({"accuracy": 0.98756, "accuracy_std": 0.0012})
    '98.76 ± 0.12%'
    """
    spread = row["accuracy_std"] if row["accuracy_std"] is not None else row.get("standard_error")
    return f"{100 * row['accuracy']:.2f}" + (f" ± {100 * spread:.2f}%" if spread is not None else "%")


def page_of_comparison(folder: Path) -> Page:
    """Return the page about what ``compare`` has left in a folder."""
    comparison = read_json(folder / COMPARE_FILE)
    read: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for row in comparison["recipes"]:
        if row["failed"]:
            continue
        name = row["recipe"]
        runs = [read_run(compare_run_folder(folder, name, seed)) for seed in row["seeds"]]
        probabilities = np.concatenate([run.probabilities for run in runs])
        read[name] = (probabilities, np.concatenate([run.held_out_digits for run in runs]))
    return comparison_page(comparison, plot_confusions(read))


def compare_run_folder(out: Path, name: str, seed: int) -> Path:
    """Return the run folder of one training of a comparison."""
    return out / "runs" / f"{name}-seed{seed}"


def comparison_page(comparison: Mapping[str, Any], confusions: Mapping[str, Figure]) -> Page:
    """Return the page about a comparison.

    Args:
        comparison: as ``compare.compare`` returns it.
        confusions: the confusion matrix of each recipe, by its name.
    """
    head, cells = _table(comparison["recipes"])
    sections = [Section("", head=head, rows=cells)]
    networks = [row for row in comparison["recipes"] if row.get("until") and row["loss_spread"] is not None]
    if networks:
        targets = list(networks[0]["until"])
        until = ["recipe", *(f"{unit} until {target}" for target in targets for unit in ("batches", "seconds"))]
        sections.append(
            Section(
                "How fast, and how steady",
                "The table shows the median batches and seconds of training until that accuracy on the held-out rows "
                "was first measured. A dash means that not every training reached it. In the first epoch, the accuracy "
                "is measured whenever the number of batches has grown by a tenth, and then after each epoch. The time "
                "that measuring takes is not counted. The spread is the standard deviation of the loss over the last "
                "200 batches.",
                head=[*until, "spread of the loss"],
                rows=[_speed_cells(row, targets) for row in networks],
            )
        )
    if confusions:
        pictures = [(name, picture(figure)) for name, figure in confusions.items()]
        sections.append(Section("Which digits are read as which", SAME_COLOURS, pictures=pictures))
    return Page(
        title="Recipes compared",
        lead=f"{_what_was_done(comparison)} Seconds are medians.",
        sections=sections,
        commit=comparison["commit"],
    )


def _speed_cells(row: Mapping[str, Any], targets: Sequence[str]) -> list[str]:
    cells = [row["recipe"]]
    for target in targets:
        found = row["until"][target]
        cells += [f"{found['batches']:,.0f}", f"{found['seconds']:,.1f}"] if found else ["–", "–"]
    return [*cells, f"{row['loss_spread']:.4f}"]
