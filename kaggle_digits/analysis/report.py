"""One page about a run, an ensemble, a validation, a comparison or a search."""

from __future__ import annotations

import itertools
import logging
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kaggle_digits.analysis import plots, validate
from kaggle_digits.analysis.calibration import calibration_error
from kaggle_digits.analysis.html import Page, Section, write_page
from kaggle_digits.analysis.occlusion import nearest_rows, occlusion_map
from kaggle_digits.data import SAMPLE, Split, TrainingRows, find_source, fold_rows, load_train
from kaggle_digits.devices import start_backend
from kaggle_digits.digits import CLASSES, calibrate, counted, describe_accuracy
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

Readings = tuple[np.ndarray, np.ndarray]
"""The probabilities (S, N, 10) of the held-out rows after each of S trainings, and the true digits (N,)."""

MOST_MISTAKES = 60  # on a page
COMPARE_FILE, TUNE_FILE, REPORT_FILE = "compare.json", "tune.json", "report.html"


def report(folder: Path, out: Path | None = None, *, data: str | None = None) -> Path:
    """Write a page about the contents of a folder.

    Args:
        folder: a run folder, or the folder of a validation, a comparison or a search.
        out: the file to write; None for report.html in the folder. An existing file is replaced.
        data: where the training rows are, see ``data.find_source``; None for where the run found them. Without them the
            page has no pictures of mistakes.

    Returns:
        the file that was written.

    Raises:
        RunError: the folder holds none of these, or a file in it is damaged.
    """
    builders: dict[str, Callable[[], Page]] = {
        RUN_FILE: lambda: _page_of_run(read_finished(folder), data),
        validate.JSON_FILE: lambda: _page_of_validation(validate.load_validation(folder), data),
        validate.COMPARISON_FILE: lambda: _page_of_folds(folder),
        COMPARE_FILE: lambda: page_of_comparison(folder, data=data),
        TUNE_FILE: lambda: page_of_search(folder),
    }
    name = next((name for name in builders if (folder / name).exists()), "")
    if not name and run_folders(folder) == [folder]:
        raise RunError(
            f"{folder}: nothing to report on in it. Expected {', '.join(builders)}, as train, validate, compare and "
            "tune leave, or the run folders of members. Name such a folder."
        )
    with validate.readable(folder / name):
        page = builders[name]() if name else _page_of_members(folder)
    file = out or folder / REPORT_FILE
    write_page(file, page)
    return file


def _page_of_run(run: Run, data: str | None) -> Page:
    recipe, members, source = run.recipe, run.members, run.source
    lead = f"{recipe.summary[:1].upper()}{recipe.summary[1:]}."
    sections: list[Section] = [_members_section(members)] if members else []
    names = {member.folder.name: member for member in members} or {recipe.name: run}
    networks = {name: member for name, member in names.items() if member.recipe.networks}
    if networks:
        sections.append(_training_section(networks, with_rates=True))
    if run.accuracy is not None:
        lead += (
            f" It reads {describe_accuracy(run.accuracy, run.rows.held_out)} of {run.rows.held_out:,} held-out rows "
            "right, which played no part in training."
        )
        probabilities = calibrate(run.probabilities, run.temperature or 1.0)
        sections.append(_reading_section(probabilities, run.held_out_digits))
        # Runs of 2026 do not say how their rows were divided: most as `train` does.
        split = run.split or Split(fraction=recipe.validation_fraction, seed=run.seed)
        found = _find_rows(run.source, run.folder, data, lambda rows: RowCounts.of(*split.of(rows)) == run.rows)
        if isinstance(found, str):
            sections.append(Section("Worst mistakes", found))
        else:
            rows, source = found
            _, numbers = split.of(TrainingRows(np.arange(1, len(rows) + 1), rows.digits))
            training, held_out = split.of(rows)
            sections.append(_reasons_section(run, training, held_out, probabilities))
            if wrong := len(plots.surest_mistakes(probabilities, held_out.digits)):
                title = "All mistakes" if wrong <= MOST_MISTAKES else f"The {MOST_MISTAKES} surest mistakes"
                sections.append(_mistakes_section(title, held_out, probabilities, numbers.pixels))
    return Page(
        title=f"{recipe.name}, seed {run.seed}",
        lead=lead,
        facts=_facts(run, source),
        command=_command(run, source),
        sections=[*sections, *_submission_sections(run)],
        commit=run.commit,
    )


