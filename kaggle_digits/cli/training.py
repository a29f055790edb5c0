"""Verbs about recipes and where they train: recipes, train, compare, devices."""

from __future__ import annotations

import functools
import json as _json
import logging
import shutil
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaggle_digits.cli import (
    BACKEND,
    DATA,
    DEVICE,
    ENGINE,
    EPOCHS,
    FORCE,
    JSON,
    ONE_RUN,
    RECIPE,
    SEEDS,
    TRAINING,
    count,
    option,
    path,
    several,
    verb,
)
from kaggle_digits.cli.output import TrainingProgress, kept_if_interrupted, show
from kaggle_digits.errors import InputError, TrainingError
from kaggle_digits.recipe import Recipe, to_json
from kaggle_digits.recipes import DEFAULT_RECIPE, FOLDER, RECIPES, find_recipe, load_measured

if TYPE_CHECKING:
    from kaggle_digits.analysis.engine import Engine
    from kaggle_digits.analysis.validate import Pair, Validation
    from kaggle_digits.strategy import Device

log = logging.getLogger(__name__)

KEPT = "What is done is kept in {}. Repeat the command to continue."


@verb(
    "list the recipes and what to expect of them, or show one in full",
    option("name", nargs="?", metavar="NAME|FILE", help="the recipe to show"),
    option("--json", action="store_true", help="print everything about the recipes, or about NAME, for scripts"),
    option("--toml", action="store_true", help="print the recipe NAME as TOML, to start one of your own from"),
)
def recipes(*, name: str | None, json: bool, toml: bool) -> None:
    """Print the table of recipes, or one of them."""
    if toml and not name:
        raise InputError("recipes --toml: no recipe is named. Add its name, as in: kaggle-digits recipes fast --toml")
    measured = load_measured()
    if toml and name:
        if name.endswith((".toml", ".py")):
            raise InputError(f"recipes {name} --toml: a file of your own. Expected the name of a built-in recipe.")
        print(to_toml(find_recipe(name)), end="")
    elif json:
        chosen = [find_recipe(name)] if name else RECIPES.values()
        listed = [to_json(recipe) | {"measured": measured.get(recipe.name)} for recipe in chosen]
        _print_json(listed[0] if name else listed)
    elif name:
        show(_describe_recipe(find_recipe(name)))
    else:
        _print_table(measured)


def to_toml(recipe: Recipe) -> str:
    """Return a built-in recipe as TOML without its descriptions, to start from."""
    lines = (FOLDER / f"{recipe.name}.toml").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.partition(" = ")[0] not in Recipe.WORDS]
    head = f"# {recipe.name}, as this package has it. Name the file as you like: the recipe is named after it."
    return "\n".join([head, f'summary = "made from {recipe.name}"', *kept, ""])


def _print_table(measured: Mapping[str, Mapping[str, Any]]) -> None:
    """Print a line for each recipe, as wide as the terminal."""
    wide = max(map(len, RECIPES))
    room = max(24, shutil.get_terminal_size().columns - wide - 25)

    def line(name: str, accuracy: str, seconds: str, weights: str, words: str) -> str:
        few = words if len(words) <= room else words.partition(";")[0]
        return f"{name:{wide}}{accuracy:>8} {seconds:>6} {weights:>7}  {few}"

    print(line("RECIPE", "ACCURACY", "TIME", "WEIGHTS", "WHAT"))
    is_ours = True
    for recipe in RECIPES.values():
        if is_ours and recipe.published != "none" and recipe.name != "idm":
            is_ours = False
            show("\npublished by others")
        found = measured.get(recipe.name, {})
        print(
            line(
                recipe.name,
                found["accuracy"].partition(" ")[0].rstrip("%") + "%" if found else "–",
                _describe_seconds(found["seconds"]) if found else "–",
                _describe_number(found["parameters"]) if found.get("parameters") else "–",
                recipe.summary.replace(";", " (default);", 1) if recipe.name == DEFAULT_RECIPE else recipe.summary,
            )
        )
    figures = (
        "ACCURACY: on 6,000 held-out rows of train.csv, after training on the other 36,000. TIME: to train and to read "
        "these rows, on two cores. `kaggle-digits recipes NAME` shows everything about a recipe."
    )
    show(f"\n{textwrap.fill(figures, min(100, wide + room + 25))}")


