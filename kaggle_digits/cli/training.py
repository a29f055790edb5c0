"""Verbs about recipes and where they train: recipes, train, compare, devices."""

from __future__ import annotations

import json as _json
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kaggle_digits.cli.options import (
    BACKEND,
    DATA,
    DEVICE,
    EPOCHS,
    FORCE,
    JSON,
    ONE_RUN,
    RECIPE,
    SEEDS,
    SHARD,
    TRAINING,
    count,
    index,
    option,
    part,
    path,
    several,
    verb,
)
from kaggle_digits.cli.output import TrainingProgress, exit_code_of, kept_if_interrupted
from kaggle_digits.errors import InputError, TrainingError
from kaggle_digits.recipe import to_json
from kaggle_digits.recipes import DEFAULT_RECIPE, RECIPES, find_recipe, load_measured

if TYPE_CHECKING:
    from kaggle_digits.recipe import Recipe
    from kaggle_digits.runs import Run
    from kaggle_digits.validate import Validation

FIGURES = (
    "HERE is the accuracy on 6,000 held-out rows of train.csv after training on the other 36,000; ± is the standard "
    "deviation over several trainings. PUBLISHED is what the authors report, mostly on MNIST's 60,000 and 10,000 rows. "
    "`kaggle-digits recipes --json` shows everything."
)
KEPT = "What is done is kept in {}. Repeat the command to continue."
SEVERAL = ("several processes", "one training by several processes or machines, with JAX; start the command in each")


@verb(
    "list the recipes, their sources, and what to expect of them",
    option("name", nargs="?", metavar="NAME", help="the recipe to print, with --toml"),
    option("--json", action="store_true", help="print everything about each recipe, for scripts"),
    option("--toml", action="store_true", help="print the recipe NAME as TOML, to start one of your own from"),
)
def recipes(*, name: str | None, json: bool, toml: bool) -> None:
    """Print the table of recipes, or one of them."""
    if (name is None) == toml:
        raise InputError("recipes: NAME and --toml belong together. Expected both or none. Add the missing one.")
    if name:
        from kaggle_digits.own import SUFFIXES, to_toml

        if name.endswith(SUFFIXES):
            raise InputError(f"recipes {name} --toml: a file of your own. Expected the name of a built-in recipe.")
        print(to_toml(find_recipe(name)), end="")
        return
    measured = load_measured()
    if json:
        _print_json([to_json(recipe) | {"measured": measured.get(recipe.name, "")} for recipe in RECIPES.values()])
        return
    table = [("RECIPE", "PUBLISHED", "HERE")]
    table += [(f"  {recipe.name}", recipe.published, measured.get(recipe.name, "–")) for recipe in RECIPES.values()]
    columns = [max(map(len, texts)) + 2 for texts in zip(*table, strict=True)]

    def line(texts: Sequence[str], what: str) -> str:
        return "".join(f"{text:{width}}" for text, width in zip(texts, columns, strict=True)) + what

    room = max(20, shutil.get_terminal_size().columns - sum(columns))
    print(line(table[0], "WHAT"))
    source = None
    for recipe, texts in zip(RECIPES.values(), table[1:], strict=True):
        if recipe.source != source:
            source = recipe.source
            print(f"\n{textwrap.fill(source, sum(columns) + room)}")
        default = " (the default)" if recipe.name == DEFAULT_RECIPE else ""
        first, *rest = textwrap.wrap(recipe.summary + default, room, break_on_hyphens=False)
        print(line(texts, first))
        for more in rest:
            print(" " * sum(columns) + more)
    print(f"\n{textwrap.fill(FIGURES, sum(columns) + room)}")


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
    option(
        "--member",
        type=part,
        metavar="I/N",
        help="train member I of N into DIR/I-of-N; all members hold out the same rows, and each has a seed of its own; "
        "predict --run DIR averages them",
    ),
    option(
        "--coordinator",
        metavar="HOST:PORT",
        group=SEVERAL,
        help="the address of process 0, or auto if the platform provides everything ($KDIGITS_COORDINATOR)",
    ),
    option("--processes", type=count, metavar="N", group=SEVERAL, help="their number ($KDIGITS_PROCESSES)"),
    option("--process", type=index, metavar="I", group=SEVERAL, help="this process, from 0 ($KDIGITS_PROCESS)"),
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
    member: tuple[int, int] | None,
    coordinator: str | None,
    processes: int | None,
    process: int | None,
    quiet: bool,
    json: bool,
) -> None:
    """Train a recipe, alone or together with other processes."""
    from kaggle_digits.cluster import find_cluster, in_own_process

    chosen = find_recipe(recipe, epochs=epochs, backend=backend)
    cluster = find_cluster(coordinator, processes, process)

    def work() -> None:
        from kaggle_digits.train import train_on

        where = run / f"{member[0]}-of-{member[1]}" if member else run
        kept = f"Whole epochs of a network are kept in {where}. Continue with --resume."
        with kept_if_interrupted(kept), TrainingProgress(quiet=quiet) as progress:
            trained = train_on(
                data,
                chosen,
                run,
                seed=seed,
                member=member,
                device=device,
                backend=backend,
                cluster=cluster,
                resume=resume,
                progress=progress,
            )
        print(_json.dumps(trained.summary()) if json else _describe_run(trained))

    if not cluster:
        work()
    elif code := in_own_process(lambda: exit_code_of(work)):
        sys.exit(code)  # the child process has said why