def _page_of_members(folder: Path) -> Page:
    """Return the page about members that were trained by several commands, or by ``submit --folds``."""
    members = [read_finished(member) for member in run_folders(folder)]
    networks = {member.folder.name: member for member in members if member.recipe.networks}
    return Page(
        title=f"{len(members)} members in {folder.name}",
        lead="`kaggle-digits predict` averages them. Each has a page of its own: name its folder.",
        facts=_facts(members[0], members[0].source)[1:],
        sections=[
            _members_section(members),
            *([_training_section(networks)] if networks else []),
            *_submission_sections(members[0]),
        ],
        commit=members[0].commit,
    )


def _facts(run: Run, source: str) -> list[tuple[str, str]]:
    epochs = [str(len(part.epochs)) for part in run.members or [run] if part.recipe.networks]
    return [
        ("Recipe", f"{run.recipe.name} ({run.recipe.source})"),
        ("Epochs", " + ".join(epochs) or "none"),
        ("Rows", f"{run.rows.training:,} to train on, {run.rows.held_out:,} held out, of {_place(source)}"),
        ("Device", str(run.device)),
        *([("Begun on", "; ".join(map(str, run.devices_before)))] if run.devices_before else []),
        ("Seconds", f"{run.seconds:,.1f} to train, {run.validation_seconds:,.1f} to read the held-out rows"),
        ("Parameters", f"{run.parameters:,}" if run.parameters is not None else "unknown"),
        ("Calibration", f"temperature {run.temperature}" if run.temperature else "none"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in run.versions.items())),
        ("Run folder", str(run.folder)),
        *([("Submission", run.submission)] if run.submission else []),
    ]


def _command(run: Run, source: str) -> str:
    """Return the command that repeats a training; "" if it was not made by train or submit, or not from a file."""
    recipe, rows = run.recipe, run.rows
    usual = RECIPES.get(recipe.name)
    name = recipe.name if usual else recipe.source
    files = {name, source} - {recipe.name, SAMPLE}
    if not all(Path(file).exists() for file in files):
        return ""
    if rows.held_out != math.ceil(recipe.validation_fraction * (rows.training + rows.held_out)):
        return ""
    command = f"train --recipe {shlex.quote(name)} --run again --data {shlex.quote(source)} --seed {run.seed}"
    if usual and usual.settings() != recipe.settings():
        epochs = {network.epochs for network in recipe.networks}
        if len(epochs) != 1 or usual.with_epochs(min(epochs)).settings() != recipe.settings():
            return ""
        command += f" --epochs {min(epochs)}"
    return f"kaggle-digits {command}"


def _training_section(networks: Mapping[str, Run], *, with_rates: bool = False) -> Section:
    curves = plots.plot_curves({name: run.epochs for name, run in networks.items()}, stacked=True)
    figures = {"loss and accuracy of each epoch": curves}
    if with_rates:
        start_backend()  # before pandas, which seaborn and tables need
        from kaggle_digits.analysis.schedule import learning_rates

        rates = {}
        for run in networks.values():
            (network,) = run.recipe.networks
            accuracies = [epoch.get("tuning_accuracy", 0.0) for epoch in run.epochs]
            rates[run.recipe.name] = learning_rates(network, run.rows.training, accuracies)
        figures["learning rate"] = plots.plot_learning_rate(rates)
    return Section("During training", figures=figures)


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


def _reading_section(probabilities: np.ndarray, digits: np.ndarray) -> Section:
    error = calibration_error(probabilities, digits)
    return Section(
        "What is read as what, and how surely",
        f"Of the digits that are given as 90% sure, 90% should be right. The mean difference is {error:.2%}.",
        figures={
            "confusion matrix": plots.plot_confusion(probabilities, digits),
            "certainty and accuracy": plots.plot_reliability(probabilities, digits),
        },
    )