def _describe_seconds(seconds: float) -> str:
    if seconds < 1:
        return "< 1 s"
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _describe_number(number: int) -> str:
    return f"{number / 1e6:.2f} M" if number >= 999_500 else f"{number / 1e3:.3g} k"


def _describe_recipe(recipe: Recipe) -> str:
    """Return everything about a recipe, for people."""
    found = load_measured().get(recipe.name) if RECIPES.get(recipe.name) == recipe else None
    facts = [("recipe", recipe.name), ("what", recipe.summary), ("source", recipe.source)]
    if recipe.published != "none":
        facts.append(("there", f"{recipe.published}, as published"))
    if found:
        spread = " (standard deviation over trainings)" if "±" in found["accuracy"] else ""
        facts.append(("here", f"{found['accuracy']}{spread} of 6,000 held-out rows, after training on 36,000"))
        facts.append(("time", f"{_describe_seconds(found['seconds'])} on two cores, to train and to read them"))
        if found["parameters"]:
            facts.append(("weights", f"{found['parameters']:,}"))
    if recipe.note:
        facts.append(("note", recipe.note))
    if recipe.members:
        facts.append(("members", ", ".join(member.name for member in recipe.members)))
    lines = [f"{name:9}{text}" for name, text in facts]
    settings = {
        name: value for name, value in to_json(recipe).items() if name not in {*Recipe.WORDS, "kind", "name", "members"}
    }
    if layers := settings.pop("layers", None):
        lines += ["layers", *(f"  {_describe_layer(layer)}" for layer in layers)]
    for name in ("optimizer", "estimator"):
        if name in settings:
            settings[name] = _describe_layer(settings[name])
    shown = {name: value for name, value in settings.items() if value not in (None, False, 0, 0.0)}
    lines += ["settings", *(f"  {name} = {value}" for name, value in shown.items())]
    return "\n".join(lines)


def _describe_layer(layer: Sequence[Any]) -> str:
    kind, options = layer
    return f"{kind}({', '.join(f'{name}={value!r}' for name, value in options.items())})"


def _print_json(value: object) -> None:
    print(_json.dumps(value, indent=1))


@verb(
    "train a recipe into a run folder, on all rows except those held out to measure it",
    option(
        "--recipe",
        required=True,
        metavar="NAME|FILE",
        help="a recipe, which the verb recipes lists, or a .toml or .py of your own",
    ),
    option("--run", required=True, type=path, metavar="DIR", help="the run folder to make"),
    *TRAINING,
    EPOCHS,
    option("--resume", action="store_true", help="continue the interrupted training in DIR"),
    JSON,
)
def train(
    *,
    recipe: str,
    run: Path,
    data: str | None,
    device: str,
    backend: str | None,
    seed: int,
    epochs: int | None,
    resume: bool,
    quiet: bool,
    json: bool,
) -> None:
    """Train a recipe."""
    from kaggle_digits.data import Split, find_source, load_train
    from kaggle_digits.learners import Context
    from kaggle_digits.strategy import device_of
    from kaggle_digits.train import train_run

    chosen = find_recipe(recipe, epochs=epochs, backend=backend)
    place = device_of(chosen, device, backend=backend)
    source = find_source(data)
    split = Split(fraction=chosen.validation_fraction, seed=seed)
    rows, held_out = split.of(load_train(source))
    log.info("Device: %s", place)
    kept = f"Whole epochs of a network are kept in {run}. Continue with --resume."
    with kept_if_interrupted(kept), TrainingProgress(quiet=quiet) as progress:
        context = Context(place, seed, source.name_for(run), split, progress)
        trained = train_run(chosen, rows, run, held_out=held_out, context=context, resume=resume)
    accuracy = f"{run}: {chosen.name}, held-out accuracy {trained.accuracy:.2%}"
    show(_json.dumps(trained.summary()) if json else accuracy)


