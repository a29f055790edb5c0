"""``kaggle-digits VERB``: a thin command line; whatever is slow to import is imported inside the verbs."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import math
import os
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kaggle_digits
from kaggle_digits.backend import BACKENDS
from kaggle_digits.cluster import Cluster, find_cluster, in_own_process
from kaggle_digits.config import (
    DEFAULT_RECIPE,
    SAMPLE,
    TEST_ROWS,
    DigitsError,
    Ensemble,
    InputError,
    Network,
    TrainingError,
    atomic_path,
)
from kaggle_digits.measured import MEASURED
from kaggle_digits.recipes import RECIPES, find_recipe
from kaggle_digits.strategy import DEVICES

if TYPE_CHECKING:
    from kaggle_digits.recognize import Reader
    from kaggle_digits.strategy import Device
    from kaggle_digits.submit import Plan, Result

log = logging.getLogger(__name__)

DATA_HELP = (
    "a folder, the competition's zip, a CSV file, or the word sample; without it: $KDIGITS_DATA, Kaggle's mounts, "
    "./data, the download cache, sample"
)

FIGURES = (
    "Here: accuracy on 6,000 held-out rows of train.csv after training on the other 36,000; ± is the standard "
    "deviation over several trainings. Published: as the authors say, mostly on MNIST's 60,000 and 10,000 rows. "
    "`kaggle-digits recipes --json` has everything."
)

SEEDS = 2**32
"""How many there are, from 0 on: what NumPy, scikit-learn and Keras share."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb and return the exit code: 0 done, 1 the work failed, 2 the input is wrong, 130 interrupted."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("kaggle_digits").setLevel(logging.INFO)
    return _run(lambda: options.verb(options))