def _mistakes_section(
    title: str,
    rows: TrainingRows,
    probabilities: np.ndarray,
    numbers: np.ndarray,
    text: str = "The first row below the header of the training file is row 1.",
) -> Section:
    """Show mistakes, the surest first, with the numbers of their rows in the training file."""
    grid: dict[str, Any] = {"most": MOST_MISTAKES, "columns": 6}  # as many columns as fit a phone
    figure = plots.plot_worst(rows.pixels, probabilities, rows.digits, numbers=numbers, **grid)
    return Section(title, text, figures={"mistakes": figure})


def _reasons_section(
    run: Run, training: TrainingRows, held_out: TrainingRows, probabilities: np.ndarray, where: str = ""
) -> Section:
    """Show the parts that decided the worst mistakes. The probabilities, (N, 10), are those of the held-out rows."""
    title = f"Worst mistakes, and why{where}"
    worst = plots.surest_mistakes(probabilities, held_out.digits)[:8]
    if not len(worst):
        return Section(title, f"There is no mistake among {len(held_out):,} held-out rows.")
    try:
        predict = load_run(run.folder).predict
    except RunError as error:
        return Section(title, f"The trained form cannot be loaded: {error}")
    # An ensemble asks its classical member where the networks are not sure. So its nearest images are shown.
    recipe = next((member for member in run.recipe.members if not member.networks), run.recipe)
    pixels, probabilities = held_out.pixels[worst], probabilities[worst]
    near = nearest_rows(recipe, pixels, training, min(3, len(training)))
    read = probabilities.argmax(axis=1)
    maps = [occlusion_map(predict, image, int(digit)) for image, digit in zip(pixels, read, strict=True)]
    titles = plots.mistake_titles(probabilities, held_out.digits[worst])
    figure = plots.plot_reasons(pixels, titles, np.stack(maps), training.pixels[near], training.digits[near])
    return Section(
        title,
        "The surest mistakes come first. Orange marks the parts that speak for the reading: without them its "
        "probability falls. Blue marks those that speak against it. Beside them are the nearest training images.",
        figures={"the worst mistakes, with occlusion maps and the nearest training images": figure},
    )


def _find_rows(
    name: str, folder: Path, data: str | None, is_right: Callable[[TrainingRows], bool]
) -> tuple[TrainingRows, str] | str:
    """Find rows, wherever they are now, and the name of their source; or say why they were not found.

    A file in the folder names their source, but the user may name another one.
    """
    try:
        sources = [find_source(data)] if data else find_again(name, folder)
    except DataError as error:
        log.warning("%s", error)
        sources = []
    is_seen = False
    for source in sources:
        try:
            rows = load_train(source)
            is_seen = True
            if is_right(rows):
                return rows, source.name
        except DataError as error:
            log.warning("%s", error)
    where = _place(data or name)
    if is_seen:
        return f"The rows of {where} are others than those of the training, or were divided in another way."
    return f"The training rows were not found at {where}, nor where data usually is. Name them with --data."


def _place(name: str) -> str:
    """Return the name of a source on a page. A page may be read in another folder, so "." is replaced."""
    return "the folder that it ran in" if name == "." else name


def _submission_sections(run: Run) -> list[Section]:
    try:
        digits = read_submission(Path(run.submission)).digits if run.submission else None
    except SubmissionError:  # the file was changed or removed since
        return []
    if digits is None:
        return []
    figures = {"how often each digit was predicted": plots.plot_label_counts(np.array(digits))}
    return [Section("Labels of the submission", figures=figures)]