def _describe_run(run: Run) -> str:
    if run.device.process:
        return f"process {run.device.process} of {run.device.processes}: done; the first keeps the run"
    name = f"{run.folder}: {run.recipe.name}"
    if run.accuracy is None:
        return f"{name}, asked only where the networks are not sure. Combine all members without --member."
    return f"{name}, held-out accuracy {run.accuracy:.2%}"


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
    SHARD,
    option(
        "--folds",
        type=several,
        metavar="K",
        help="cross-validate each recipe over K folds, as the verb validate does, and say which of two is better",
    ),
    option("--test", action="store_true", help="score on the test rows, if they have labels, as MNIST's own files do"),
    *TRAINING,
)
def compare(
    *,
    recipes: str,
    repeat: int,
    out: Path,
    shard: tuple[int, int],
    folds: int | None,
    test: bool,
    data: str | None,
    device: str,
    backend: str | None,
    seed: int,
    quiet: bool,
) -> None:
    """Compare recipes."""
    from kaggle_digits.compare import compare
    from kaggle_digits.report import REPORT_FILE, describe

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
    if folds:
        where = {"data": data, "device": device, "backend": backend, "shard": shard}
        _compare_folds(chosen, out, quiet=quiet, folds=folds, repeat=repeat, seed=seed, **where)
        return
    with kept_if_interrupted(KEPT.format(out)), TrainingProgress(quiet=quiet) as progress:
        comparison = compare(
            chosen,
            out,
            data=data,
            seeds=range(seed, seed + repeat),
            device=device,
            backend=backend,
            shard=shard,
            on_test=test,
            progress=progress,
        )
    if shard == (1, 1):
        print(describe(comparison))
        print(f"\nreport  {out / REPORT_FILE}")
    failed = [row["recipe"] for row in comparison["recipes"] if row["failed"] and row["recipe"] in names]
    failed += comparison.get("failures", [])
    if failed:
        raise TrainingError(
            f"{', '.join(failed)}: failed, for the reasons above; the others are done. Repeat the command to try again."
        )
    if shard != (1, 1):
        print(f"{out}: part {shard[0]} of {shard[1]} is trained")


def _check_seeds(seed: int, repeat: int) -> None:
    if seed + repeat > SEEDS:
        raise InputError(
            f"--repeat {repeat}: needs the seeds {seed} to {seed + repeat - 1}. Expected none above {SEEDS - 1}. Lower "
            "one of the two."
        )


def _compare_folds(recipes: list[Recipe], out: Path, *, quiet: bool, **options: Any) -> None:
    from kaggle_digits.validate import PAIRS_FILE, compare_folds, find_better

    with kept_if_interrupted(KEPT.format(out)), TrainingProgress(quiet=quiet) as progress:
        found, pairs = compare_folds(recipes, out, **options, progress=progress)
    for validation in found:
        print(_describe_accuracy(validation))
    for pair, better in zip(pairs, find_better(pairs), strict=True):
        verdict = f"{better} reads more right" if better else "no clear difference"
        print(
            f"{pair.first} − {pair.second}: {100 * pair.difference:+.3f} ± {100 * pair.standard_error:.3f} points; "
            f"rows that only one reads right: {pair.only_first} and {pair.only_second}; {verdict} (p = {pair.p:.2g})"
        )
    print(
        f"table  {out / PAIRS_FILE}"
        if found
        else f"{out}: part {options['shard'][0]} of {options['shard'][1]} is trained"
    )