def _run(work: Callable[[], None]) -> int:
    """Do the work of a verb, say what went wrong, and return the exit code."""
    try:
        work()
        sys.stdout.flush()
    except DigitsError as error:
        print(f"kaggle-digits: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # as in `kaggle-digits recipes | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except OSError as error:  # a full disk, a folder that may not be written to
        print(
            f"kaggle-digits: {error}. Expected a file that can be read or written. Check its permissions and the space "
            "left on the disk.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kaggle-digits",
        description="From train.csv and test.csv of Kaggle's digit-recognizer competition to a checked submission.csv.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {kaggle_digits.__version__}")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        command = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.set_defaults(verb=run)
        return command

    def data(command: argparse.ArgumentParser) -> None:
        command.add_argument("--data", metavar="PATH", help=DATA_HELP)

    def backend(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "--backend",
            choices=BACKENDS,
            help="what computes under Keras (default: $KERAS_BACKEND, else JAX on a TPU that only JAX can use, else "
            "TensorFlow)",
        )

    def training(command: argparse.ArgumentParser) -> None:
        data(command)
        command.add_argument("--device", choices=DEVICES, default="auto", help="where to train (default: %(default)s)")
        backend(command)
        command.add_argument(
            "--seed", type=_seed, default=0, metavar="N", help="same seed, same result (default: %(default)s)"
        )

    def one_run(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "--run", type=Path, metavar="DIR", help="a run folder (default: the small network of the package)"
        )

    def epochs(command: argparse.ArgumentParser) -> None:
        command.add_argument("--epochs", type=_count, metavar="N", help="instead of the recipe's own")

    submit = verb("submit", _submit, "train, validate, predict, and write a checked submission file")
    submit.add_argument(
        "--recipe", default=DEFAULT_RECIPE, metavar="NAME", help="see the verb recipes (default: %(default)s)"
    )
    training(submit)
    epochs(submit)
    submit.add_argument(
        "--out", type=Path, metavar="FILE", help="the file to write (default: a new name in submissions/)"
    )
    submit.add_argument("--force", action="store_true", help="replace FILE if it exists")
    submit.add_argument("--upload", action="store_true", help="submit the file to Kaggle, and wait for its score")
    submit.add_argument("-m", "--message", metavar="TEXT", help="the description of the submission, with --upload")
    submit.add_argument("--dry-run", action="store_true", help="say what would happen, and stop")

    recipes = verb("recipes", _recipes, "list what can be trained, its source, and what to expect of it")
    recipes.add_argument("--json", action="store_true", help="everything about each recipe, for scripts")

    train = verb("train", _train, "train a recipe into a run folder, on all rows but those held out to measure it")
    train.add_argument("--recipe", required=True, metavar="NAME", help="see the verb recipes")
    train.add_argument("--run", required=True, type=Path, metavar="DIR", help="the run folder to make")
    training(train)
    epochs(train)
    train.add_argument("--resume", action="store_true", help="continue the interrupted training in DIR")
    train.add_argument(
        "--member",
        type=_part,
        metavar="I/N",
        help="one of N trainings with seeds of their own and the same held-out rows, into DIR/I-of-N; predict "
        "--run DIR averages them",
    )
    several = train.add_argument_group(
        "several processes", "one training by several processes or machines, with JAX; start the command in each"
    )
    several.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="address of process 0, or auto where the platform knows all ($KDIGITS_COORDINATOR)",
    )
    several.add_argument("--processes", type=_count, metavar="N", help="how many ($KDIGITS_PROCESSES)")
    several.add_argument("--process", type=_index, metavar="I", help="this one, from 0 ($KDIGITS_PROCESS)")

    predict = verb("predict", _predict, "predict the test rows with one or several runs, averaged")
    predict.add_argument(
        "--run",
        type=Path,
        action="append",
        metavar="DIR",
        help="a run folder; may be repeated (default: the small network that comes with the package)",
    )
    data(predict)
    backend(predict)
    predict.add_argument("--out", required=True, type=Path, metavar="FILE", help="the submission file to write")
    predict.add_argument("--force", action="store_true", help="replace FILE if it exists")

    compare = verb(
        "compare", _compare, "train recipes on the same rows, score them on the same held-out rows, and report"
    )
    compare.add_argument("--recipes", required=True, metavar="A,B,…", help="names of recipes, or the word all")
    compare.add_argument(
        "--repeat",
        type=_count,
        default=1,
        metavar="N",
        help="trainings of each, with seeds from --seed on (default: 1)",
    )
    compare.add_argument("--out", required=True, type=Path, metavar="DIR", help="where runs, tables and report go")
    compare.add_argument(
        "--shard",
        type=_part,
        default=(1, 1),
        metavar="I/N",
        help="train only one of N parts, and write no table: the command without --shard, given last, does",
    )
    training(compare)

    recognize = verb("recognize", _recognize, "read the digits of photographs and scans: your own handwriting")
    recognize.add_argument(
        "pictures", nargs="+", type=Path, metavar="IMAGE|FOLDER", help="pages, or single digits named NUMBER_LABEL.png"
    )
    one_run(recognize)
    backend(recognize)
    recognize.add_argument("--json", action="store_true", help="one JSON object per picture and line, for scripts")
    recognize.add_argument(
        "--single",
        action="store_true",
        help="every picture holds exactly one digit (taken for granted where file names carry labels)",
    )
    recognize.add_argument(
        "--threshold",
        type=_probability,
        metavar="P",
        help="a digit that is less sure is given as ? (default: 0.9)",
    )
    recognize.add_argument("--overlay", type=Path, metavar="FILE.png", help="draw what was read on the picture")
    recognize.add_argument(
        "--mistakes", type=Path, metavar="FILE.png", help="draw the worst mistakes; for pictures with labels"
    )

    recognize.add_argument("--force", action="store_true", help="replace what is drawn if it exists")

    pad = verb("pad", _pad, "a page in your browser to draw digits on, or to drop photographs on")
    one_run(pad)
    backend(pad)
    pad.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="who can open it (default: %(default)s)")
    pad.add_argument("--port", type=_index, default=8000, metavar="N", help="0 takes a free one (default: %(default)s)")

    devices = verb("devices", _devices, "what there is to train on, what would be used, and why the rest is not")
    devices.add_argument("--device", choices=DEVICES, default="auto", help="what to ask for (default: %(default)s)")
    backend(devices)
    devices.add_argument(
        "--self-test",
        action="store_true",
        help="train 50 steps on every device found, with every backend installed, and compare with the CPU",
    )

    check = verb("check", _check, "say whether a file is a valid submission; exit code 0 or 2")
    check.add_argument("file", type=Path, metavar="FILE")
    data(check)

    download = verb("download", _download, "download the competition's zip from Kaggle, into the cache")
    download.add_argument("--to", type=Path, metavar="DIR", help="another folder to download into")

    upload = verb("upload", _upload, "check a file and submit it to Kaggle, at most once")
    upload.add_argument("file", type=Path, metavar="FILE")
    upload.add_argument("-m", "--message", required=True, metavar="TEXT", help="the description of the submission")
    upload.add_argument("--wait", action="store_true", help="wait for the public score")

    kernel = verb(
        "kernel", _kernel, "the notebook on Kaggle's machines: build it, push it, or push it and submit its result"
    )
    kernel.add_argument(
        "step",
        choices=("build", "push", "run"),
        help="build: write a notebook that carries the package; push: send it to Kaggle, where it runs; run: push, "
        "wait, fetch, check and submit",
    )
    kernel.add_argument(
        "--device",
        choices=DEVICES,
        default="auto",
        help="the machine to ask for; the notebook stops if it is not there (default: %(default)s, a CPU)",
    )
    kernel.add_argument("--to", type=Path, metavar="DIR", help="where build writes (default: build/kernel)")
    kernel.add_argument("-m", "--message", metavar="TEXT", help="the description of the submission that run makes")
    return parser