def _page_of_validation(validation: validate.Validation, data: str | None) -> Page:
    recipe, fields, digits = validation.recipe, validation.fields, validation.digits
    suspects = validate.suspect_labels(validation.probabilities, digits)
    by_fold = fields["fold_accuracies"]
    if recipe.networks:
        start_backend()
    sections = [
        Section(
            "Folds",
            head=("", *map(str, range(1, len(by_fold) + 1))),
            rows=[("accuracy", *(f"{accuracy:.2%}" for accuracy in by_fold))],
        ),
        Section(
            "Digits",
            head=("", *map(str, range(CLASSES))),
            rows=[
                ("accuracy", *("–" if share is None else f"{share:.2%}" for share in fields["digit_accuracies"])),
                ("rows", *(f"{count:,}" for count in np.bincount(digits, minlength=CLASSES))),
            ],
        ),
        _reading_section(validation.probabilities, digits),
    ]
    found = _find_rows(fields["data"], validation.folder, data, lambda rows: np.array_equal(rows.digits, digits))
    if isinstance(found, str):
        sections.append(Section("Worst mistakes", found))
    else:
        sections += _validation_mistakes(validation, found[0], suspects)
    parts = {
        "--recipe": recipe.name if recipe.name in RECIPES else recipe.source,
        "--folds": fields["folds"],
        "--repeat": fields["repeat"],
        "--seed": fields["seed"],
        "--data": fields["data"] if isinstance(found, str) else found[1],
        "--out": "again",
    }
    device = fields["device"]
    repeats = ", ".join(f"{accuracy:.3%}" for accuracy in fields["accuracies"])
    return Page(
        title=f"{recipe.name}, cross-validated over {fields['folds']} folds",
        lead=f"It reads {_accuracy(fields)} (1 standard error) of {fields['rows']:,} rows right, each with a model "
        f"that did not see it: {counted(fields['mistakes'], 'mistake')}.",
        facts=[
            ("Recipe", f"{recipe.name} ({recipe.source}): {recipe.summary}"),
            ("Rows", f"{fields['rows']:,} of {_place(fields['data'])}"),
            ("Spread over folds", f"{100 * fields['fold_std']:.3f} points (standard deviation)"),
            ("Repeats", f"{fields['repeat']}: {repeats}"),
            ("Seconds", f"{fields['seconds']:,.0f} to train and to read"),
            ("Device", f"{device['kind']}, {device['precision']} ({device['reason']})"),
            ("Versions", ", ".join(f"{name} {version}" for name, version in fields["versions"].items())),
            (
                "Labels that look wrong",
                "not judged: too many rows are misread for that"
                if suspects is None
                else f"{len(suspects):,}, listed in {validation.folder / validate.LABELS_FILE}",
            ),
        ],
        command=shlex.join(["kaggle-digits", "validate", *(str(part) for pair in parts.items() for part in pair)]),
        sections=sections,
        commit=fields["commit"],
    )


def _accuracy(fields: Mapping[str, Any]) -> str:
    return f"{fields['accuracy']:.3%} ± {fields['standard_error']:.3%}"


def _validation_mistakes(
    validation: validate.Validation, rows: TrainingRows, suspects: np.ndarray | None
) -> list[Section]:
    """Explain the worst mistakes of the first fold, and show those of all folds and suspicious labels."""
    folds, seed, probabilities = validation.fields["folds"], validation.fields["seed"], validation.probabilities
    numbers = np.arange(1, len(rows) + 1)
    sections = [_mistakes_section("The surest mistakes of all folds", rows, probabilities, numbers)]
    if (first := member_folder(validation.folder, 1, folds)).exists():
        training, held_out = Split(seed=seed, folds=folds, fold=0).of(rows)
        own = probabilities[fold_rows(rows, folds, seed=seed) == 0]
        sections.insert(0, _reasons_section(read_finished(first), training, held_out, own, ": in the first fold"))
    if suspects is not None and len(suspects):
        title, shown = "Labels that look wrong", suspects[:40]
        text = "Another digit is read at least as surely as that digit usually is. Look at them before you change any."
        sections.append(_mistakes_section(title, rows.take(shown), probabilities[shown], numbers[shown], text))
    return sections


def _page_of_folds(folder: Path) -> Page:
    comparison = read_json(folder / validate.COMPARISON_FILE)
    validations = [validate.load_validation(folder / name) for name in comparison["recipes"]]
    pairs = [validate.Pair(**pair) for pair in comparison["pairs"]]
    fields = validations[0].fields
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
                        validation.recipe.name,
                        _accuracy(validation.fields),
                        f"{validation.fields['mistakes']:,}",
                        f"{100 * validation.fields['fold_std']:.3f}",
                        f"{validation.fields['seconds']:,.0f}",
                        f"{validation.fields['parameters']:,}",
                    )
                    for validation in validations
                ],
            ),
            _pairs_section(pairs),
            _confusions_section(
                plots.plot_confusions({found.recipe.name: (found.probabilities, found.digits) for found in validations})
            ),
        ],
        commit=fields["commit"],
    )