@verb(
    "train recipes on the same rows, score them on the same held-out rows, and report",
    option(
        "--recipes", required=True, metavar="A,B,…", help="names of recipes, and files of your own; or the word all"
    ),
    option(
        "--repeat",
        type=count,
        default=1,
        metavar="N",
        help="trainings of each recipe, with seeds from --seed on (default: 1)",
    ),
    option("--out", required=True, type=path, metavar="DIR", help="where runs, tables and report go"),
    option(
        "--folds",
        type=several,
        metavar="K",
        help="cross-validate each recipe over K folds, as the verb validate does, and say which of two is better",
    ),
    option("--test", action="store_true", help="score on the test rows, if they have labels, as MNIST's own files do"),
    *ENGINE,
    *TRAINING,
)
def compare(
    *,
    recipes: str,
    repeat: int,
    out: Path,
    folds: int | None,
    test: bool,
    workers: int | None,
    scheduler: str | None,
    data: str | None,
    device: str,
    backend: str | None,
    seed: int,
    quiet: bool,
) -> None:
    """Compare recipes."""
    from kaggle_digits.analysis.compare import compare
    from kaggle_digits.analysis.report import REPORT_FILE, describe
    from kaggle_digits.analysis.validate import compare_folds
    from kaggle_digits.strategy import device_of_any

    _check_seeds(seed, repeat)
    given = list(RECIPES) if recipes == "all" else list(dict.fromkeys(recipes.split(",")))
    chosen = [find_recipe(name, backend=backend) for name in given]
    names = [recipe.name for recipe in chosen]
    if twice := sorted(name for name in set(names) if names.count(name) > 1):
        raise InputError(
            f"--recipes {recipes}: several are called {' and '.join(twice)}. Expected a name for each, which is that "
            "of its file. Rename one."
        )
    if folds and test:
        raise InputError("compare: --folds scores on labelled rows, and --test on test rows. Leave one of them out.")
    find_device = functools.partial(device_of_any, requested=device, backend=backend)
    with _open_engine(find_device, out, workers=workers, scheduler=scheduler, quiet=quiet) as engine:
        common: dict[str, Any] = {"data": data, "engine": engine}
        if folds:
            found, pairs = compare_folds(chosen, out, folds=folds, repeat=repeat, seed=seed, **common)
            show(_describe_pairs(found, pairs, out))
            return
        comparison = compare(chosen, out, seeds=range(seed, seed + repeat), on_test=test, **common)
    show(f"{describe(comparison)}\n\nreport  {out / REPORT_FILE}")
    failed = [row["recipe"] for row in comparison["recipes"] if row["failed"] and row["recipe"] in names]
    if failed:
        raise TrainingError(
            f"{', '.join(failed)}: failed, for the reasons above; the others are done. Repeat the command to try again."
        )


@verb(
    "search for better settings of a recipe, and measure what was found on folds that the search did not see",
    option("recipe", metavar="NAME|FILE", help="the recipe to start from"),
    option(
        "--vary",
        required=True,
        action="append",
        metavar="FIELD=VALUES",
        help="a field, and its values: epochs=4..12, peak=0.003..0.03:log or batch_size=64,128,256; may be repeated",
    ),
    option("--trials", type=count, default=40, metavar="N", help="settings to try (default: %(default)s)"),
    option("--folds", type=several, default=5, metavar="K", help="folds to score them on (default: %(default)s)"),
    option("--out", required=True, type=path, metavar="DIR", help="where trials, figures, report and best.toml go"),
    *ENGINE,
    *TRAINING,
    JSON,
)
def tune(
    *,
    recipe: str,
    vary: list[str],
    trials: int,
    folds: int,
    out: Path,
    workers: int | None,
    scheduler: str | None,
    data: str | None,
    device: str,
    backend: str | None,
    seed: int,
    quiet: bool,
    json: bool,
) -> None:
    """Tune a recipe."""
    from kaggle_digits.analysis import tune as search
    from kaggle_digits.analysis.report import REPORT_FILE, describe_search
    from kaggle_digits.strategy import device_of

    _check_seeds(seed, 4)
    chosen = find_recipe(recipe, backend=backend)
    find_device = functools.partial(device_of, requested=device, backend=backend)
    with _open_engine(find_device, out, workers=workers, scheduler=scheduler, quiet=quiet) as engine:
        found = search.tune(chosen, vary, out, data=data, trials=trials, folds=folds, seed=seed, engine=engine)
    if json:
        print(_json.dumps(found | {"folder": str(out)}))
        return
    file = f"; {out / search.BEST_FILE}" if found["is_better"] else ""
    show(f"{describe_search(found)}{file}\nreport  {out / REPORT_FILE}")