@verb(
    "cross-validate a recipe: predict every labelled row by a network that did not see it",
    RECIPE,
    option("--folds", type=several, default=5, metavar="K", help="parts of the rows, each held out once (default: 5)"),
    option(
        "--repeat", type=count, default=1, metavar="N", help="do it N times, with other folds and seeds (default: 1)"
    ),
    option("--out", required=True, type=path, metavar="DIR", help="where runs, figures, mistakes and probabilities go"),
    SHARD,
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
    shard: tuple[int, int],
    data: str | None,
    device: str,
    backend: str | None,
    seed: int,
    epochs: int | None,
    quiet: bool,
    json: bool,
) -> None:
    """Cross-validate a recipe."""
    from kaggle_digits.validate import LABELS_FILE, MISTAKES_FILE, ROWS_FILE, suspect_labels
    from kaggle_digits.validate import validate as cross_validate

    _check_seeds(seed, repeat)
    chosen = find_recipe(recipe, epochs=epochs, backend=backend)
    with kept_if_interrupted(KEPT.format(out)), TrainingProgress(quiet=quiet) as progress:
        found = cross_validate(
            chosen,
            out,
            data=data,
            folds=folds,
            repeat=repeat,
            seed=seed,
            device=device,
            backend=backend,
            shard=shard,
            progress=progress,
        )
    if not found:
        print(f"{out}: part {shard[0]} of {shard[1]} is trained")
        return
    fields = found.fields
    if json:
        print(_json.dumps(fields | {"folder": str(out)}))
        return
    accuracies = enumerate(fields["digit_accuracies"])
    digits = "  ".join(f"{digit}: {each:.2%}" for digit, each in accuracies if each is not None)
    print(
        f"{_describe_accuracy(found)}\n"
        f"folds     {'  '.join(f'{each:.2%}' for each in fields['fold_accuracies'])}\n"
        f"digits    {digits}\n"
        f"mistakes  {out / MISTAKES_FILE}, and a picture of the surest beside it\n"
        f"labels    {len(suspect_labels(found.probabilities, found.digits)):,} look wrong: {out / LABELS_FILE}\n"
        f"all rows  {out / ROWS_FILE}"
    )


def _describe_accuracy(found: Validation) -> str:
    fields = found.fields
    return (
        f"{found.recipe.name}: {fields['accuracy']:.3%} ± {fields['standard_error']:.3%} (1 standard error) of "
        f"{fields['rows']:,} rows, {fields['mistakes']:,} mistakes; standard deviation over folds "
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
    from kaggle_digits.report import report as write_report
    from kaggle_digits.submission import check_free

    if out:
        check_free(out, overwrite=force)
    print(write_report(folder, out, data=data))


@verb(
    "write a trained network as one file for other programs: pixels in, probabilities out",
    ONE_RUN,
    option(
        "--format",
        required=True,
        choices=("keras", "onnx", "litert"),
        help="keras: .keras, for Keras 3; onnx: .onnx, for ONNX Runtime; litert: .tflite, for phones (once TensorFlow "
        "Lite)",
    ),
    option("--out", required=True, type=path, metavar="FILE", help="the file to write"),
    FORCE,
    DATA,
)
def export(*, run: Path | None, format: str, out: Path, force: bool, data: str | None) -> None:  # noqa: A002
    """Export a run."""
    from kaggle_digits.export import export as write_file
    from kaggle_digits.predict import PACKAGED_RUN

    made = write_file(run or PACKAGED_RUN, format, out, data=data, overwrite=force)
    networks = f"{made.networks} networks, averaged" if made.networks > 1 else "1 network"
    without = f", without {' and '.join(made.left_out)}, which is no network" if made.left_out else ""
    print(
        f"{made.file}: {networks}{without}; {made.file.stat().st_size / 1e6:.1f} MB\n"
        f"verified on {made.rows:,} rows: all digits are the same, and no probability differs by more than "
        f"{made.difference:.1e}"
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
    from kaggle_digits import devices

    if not self_test:
        print(devices.describe_devices(device, backend))
        return
    table, passed = devices.self_test(device, backend)
    print(table)
    if not passed:
        raise TrainingError(
            "--self-test: a device failed, or differs from the CPU. Expected the same loss within 1 %. Do not train on "
            "a device that the table marks as failed."
        )