def _pairs_section(pairs: Sequence[validate.Pair]) -> Section:
    return Section(
        "Which is better, and how surely",
        "p is the probability of such a difference, or a greater one, if both were equally good. It covers "
        "which rows were drawn, not the seeds of the trainings. Of many pairs, some are below 0.05 by chance; "
        "the verdict allows for that.",
        head=("difference", "points", "read better by the first", "by the second", "p", "verdict"),
        rows=[
            (
                f"{pair.first} − {pair.second}",
                f"{100 * pair.difference:+.3f} ± {100 * pair.standard_error:.3f}",
                f"{pair.only_first:,}",
                f"{pair.only_second:,}",
                validate.format_p(pair.p).removeprefix("p ").removeprefix("= "),
                validate.verdict(better),
            )
            for pair, better in zip(pairs, validate.find_better(pairs), strict=True)
        ],
    )


def describe_search(fields: Mapping[str, Any]) -> str:
    """Say what a search has found.

    Args:
        fields: as ``tune.tune`` returns them.
    """
    counted_rows = f"{fields['fewer_mistakes']:.0f} ± {fields['standard_error']:.0f}"
    if fields["is_better"]:
        return f"{counted_rows} fewer mistakes of {fields['rows']:,}"
    return f"no better than where you started ({counted_rows} fewer mistakes of {fields['rows']:,})"


def page_of_search(folder: Path) -> Page:
    """Return the page about a search in a folder."""
    fields = read_json(folder / TUNE_FILE)
    trials, names = fields["trials"], list(fields["trials"][0]["values"])
    figures = {"accuracy of each trial": plots.plot_trials([trial["accuracy"] for trial in trials])}
    if fields["importances"]:
        figures["how much of the differences each setting explains"] = plots.plot_shares(fields["importances"])
    ranked = sorted(trials, key=lambda trial: (trial["state"] != "complete", -(trial["accuracy"] or 0)))
    start, best = fields["fresh"]
    return Page(
        title=f"A search from {fields['recipe']}",
        lead=f"What the search found: {describe_search(fields)}. That and the recipe to start from were validated "
        "on folds and with seeds that the search did not see. ± is one standard error.",
        facts=[
            ("Found", best["recipe"] + (f", in {folder / 'best.toml'}" if fields["is_better"] else "")),
            ("Accuracy", f"{best['accuracy']:.3%}; of {start['recipe']}, {start['accuracy']:.3%}"),
            ("Chosen from", ", ".join(f"{each['recipe']}: {each['accuracy']:.3%}" for each in fields["few"])),
            ("Seconds", f"{fields['search_seconds']:,.0f} to search, {fields['fresh_seconds']:,.0f} to measure"),
        ],
        sections=[
            Section(
                "The search",
                "Each accuracy is the mean over the folds of the search. These figures are too high for the best "
                "trials, because the search chose by them. Trials whose first folds were bad were given up.",
                figures=figures,
            ),
            Section(
                "Trials",
                head=("trial", *names, "accuracy", "folds", "seconds"),
                rows=[
                    (
                        f"{trial['trial']}" + ("" if trial["state"] == "complete" else f", {trial['state']}"),
                        *(
                            f"{trial['values'][name]:.4g}"
                            if isinstance(trial["values"][name], float)
                            else str(trial["values"][name])
                            for name in names
                        ),
                        "–" if trial["accuracy"] is None else f"{trial['accuracy']:.3%}",
                        str(trial["folds"]),
                        f"{trial['seconds']:,.0f}",
                    )
                    for trial in ranked
                ],
            ),
        ],
        commit=fields["commit"],
    )


def _confusions_section(confusions: Mapping[str, Figure]) -> Section:
    text = "A colour stands for the same number of mistakes in all of them."
    return Section("Which digits are read as which", text, figures=confusions)