@contextmanager
def _open_engine(
    find_device: Callable[[Recipe], Device], out: Path, *, workers: int | None, scheduler: str | None, quiet: bool
) -> Iterator[Engine]:
    """Open an engine that shows its progress. If it is interrupted, say what is kept in the folder."""
    from kaggle_digits.analysis.cluster import open_engine

    with (
        kept_if_interrupted(KEPT.format(out)),
        TrainingProgress(quiet=quiet) as progress,
        open_engine(find_device, progress, workers=workers, scheduler=scheduler) as engine,
    ):
        yield engine


def _check_seeds(seed: int, repeat: int) -> None:
    if seed + repeat > SEEDS:
        raise InputError(
            f"--repeat {repeat}: needs the seeds {seed} to {seed + repeat - 1}. Expected none above {SEEDS - 1}. Lower "
            "one of the two."
        )


def _describe_pairs(found: list[Validation], pairs: list[Pair], out: Path) -> str:
    from kaggle_digits.analysis.validate import PAIRS_FILE, find_better, format_p, verdict

    lines = [_describe_accuracy(validation) for validation in found]
    lines += [
        f"{pair.first} − {pair.second}: {100 * pair.difference:+.3f} ± {100 * pair.standard_error:.3f} points; rows "
        f"that only one reads right: {pair.only_first} and {pair.only_second}; {verdict(better)} ({format_p(pair.p)})"
        for pair, better in zip(pairs, find_better(pairs), strict=True)
    ]
    return "\n".join([*lines, f"table  {out / PAIRS_FILE}"])


@verb(
    "cross-validate a recipe: predict every labelled row with a model that did not see it",
    RECIPE,
    option("--folds", type=several, default=5, metavar="K", help="parts of the rows, each held out once (default: 5)"),
    option(
        "--repeat", type=count, default=1, metavar="N", help="do it N times, with other folds and seeds (default: 1)"
    ),
    option("--out", required=True, type=path, metavar="DIR", help="where runs, figures, mistakes and probabilities go"),
    *ENGINE,
    *TRAINING,
    EPOCHS,
    JSON,
)
def validate(
    *,
    recipe: str,
    folds: int,
    repeat: int,
    out: Path,
    workers: int | None,
    scheduler: str | None,
    data: str | None,
    device: str,
    backend: str | None,
    seed: int,
    epochs: int | None,
    quiet: bool,
    json: bool,
) -> None:
    """Cross-validate a recipe."""
    from kaggle_digits.analysis.validate import LABELS_FILE, MISTAKES_FILE, ROWS_FILE, suspect_labels
    from kaggle_digits.analysis.validate import validate as cross_validate
    from kaggle_digits.strategy import device_of

    _check_seeds(seed, repeat)
    chosen = find_recipe(recipe, epochs=epochs, backend=backend)
    find_device = functools.partial(device_of, requested=device, backend=backend)
    with _open_engine(find_device, out, workers=workers, scheduler=scheduler, quiet=quiet) as engine:
        found = cross_validate(chosen, out, data=data, folds=folds, repeat=repeat, seed=seed, engine=engine)
    fields = found.fields
    if json:
        print(_json.dumps(fields | {"folder": str(out)}))
        return
    accuracies = enumerate(fields["digit_accuracies"])
    digits = "  ".join(f"{digit}: {each:.2%}" for digit, each in accuracies if each is not None)
    suspects = suspect_labels(found.probabilities, found.digits)
    labels = "not judged, since too many rows are misread"
    if suspects is not None:
        labels = f"{len(suspects):,} {'looks' if len(suspects) == 1 else 'look'} wrong"
    show(
        f"{_describe_accuracy(found)}\n"
        f"folds     {'  '.join(f'{each:.2%}' for each in fields['fold_accuracies'])}\n"
        f"digits    {digits}\n"
        f"mistakes  {out / MISTAKES_FILE}, and a picture of the surest beside it\n"
        f"labels    {labels}: {out / LABELS_FILE}\n"
        f"all rows  {out / ROWS_FILE}"
    )