def _seed(text: str) -> int:
    """Parse a seed."""
    if not (text.isascii() and text.isdigit() and int(text) < SEEDS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {SEEDS - 1}")
    return int(text)


def _count(text: str) -> int:
    """Parse a whole number from 1 on."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _index(text: str) -> int:
    """Parse a whole number from 0 on."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _probability(text: str) -> float:
    """Parse a probability."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def _part(text: str) -> tuple[int, int]:
    """Parse I/N, the I-th of N parts."""
    part, _, parts = text.partition("/")
    if not (text.isascii() and part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N, a part from 1 to N of N")
    return int(part), int(parts)


def _submit(options: argparse.Namespace) -> None:
    from kaggle_digits.submit import plan_submission, submit

    if options.upload != (options.message is not None):
        raise InputError("submit: --upload and -m belong together. Expected both or none. Add the missing one.")
    plan = plan_submission(
        data=options.data,
        recipe=options.recipe,
        out=options.out,
        device=options.device,
        backend=options.backend,
        seed=options.seed,
        epochs=options.epochs,
        overwrite=options.force,
    )
    if options.upload and plan.source.is_sample:
        raise InputError(
            f"--upload: there is no competition data but the built-in {SAMPLE}. Expected predictions for the "
            "competition's test rows. Fetch the data with `kaggle-digits download`, or name it with --data."
        )
    if options.dry_run:
        print(_describe_plan(plan) + ("\nupload  " + options.message if options.upload else ""))
        return
    if options.upload:  # what would stop the upload is worth knowing before the training
        from kaggle_digits.competition import check_ready

        check_ready(len(plan.test_pixels))
    try:
        with _Progress() as progress:
            result = submit(plan, progress=progress)
    except KeyboardInterrupt:
        print("Whole epochs of a network are kept in runs/. Repeat the command to continue.", file=sys.stderr)
        raise
    print(_describe_result(result))
    if options.upload:
        _submit_made_file(plan.out, options.message, len(plan.test_pixels))


def _recipes(options: argparse.Namespace) -> None:
    if options.json:
        described = [
            dataclasses.asdict(recipe) | {"measured": MEASURED.get(recipe.name, "")} for recipe in RECIPES.values()
        ]
        print(json.dumps(described, indent=1, ensure_ascii=False))
        return
    table = [("RECIPE", "PUBLISHED", "HERE")]
    table += [(f"  {recipe.name}", recipe.published, MEASURED.get(recipe.name, "–")) for recipe in RECIPES.values()]
    columns = [max(map(len, texts)) + 2 for texts in zip(*table, strict=True)]

    def line(texts: Sequence[str], what: str) -> str:
        return "".join(f"{text:{width}}" for text, width in zip(texts, columns, strict=True)) + what

    room = max(20, shutil.get_terminal_size().columns - sum(columns))
    print(line(table[0], "WHAT"))
    source = None
    for recipe, texts in zip(RECIPES.values(), table[1:], strict=True):
        if recipe.source != source:
            source = recipe.source
            print(f"\n{source}")
        default = " (the default)" if recipe.name == DEFAULT_RECIPE else ""
        first, *rest = textwrap.wrap(recipe.summary + default, room, break_on_hyphens=False)
        print(line(texts, first))
        for more in rest:
            print(" " * sum(columns) + more)
    print(f"\n{textwrap.fill(FIGURES, sum(columns) + room)}")


def _train(options: argparse.Namespace) -> None:
    cluster = find_cluster(options.coordinator, options.processes, options.process)
    if not cluster:
        _train_here(options, None)
    elif code := in_own_process(lambda: _run(lambda: _train_here(options, cluster))):
        sys.exit(code)  # the child has said why


def _train_here(options: argparse.Namespace, cluster: Cluster | None) -> None:
    from kaggle_digits.data import find_source, load_train, split_rows
    from kaggle_digits.runs import member_folder, member_seed
    from kaggle_digits.strategy import device_of
    from kaggle_digits.train import train_run

    recipe = find_recipe(options.recipe, epochs=options.epochs)
    folder, seed, scored = options.run, options.seed, True
    if options.member:
        if isinstance(recipe, Ensemble):
            if options.member[1] != recipe.size:
                raise InputError(
                    f"--member {options.member[0]}/{options.member[1]}: {recipe.name} has {recipe.size} members. "
                    f"Expected I/{recipe.size}. Correct it, or leave it out to train all."
                )
            recipe = recipe.members[options.member[0] - 1]
            scored = isinstance(recipe, Network)  # as when all members are trained
            if not scored and not cluster:  # one command for all members, whatever they run on
                options.device, options.backend = "auto", None
        folder, seed = member_folder(folder, *options.member), member_seed(seed, *options.member)
    source = find_source(options.data)
    rows, held_out = split_rows(load_train(source), fraction=recipe.validation_fraction, seed=options.seed)
    device = device_of(recipe, options.device, backend=options.backend, cluster=cluster)
    try:
        with _Progress() if device.process == 0 else contextlib.nullcontext() as progress:
            run = train_run(
                recipe,
                rows,
                folder,
                seed=seed,
                device=device,
                source=source.name,
                held_out=held_out if scored else None,
                resume=options.resume,
                progress=progress,
            )
    except KeyboardInterrupt:
        print(f"Whole epochs of a network are kept in {folder}. Continue with --resume.", file=sys.stderr)
        raise
    if device.process:
        print(f"process {device.process} of {device.processes}: done; the first keeps the run")
        return
    if scored:
        print(f"{folder}: {recipe.name}, held-out accuracy {run.record['epochs'][-1]['validation_accuracy']:.2%}")
    else:
        print(f"{folder}: {recipe.name}, to be asked where the networks are not sure. Gather all without --member.")


def _predict(options: argparse.Namespace) -> None:
    from kaggle_digits.data import find_source, load_test
    from kaggle_digits.predict import PACKAGED_RUN, load_run, predict_digits, predict_probabilities
    from kaggle_digits.records import check_record_free, write_record
    from kaggle_digits.runs import read_run, recipe_of, run_folders
    from kaggle_digits.strategy import device_of
    from kaggle_digits.submission import check_free, check_submission, write_submission
    from kaggle_digits.submit import submission_name

    source = find_source(options.data)
    if not options.run:
        log.info("No --run: the small network of the package predicts, in %s", PACKAGED_RUN)
    folders = [folder for named in options.run or [PACKAGED_RUN] for folder in run_folders(named)]
    records = [read_run(folder) for folder in folders]
    out = submission_name(
        options.out, stem="", from_sample=source.is_sample or any(record["source"] == SAMPLE for record in records)
    )
    check_free(out, overwrite=options.force)
    check_record_free(out, overwrite=options.force)
    pixels = load_test(source)
    places: dict[str, Device] = {}  # the same for all, but for the precision
    probabilities = []
    for folder, recipe in zip(folders, map(recipe_of, records), strict=True):
        precision = recipe.precision if isinstance(recipe, Network | Ensemble) else ""
        if precision not in places:
            places[precision] = device_of(recipe, backend=options.backend if precision else None)
        run = load_run(folder, places[precision])
        probabilities.append(predict_probabilities(run.model, recipe, pixels, device=places[precision]))
    write_submission(out, predict_digits(probabilities), overwrite=options.force)
    check_submission(out, rows=len(pixels))
    write_record(out, records)
    print(f"{out}: {len(pixels):,} rows")


def _compare(options: argparse.Namespace) -> None:
    from kaggle_digits.compare import REPORT_FILE, compare
    from kaggle_digits.report import describe

    if options.seed + options.repeat > SEEDS:
        raise InputError(
            f"--repeat {options.repeat}: needs the seeds {options.seed} to {options.seed + options.repeat - 1}. "
            f"Expected none above {SEEDS - 1}. Lower one of the two."
        )
    names = list(RECIPES) if options.recipes == "all" else options.recipes.split(",")
    try:
        with _Progress() as progress:
            comparison = compare(
                [find_recipe(name) for name in dict.fromkeys(names)],
                options.out,
                data=options.data,
                seeds=range(options.seed, options.seed + options.repeat),
                device=options.device,
                backend=options.backend,
                shard=options.shard,
                progress=progress,
            )
    except KeyboardInterrupt:
        print(f"What is done is kept in {options.out}. Repeat the command to continue.", file=sys.stderr)
        raise
    if options.shard == (1, 1):
        print(describe(comparison))
        print(f"\nreport  {options.out / REPORT_FILE}")
    failed = [row["recipe"] for row in comparison["recipes"] if row["failed"] and row["recipe"] in names]
    failed += comparison.get("failures", [])
    if failed:
        raise TrainingError(
            f"{', '.join(failed)}: failed, for the reasons above; the others are done. Expected all to be "
            "trained. Repeat the command to try them again."
        )
    if options.shard != (1, 1):
        print(f"{options.out}: part {options.shard[0]} of {options.shard[1]} is trained")


def _recognize(options: argparse.Namespace) -> None:
    from kaggle_digits.recognize import (
        THRESHOLD,
        describe,
        draw_overlay,
        find_labels,
        find_pictures,
        plot_mistakes,
        read_files,
        tabulate,
        text_of,
    )
    from kaggle_digits.submission import check_free

    files = find_pictures(options.pictures)
    labels = find_labels(files)
    single = options.single or labels is not None
    if options.overlay and len(files) > 1:
        raise InputError(f"--overlay: {len(files)} pictures were given. Expected one. Draw on one at a time.")
    if options.mistakes and labels is None:
        raise InputError("--mistakes: the pictures have no labels. Expected names like 0012_7.png. Leave it out.")
    for wanted in filter(None, (options.overlay, options.mistakes)):
        if wanted.suffix.lower() != ".png":
            raise InputError(f"{wanted}: what is drawn is a PNG file. Expected a name ending in .png. Change it.")
        check_free(wanted, overwrite=options.force)
    threshold = THRESHOLD if options.threshold is None else options.threshold
    digits = read_files(files, _reader(options), single=single)
    for file, found in zip(files, digits, strict=True):
        if options.json:
            print(json.dumps(describe(str(file), found, threshold=threshold)))
        elif labels is None:
            text = text_of(found, threshold=threshold)
            lines = text or ["(no digits found)"]
            # Not every name can be printed everywhere.
            name = str(file).encode("utf-8", "backslashreplace").decode("utf-8")
            print("\n".join(lines if len(files) == 1 else [f"{name}:", *(f"  {line}" for line in lines)]))
    if labels is not None and not options.json:
        print(tabulate(digits, labels, threshold=threshold))
    if options.overlay:
        _save(options.overlay, draw_overlay(files[0], digits[0], threshold=threshold).save)
    if options.mistakes and labels is not None:
        _save(options.mistakes, plot_mistakes(digits, labels).savefig)


def _reader(options: argparse.Namespace) -> Reader:
    from kaggle_digits.predict import PACKAGED_RUN
    from kaggle_digits.recognize import Reader

    return Reader(options.run or PACKAGED_RUN, backend=options.backend)


def _save(path: Path, save: Callable[[Path], None]) -> None:
    with atomic_path(path) as partial:
        save(partial)
    log.info("Wrote %s", path)


def _pad(options: argparse.Namespace) -> None:
    try:
        from kaggle_digits.pad import serve
    except ImportError as error:
        raise InputError(
            f"pad: the package {error.name} is missing. Expected the extra [pad]. Add it: "
            "pip install 'kaggle-digits[pad]'"
        ) from error
    serve(lambda: _reader(options), host=options.host, port=options.port)


def _devices(options: argparse.Namespace) -> None:
    from kaggle_digits.devices import describe_devices, self_test

    if options.self_test:
        table, passed = self_test(options.device, options.backend)
        print(table)
        if not passed:
            raise TrainingError(
                "--self-test: a device computes something else than the CPU, or failed. Expected the same loss within "
                "1 %. Do not train there; the table says where."
            )
        return
    print(describe_devices(options.device, options.backend))


def _check(options: argparse.Namespace) -> None:
    from kaggle_digits.data import expected_rows, find_competition
    from kaggle_digits.submission import check_submission

    rows, counted_in = expected_rows(find_competition(options.data), named=options.data is not None)
    counts = check_submission(options.file, rows=rows, counted_in=counted_in)
    print(f"{options.file}: valid, {rows:,} rows as in {counted_in}; {_describe_counts(counts)}")


def _download(options: argparse.Namespace) -> None:
    from kaggle_digits.competition import download
    from kaggle_digits.data import ZIP_NAME, cache_folder

    path = download(options.to or cache_folder(), quiet=not sys.stderr.isatty())
    found_by_itself = not options.to and path.name == ZIP_NAME
    hint = "" if found_by_itself else f"; name it with --data {path}"
    print(f"{path}: whole, {path.stat().st_size / 1e6:.1f} MB{hint}")


def _upload(options: argparse.Namespace) -> None:
    _submit_file(options.file, options.message, wait=options.wait)


def _submit_made_file(file: Path, message: str, rows: int | None = None) -> None:
    """Submit a file that took long to make, and say how to go on where that fails."""
    from kaggle_digits.records import read_record

    try:
        _submit_file(file, message, wait=True, rows=rows)
    except (DigitsError, KeyboardInterrupt):
        # What Kaggle could not score would fail again.
        if (read_record(file)["upload"] or {}).get("state") != "error":
            again = f"kaggle-digits upload {file} -m {shlex.quote(message)} --wait"
            print(f"The file is kept. To go on: {again}", file=sys.stderr)
        raise


def _submit_file(file: Path, message: str, *, wait: bool, rows: int | None = None) -> None:
    from kaggle_digits.competition import upload, wait_for_score
    from kaggle_digits.connection import competition_slug
    from kaggle_digits.records import rank_of

    submission = upload(file, message, rows=rows)
    print(f"{file}: submitted to {competition_slug()} as {submission.reference}", flush=True)
    if wait or submission.state != "pending":
        submission = wait_for_score(file, submission)
        rank = rank_of(file)
        place = (
            f", rank {rank[0]} of {rank[1]} among the scored files of {file.absolute().parent.name}/" if rank else ""
        )
        print(f"public score  {submission.public_score or 'not published'}{place}")
    print(f"page          {submission.url}")


def _kernel(options: argparse.Namespace) -> None:
    if options.to and options.step != "build":
        raise InputError(f"kernel {options.step}: --to says where build writes. Expected it with build. Leave it out.")
    if options.message and options.step != "run":
        raise InputError(f"kernel {options.step}: -m describes what run submits. Expected it with run. Leave it out.")
    if options.step == "build":
        from kaggle_digits.notebook import build_kernel

        for path in build_kernel(options.to or Path("build/kernel"), device=options.device):
            print(path)
        return
    from kaggle_digits import kernel

    if options.step == "run":  # what would stop the upload is worth knowing before the kernel runs
        from kaggle_digits.competition import check_ready

        check_ready(TEST_ROWS)
    pushed = kernel.push(device=options.device)
    print(f"{pushed.name}: version {pushed.version} runs at {pushed.url}", flush=True)
    if options.step == "run":
        try:
            file = kernel.fetch(pushed)
        except KeyboardInterrupt:
            print(f"It goes on running. Fetch its submission.csv at {pushed.url}", file=sys.stderr)
            raise
        print(f"{file}: fetched", flush=True)
        _submit_made_file(file, options.message or f"{pushed.name}, version {pushed.version}")


def _describe_counts(counts: list[int]) -> str:
    return "  ".join(f"{digit}: {count:,}" for digit, count in enumerate(counts))


def _describe_plan(plan: Plan) -> str:
    epochs, recipe = "", plan.recipe
    if isinstance(recipe, Network):
        at_most = " at most" if recipe.stop_at is not None else ""
        epochs = f" for{at_most} {recipe.epochs} epochs"
    if isinstance(recipe, Ensemble):
        lengths = " + ".join(str(each.epochs) for each in recipe.networks)
        others = "".join(f" and {each.name}" for each in recipe.members if not isinstance(each, Network))
        epochs = f", {len(recipe.networks)} networks for {lengths} epochs{others},"
    again = ", then again on all rows" if plan.recipe.retrain else ""
    return (
        f"Would train {plan.recipe.name}{epochs} on {len(plan.training):,} rows of "
        f"{plan.source.name}{again},\n"
        f"measure it on {len(plan.held_out):,} held-out rows, and predict {len(plan.test_pixels):,} rows.\n"
        f"device  {plan.device}\n"
        f"file    {plan.out}"
    )


def _describe_result(result: Result) -> str:
    plan = result.plan
    seconds = "  ".join(f"{phase} {spent:.1f}" for phase, spent in result.seconds.items())
    accuracy = f"{result.accuracy:.2%} ± {result.standard_error:.2%} (1 standard error)"
    if result.accuracy == 1:  # a standard error of 0 would claim too much: give the bound of the rule of three
        accuracy = f"100 %, that is above {1 - 3 / len(plan.held_out):.1%} with 95 % confidence,"
    note = f"\n        made from the built-in {SAMPLE}: it cannot be uploaded" if plan.source.is_sample else ""
    return (
        f"source  {plan.source.name}: {len(plan.rows):,} training rows, {len(plan.test_pixels):,} test rows\n"
        f"recipe  {plan.recipe.name}, seed {plan.seed}\n"
        f"device  {plan.device}\n"
        f"time    {sum(result.seconds.values()):.1f} s ({seconds})\n"
        f"held-out accuracy  {accuracy} on {len(plan.held_out):,} rows that it was not trained on\n"
        f"labels  {_describe_counts(result.label_counts)}\n"
        f"run     {result.run.folder}\n"
        f"file    {plan.out}, {len(plan.test_pixels):,} rows, checked{note}"
    )


class _Progress:
    """Show a training: a bar on a terminal, one line an epoch elsewhere."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.task: Any = None
        self.shown = 0.0

    def __enter__(self) -> _Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            self.bar = Progress(console=Console(stderr=True))
            self.bar.start()
            self.task = self.bar.add_task("training", total=None)
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def step(self, done: int, total: int) -> None:
        # Ten times a second is enough for people, and costs training nothing.
        if self.bar and (done == total or time.monotonic() - self.shown > 0.1):
            self.bar.update(self.task, completed=done, total=total)
            self.shown = time.monotonic()

    def epoch(self, metrics: dict[str, Any], epochs: int) -> None:
        held_out = metrics.get("validation_accuracy")
        line = (
            f"epoch {metrics['epoch']}/{epochs}  loss {metrics['loss']:.4f}  accuracy {metrics['accuracy']:.2%}"
            + (f"  held-out accuracy {held_out:.2%}" if held_out is not None else "")
            + f"  {metrics['seconds']:.1f} s"
        )
        if self.bar:
            self.bar.console.print(line, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)