def describe(comparison: Mapping[str, Any]) -> str:
    """Return a comparison as a table for a terminal.

    Args:
        comparison: as ``compare.compare`` returns it.
    """
    titles = {"recipe": "recipe", "trainings": "n", "accuracy": "accuracy", "known": "theirs"}
    titles |= {"seconds": "train s", "prediction_seconds": "read s", "parameters": "weights"}
    table = _table(comparison, titles, missing="")
    widths = [max(map(len, texts)) for texts in zip(*table, strict=True)]
    widths[0] = max(widths[0], *(len(row["recipe"]) for row in comparison["recipes"]))
    lines = [
        f"{name:{widths[0]}} " + "  ".join(f"{text:>{width}}" for text, width in zip(texts, widths[1:], strict=True))
        for name, *texts in table
    ]
    lines += [f"{row['recipe']:{widths[0]}}  failed: {row['failed']}" for row in comparison["recipes"] if row["failed"]]
    return "\n".join([_what_was_done(comparison), *lines])


def _table(comparison: Mapping[str, Any], titles: Mapping[str, str], missing: str) -> list[list[str]]:
    """Return a table of the recipes that did not fail, its head first, without empty columns of published figures."""
    cells = [
        {
            "recipe": row["recipe"],
            "summary": row["summary"],
            "trainings": str(len(row["seeds"])),
            "accuracy": format_accuracy(row),
            "published": row["published"] if row["published"] != "none" else "",
            "known": "" if row["published_accuracy"] is None else f"{row['published_accuracy']:.2%}",
            "difference": "" if row["difference"] is None else f"{100 * row['difference']:+.2f}",
            "seconds": f"{row['train_seconds']:,.1f}",
            "prediction_seconds": f"{row['predict_seconds']:,.1f}",
            "parameters": f"{row['parameters']:,}",
        }
        for row in comparison["recipes"]
        if not row["failed"]
    ]
    published = {"published", "known", "difference"}
    shown = [name for name in titles if name not in published or any(row[name] for row in cells)]
    return [[titles[name] for name in shown], *([row[name] or missing for name in shown] for row in cells)]


def _what_was_done(comparison: Mapping[str, Any]) -> str:
    rows, done = comparison["rows"], [row for row in comparison["recipes"] if not row["failed"]]
    last = " Networks are scored with their last weights." if any(row.get("epochs") for row in done) else ""
    are_several = {len(row["seeds"]) > 1 for row in done}
    spreads = ["the standard deviation over the trainings"] * (True in are_several)
    spreads += ["the standard error, where there is one training"] * (False in are_several)
    spread = f" ± is {', or '.join(spreads)}." if spreads else ""
    return (
        f"Trained on the same {rows['training']:,} rows of {_place(comparison['data'])} and scored on the same "
        f"{rows['held_out']:,} held-out rows, which played no part in training.{last}{spread}"
    )


def format_accuracy(row: Mapping[str, Any]) -> str:
    """Return a row's accuracy in percent, with its standard deviation, or its standard error after one training.

    >>> format_accuracy({"accuracy": 0.98756, "accuracy_std": 0.0012})
    '98.76 ± 0.12%'
    """
    spread = row["accuracy_std"] if row["accuracy_std"] is not None else row.get("standard_error")
    return f"{100 * row['accuracy']:.2f}" + (f" ± {100 * spread:.2f}%" if spread is not None else "%")


def page_of_comparison(folder: Path, held_out: TrainingRows | None = None, data: str | None = None) -> Page:
    """Return the page about a comparison in a folder.

    Args:
        folder: the folder.
        held_out: the rows that were scored; None looks for them where the data was.
        data: where the data is now.
    """
    comparison = read_json(folder / COMPARE_FILE)
    readings: dict[str, Readings] = {}
    run: Run | None = None
    for row in comparison["recipes"]:
        if not row["failed"]:
            runs = [read_run(compare_run_folder(folder, row["recipe"], seed)) for seed in row["seeds"]]
            run = runs[0]
            readings[row["recipe"]] = (np.stack([each.probabilities for each in runs]), run.held_out_digits)
    if held_out is None and run and run.split:
        split, known = run.split, run.rows
        found = _find_rows(comparison["data"], folder, data, lambda rows: RowCounts.of(*split.of(rows)) == known)
        held_out = None if isinstance(found, str) else split.of(found[0])[1]
    return comparison_page(comparison, readings, held_out.pixels if held_out else None)