def _describe_accuracy(found: Validation) -> str:
    from kaggle_digits.digits import counted

    fields = found.fields
    return (
        f"{found.recipe.name}: {fields['accuracy']:.3%} ± {fields['standard_error']:.3%} (1 standard error) of "
        f"{fields['rows']:,} rows, {counted(fields['mistakes'], 'mistake')}; standard deviation over folds "
        f"{100 * fields['fold_std']:.3f} points; {fields['seconds']:,.0f} s"
    )


@verb(
    "write one HTML page about a run, an ensemble, a validation or a comparison",
    option("folder", type=path, metavar="DIR", help="what train, submit, validate or compare has left"),
    option("--out", type=path, metavar="FILE.html", help="the file to write (default: report.html in DIR)"),
    option("--data", metavar="PATH", help="the training rows, if they are no longer where the run found them"),
    FORCE,
)
def report(*, folder: Path, out: Path | None, data: str | None, force: bool) -> None:
    """Write a report."""
    from kaggle_digits.analysis.report import report as write_report
    from kaggle_digits.submission import check_free

    if out:
        check_free(out, overwrite=force)
    show(str(write_report(folder, out, data=data)))


@verb(
    "write a trained network as one file for other programs: pixels in, probabilities out",
    ONE_RUN,
    option(
        "--format",
        required=True,
        choices=("keras", "onnx", "litert", "web"),
        help="keras: .keras, for Keras 3; onnx: .onnx, for ONNX Runtime; litert: .tflite, for phones (once TensorFlow "
        "Lite); web: .html, a page to draw on",
    ),
    option("--out", required=True, type=path, metavar="FILE", help="the file to write"),
    FORCE,
    DATA,
)
def export(*, run: Path | None, format: str, out: Path, force: bool, data: str | None) -> None:  # noqa: A002
    """Export a run."""
    from kaggle_digits.export.formats import FORMATS
    from kaggle_digits.export.formats import export as write_file
    from kaggle_digits.learners import PACKAGED_RUN

    made = write_file(run or PACKAGED_RUN, format, out, data=data, overwrite=force)
    networks = f"{made.networks} networks, averaged" if made.networks > 1 else "1 network"
    without = f", without {' and '.join(made.left_out)}, which is not a network" if made.left_out else ""
    show(
        f"{made.file}: {networks}{without}; {made.file.stat().st_size / 1e6:.1f} MB\n"
        f"verified on {made.rows:,} rows: all digits are the same, and no probability differs by more than "
        f"{made.difference:.1e}\n"
        f"needs {FORMATS[format].lowest} or newer"
    )


@verb(
    "list the devices, say which one would be used, and why the others would not",
    DEVICE,
    BACKEND,
    option(
        "--self-test",
        action="store_true",
        help="train 50 steps on every device found, with every backend installed, and compare with the CPU",
    ),
)
def devices(*, device: str, backend: str | None, self_test: bool) -> None:
    """Describe or test the devices."""
    from kaggle_digits.analysis import self_test as devices

    if not self_test:
        show(devices.describe_devices(device, backend))
        return
    table, passed = devices.self_test(device, backend)
    show(table)
    if not passed:
        raise TrainingError(
            "--self-test: a device failed, or differs from the CPU. Expected the same loss within 1%. Do not train on "
            "a device that the table marks as failed."
        )