def compare_run_folder(out: Path, name: str, seed: int) -> Path:
    """Return the run folder of one training of a comparison."""
    return out / "runs" / f"{name}-seed{seed}"


def comparison_page(comparison: Mapping[str, Any], readings: Mapping[str, Readings], pixels: np.ndarray | None) -> Page:
    """Return the page about a comparison. What a class needs stands on its first sheet of paper.

    Args:
        comparison: as ``compare.compare`` returns it.
        readings: what each recipe reads, by its name.
        pixels: the held-out rows, (N, 784); None if they are not found.
    """
    rows = comparison["recipes"]
    titles = {"recipe": "recipe", "summary": "in a sentence"}
    titles |= {name: name for name in ("trainings", "accuracy", "published", "difference")}
    titles |= {"seconds": "seconds to train", "prediction_seconds": "to predict", "parameters": "parameters"}
    head, *cells = _table(comparison, titles, missing="–")
    of_done = iter(cells)
    table = [[row["recipe"], f"failed: {row['failed']}"] if row["failed"] else next(of_done) for row in rows]
    sections = [Section("", head=head, rows=table)]
    if len(readings) > 1:
        right = {name: (each.argmax(axis=2) == digits).mean(axis=0) for name, (each, digits) in readings.items()}
        ranked = sorted(right, key=lambda name: -float(right[name].mean()))
        named = [(name, right[name]) for name in ranked]
        sections.append(_pairs_section([validate.compare_pair(*two) for two in itertools.pairwise(named)]))
        sections.append(_two_section(ranked[:2], readings, pixels))
    others = []
    if networks := [row for row in rows if row.get("until") and row["loss_spread"] is not None]:
        others.append(_speed_section(networks))
    if readings:
        flat = {name: (each.reshape(-1, CLASSES), np.tile(true, len(each))) for name, (each, true) in readings.items()}
        others.append(_confusions_section(plots.plot_confusions(flat)))
    if others:
        sections += [replace(others[0], starts_page=True), *others[1:]]
    lead = f"{_what_was_done(comparison)} Seconds are medians."
    return Page(title="Recipes compared", lead=lead, sections=sections, commit=comparison["commit"])


def _two_section(names: Sequence[str], readings: Mapping[str, Readings], pixels: np.ndarray | None) -> Section:
    """Show the mistakes of two recipes side by side, after the first training of each."""
    first = {name: (readings[name][0][0], readings[name][1]) for name in names}
    figures = {f"{name}: digits read as others": figure for name, figure in plots.plot_confusions(first).items()}
    wrong = {name: plots.surest_mistakes(*reading) for name, reading in first.items()}
    for name, other in (names, names[::-1]):
        probabilities, digits = first[name]
        only = wrong[name][~np.isin(wrong[name], wrong[other])]
        shown = only[:12]
        if pixels is not None and len(shown):
            titles = plots.mistake_titles(probabilities[shown], digits[shown])
            caption = f"misread by {name}, but not by {other}: {len(shown)} of {len(only)}"
            figures[caption] = plots.plot_digits(pixels[shown], titles, columns=6)
    return Section(
        f"Mistakes of {names[0]} and {names[1]}", "A colour stands for the same number in both.", figures=figures
    )


def _speed_section(networks: Sequence[Mapping[str, Any]]) -> Section:
    targets = list(networks[0]["until"])
    rows = []
    for row in networks:
        reached = [row["until"][target] for target in targets]
        cells = [(f"{when['batches']:,.0f}", f"{when['seconds']:,.1f}") if when else ("–", "–") for when in reached]
        rows.append([row["recipe"], *(text for pair in cells for text in pair), f"{row['loss_spread']:.4f}"])
    until = [f"{unit} until {target}" for target in targets for unit in ("batches", "seconds")]
    return Section(
        "How fast, and how steady",
        "The table shows the median batches and seconds of training until that accuracy on the held-out rows was first "
        "measured. A dash means that not every training reached it. In the first epoch, the accuracy is measured "
        "whenever the number of batches has grown by a tenth, and then after each epoch. The time that measuring takes "
        "is not counted. The spread is the standard deviation of the loss over the last 200 batches.",
        head=["recipe", *until, "spread of the loss"],
        rows=rows,
    )
