"""Command line: quick answers without TensorFlow, exit codes, one paragraph per error and nothing left behind."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import pty
import re
import resource
import struct
import subprocess
import sys
import termios
import threading
import zipfile
from pathlib import Path

import pytest
from conftest import TEST_HEADER
from quick import QUICK

from kaggle_digits import cli
from kaggle_digits.cli import output
from kaggle_digits.learners import part_of
from kaggle_digits.recipes import RECIPES, load_measured
from kaggle_digits.submission import write_submission


def processor_seconds() -> float:
    """Seconds that a processor has spent on finished child processes: other work on the machine does not count."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


ONLY_LIGHT = """
import sys
from kaggle_digits.cli import main
try: code = main(sys.argv[1:])
except SystemExit as end: code = end.code
heavy = {'tensorflow', 'keras', 'pandas', 'sklearn', 'numpy', 'kaggle', 'requests', 'jupytext'} & set(sys.modules)
sys.exit(f'imported {heavy}' if heavy else code)
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["recipes"], ["recipes", "--json"], ["check", "s.csv"], ["check", "s.csv", "--data", "d"]]
)
def test_light_verbs_import_neither_tensorflow_nor_pandas_and_are_quick(competition, arguments):
    Path("d").symlink_to(competition)
    write_submission(Path("s.csv"), [1] * (13 if "d" in arguments else 28_000))
    durations = []
    for _ in range(3):
        started = processor_seconds()
        done = subprocess.run([sys.executable, "-c", ONLY_LIGHT, *arguments], capture_output=True, text=True)
        durations.append(processor_seconds() - started)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout
    assert min(durations) < 0.5


def test_table_of_recipes_has_a_line_for_each_with_accuracy_time_and_weights(capsys):
    assert cli.main(["recipes", "--json"]) == 0
    assert [recipe["name"] for recipe in json.loads(capsys.readouterr().out)] == list(RECIPES)
    assert cli.main(["recipes"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    for recipe in RECIPES.values():
        line, found = lines[recipe.name], load_measured()[recipe.name]
        assert found["accuracy"].split()[0].rstrip("%") in line
        assert re.search(r" (< )?[0-9]+ (s|min) ", line)
        words = recipe.summary.partition(";")[0]
        assert line.removesuffix(" (default)").endswith((f"  {words}", f"  {recipe.summary}"))
    assert "none" not in " ".join(lines.values())


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_shown_in_full(name, capsys):
    assert cli.main(["recipes", name]) == 0
    shown, recipe = capsys.readouterr().out, RECIPES[name]
    for text in (name, recipe.summary, recipe.source, recipe.note, load_measured()[name]["accuracy"]):
        assert text in shown
    for network in recipe.networks:
        assert recipe.members or f"epochs = {network.epochs}\n" in shown
    assert cli.main(["recipes", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == name


def test_own_recipe_is_shown_as_well(capsys):
    assert cli.main(["recipes", "flash", "--toml"]) == 0
    Path("mine.toml").write_text(capsys.readouterr().out.replace("epochs = 3", "epochs = 5"))
    assert cli.main(["recipes", "mine.toml"]) == 0
    shown = capsys.readouterr().out
    assert "epochs = 5" in shown
    assert "made from flash" in shown
    assert "three epochs" not in shown


@pytest.mark.parametrize("columns", ["40", "80", "160"])
def test_table_of_recipes_fits_the_terminal(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    assert cli.main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= max(int(columns), 80)


def test_check_says_how_often_each_digit_occurs(competition, capsys):
    write_submission(Path("s.csv"), [1, 1, 7, *[0] * 10])
    assert cli.main(["check", "s.csv", "--data", str(competition)]) == 0
    assert capsys.readouterr().out == (
        f"s.csv: valid, 13 rows as in {competition}'s test.csv; "
        "0: 10  1: 2  2: 0  3: 0  4: 0  5: 0  6: 0  7: 1  8: 0  9: 0\n"
    )


def test_check_counts_the_rows_of_the_data_it_finds_and_of_no_other_file(competition, monkeypatch, capsys):
    write_submission(Path("s.csv"), [1] * 14)
    monkeypatch.setenv("KDIGITS_DATA", str(competition))
    assert cli.main(["check", "s.csv"]) == 2
    assert f"14 rows, the last on line 15. Expected 13, one for each row of {competition}'s" in capsys.readouterr().err
    (competition / "test.csv").write_text("")
    assert cli.main(["check", "s.csv", "--data", str(competition)]) == 2
    assert "test.csv: the file is empty." in capsys.readouterr().err


def test_check_expects_28000_rows_where_only_a_training_file_lies_around(competition, capsys):
    Path("data").mkdir()
    (competition / "train.csv").rename("data/train.csv")
    write_submission(Path("s.csv"), [1] * 28_000)
    assert cli.main(["check", "s.csv"]) == 0
    assert "28,000 rows as in test.csv" in capsys.readouterr().out


def test_check_of_the_sample_needs_nothing_heavy(capsys):
    write_submission(Path("sample-s.csv"), [1] * 360)
    assert cli.main(["check", "sample-s.csv", "--data", "sample"]) == 0


def test_data_named_by_the_environment_is_named_so_in_errors(monkeypatch, capsys):
    monkeypatch.setenv("KDIGITS_DATA", "nowhere")
    assert cli.main(["submit"]) == 2
    assert capsys.readouterr().err.startswith("kaggle-digits: $KDIGITS_DATA: nowhere: no such file or folder.")


def test_reader_that_has_seen_enough_is_no_error():
    command = f"{sys.executable} -m kaggle_digits recipes --json | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


def assert_refused(capsys, workplace, before: set[str]) -> str:
    output = capsys.readouterr()
    assert output.out == ""
    errors = [line for line in output.err.splitlines() if line.startswith("kaggle-digits: ")]
    assert len(errors) == 1
    assert output.err.splitlines()[-1] == errors[0]
    assert "Traceback" not in output.err
    assert {p.name for p in workplace.iterdir()} == before
    return errors[0]


def damage(file: Path, fault: str) -> Path:
    """Damage the test.csv of a competition, and return what to name as the data."""
    row = "0" + ",0" * 783
    if fault == "missing":
        file.unlink()
    elif fault == "training file":
        file.write_bytes(file.with_name("train.csv").read_bytes())
    elif fault in ("truncated zip", "climbing zip"):
        data = file.parent.parent / "digit-recognizer.zip"
        with zipfile.ZipFile(data, "w") as archive:
            archive.write(file, "../test.csv" if fault == "climbing zip" else "test.csv")
        if fault == "truncated zip":
            data.write_bytes(data.read_bytes()[:-30])
        return data
    elif fault != "few rows":  # the fixture's 40 rows are too few to hold any out
        lines = {
            "no table": ["hello"],
            "short row": [TEST_HEADER, row, "0,0"],
            "too bright": [TEST_HEADER, "256" + row],
        }
        file.write_text("\n".join(lines[fault]) + "\n")
    return file.parent


@pytest.mark.parametrize(
    "fault",
    [
        *("missing", "no table", "short row", "too bright"),
        *("training file", "truncated zip", "climbing zip", "few rows"),
    ],
)
def test_bad_data_ends_with_code_2_one_paragraph_and_no_file(competition, workplace, capsys, fault):
    assert cli.main(["submit", "--data", str(damage(competition / "test.csv", fault))]) == 2
    assert "xpected " in assert_refused(capsys, workplace, set())


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit", "--recipe", "best"],
        ["submit", "--data", "nowhere"],
        ["train", "--recipe", "best", "--run", "r"],
        ["predict", "--run", "nowhere", "--data", "sample", "--out", "sample.csv"],
        ["check", "nowhere.csv"],
        ["submit", "--data", "sample", "--out", "."],
        ["submit", "--data", "sample", "--out", "/", "--force"],
        ["submit", "--data", "sample", "--out", "/dev/null/mine.csv"],
    ],
)
def test_bad_arguments_end_with_code_2_one_paragraph_and_no_file(workplace, capsys, arguments):
    assert cli.main(arguments) == 2
    assert "Expected " in assert_refused(capsys, workplace, set())


@pytest.mark.parametrize("arguments", [[], ["fly"], ["submit", "--seed", "-1"], ["submit", "--seed", "x"], ["train"]])
def test_bad_usage_ends_with_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: kaggle-digits" in capsys.readouterr().err


def test_unwritable_place_ends_with_code_1_and_no_traceback(workplace, capsys):
    Path("runs").write_text("a file where a folder should be")
    assert cli.main(["submit", "--data", "sample", "--recipe", "mlp-784-300"]) == 1
    assert "Traceback" not in assert_refused(capsys, workplace, {"runs"})


def on_terminal(command: list[str], columns: int, **streams: int) -> tuple[subprocess.Popen[bytes], bytes]:
    """Run a command on a real pseudo-terminal, and return the finished process and what the terminal was sent."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(command, **({"stdout": child, "stderr": child} | streams), env=kept | {"TERM": "xterm"})
    os.close(child)
    watchdog = threading.Timer(240, process.kill)
    watchdog.start()
    shown = b""
    try:
        while block := os.read(parent, 65536):
            shown += block
    except OSError:  # how Linux reports that the other side of a pseudo-terminal is closed
        shown += b"\n"
    os.close(parent)
    process.wait()
    watchdog.cancel()
    return process, shown


VERBS_ON_A_TERMINAL = """
import sys
from kaggle_digits.cli import main
for command in sys.argv[1:]:
    print(f"$ {command.partition(' ')[0]}", flush=True)
    assert main(command.split()) == 0, command
assert main(["check", "no-such-file.csv"]) == 2
"""


def test_no_line_of_any_verb_breaks_on_a_terminal_of_80_columns(workplace):
    flash = "submit --recipe flash --epochs 1"
    commands = [
        *("recipes", "recipes fast", "recipes strong", "recipes resnet-192", "devices"),
        *(f"{flash} --dry-run", flash, flash),
        "check submissions/sample-flash-seed0.csv --data sample",
        "train --recipe lenet-5 --epochs 1 --run run",
        "predict --run run --run runs/sample-flash-seed0 --out both.csv",
        "validate --recipe knn --folds 2 --out folds",
        "compare --recipes knn,naive-bayes --out compared",
        "compare --recipes knn,naive-bayes --folds 2 --out paired",
        *("report run", "report folds", "export --run run --format keras --out run.keras"),
    ]
    process, shown = on_terminal([sys.executable, "-c", VERBS_ON_A_TERMINAL, *commands], 80)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode().replace("\r\n", "\n"))
    assert process.returncode == 0, text[-3000:]
    lines = [part for line in text.split("\n") for part in line.split("\r")]
    assert [line for line in lines if len(line) > 80] == []
    assert len(lines) > 150
    # Words stay whole: what was said stands there once the lines are joined.
    joined = " ".join(text.split())
    assert "Expected a submission. Check the path." in joined
    assert "scored on the same 206 held-out rows, which played no part in training." in joined
    assert "retracing" not in text


def test_terminal_gets_a_progress_bar():
    # The bar is shown to people, not to log files.
    command = ["train", "--data", "sample", "--recipe", "mlp-784-300", "--run", "r"]
    process, shown = on_terminal([sys.executable, "-m", "kaggle_digits", *command], 100, stdout=subprocess.PIPE)
    assert process.stdout
    with process.stdout:
        stdout = process.stdout.read()
    assert process.returncode == 0
    assert b"training" in shown
    assert b"100%" in shown
    assert b"epoch 10/10" in shown
    assert stdout.startswith(b"r: mlp-784-300, held-out accuracy")


def run_cli(*arguments: str, encoding: str = "utf-8", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kaggle_digits", *arguments],
        capture_output=True,
        text=True,
        encoding=encoding,
        timeout=300,
        env={**os.environ, **environment},
    )


def test_no_verb_prints_the_help():
    done = run_cli()
    assert (done.returncode, done.stdout) == (2, "")
    assert all(f"\n    {verb} " in done.stderr for verb in cli.VERBS)


@pytest.mark.parametrize(
    ("typed", "hint"),
    [("sumbit", "Did you mean submit?"), ("xyz", "`kaggle-digits --help` describes them.")],
)
def test_mistyped_verb_gets_help(capsys, typed, hint):
    with pytest.raises(SystemExit) as end:
        cli.main([typed])
    assert end.value.code == 2
    names = ", ".join(cli.VERBS)
    assert capsys.readouterr().err.endswith(f"{typed}: no such verb. Expected one of {names}. {hint}\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_scripts_know_verbs_options_and_recipes(shell):
    done = run_cli("--print-completion", shell)
    assert done.returncode == 0, done.stderr
    for word in ("recognize", "--recipe", "stretched"):
        assert word in done.stdout
    if shell == "bash":  # which is asked what it would complete
        Path("completion.sh").write_text(done.stdout)
        ask = (
            "source completion.sh; COMP_WORDS=(kaggle-digits submit --rec); COMP_CWORD=2; "
            "_shtab_kaggle_digits kaggle-digits --rec submit; echo ${COMPREPLY[*]}"
        )
        asked = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, timeout=60)
        assert asked.stdout.split() == ["--recipe"], asked.stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp932", "latin-1", "cp1252"])
def test_terminal_that_is_not_utf_8_gets_all_that_it_can_show(encoding):
    trained = run_cli(
        *("submit", "--data", "sample", "--recipe", "naive-bayes", "--out", "größe.csv"),
        encoding=encoding,
        PYTHONIOENCODING=encoding,
    )
    assert trained.returncode == 0, trained.stderr
    assert " (1 standard error)" in trained.stdout
    assert "Traceback" not in trained.stderr
    listed = run_cli("recipes", "fast", PYTHONIOENCODING="ascii")
    assert listed.returncode == 0
    assert " +/- " in listed.stdout
    everything = run_cli("recipes", "--json", encoding=encoding, PYTHONIOENCODING=encoding)
    assert {recipe["name"] for recipe in json.loads(everything.stdout)} == set(RECIPES)


def test_home_folder_is_understood_wherever_a_path_is_given(competition, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_submission(tmp_path / "s.csv", [1] * 13)
    assert cli.main(["check", "~/s.csv", "--data=~/competition"]) == 0
    train = ["train", "--recipe=random", "--data=sample", "--run=~/r"]
    assert cli.main(train) == 0
    assert cli.main(["predict", "--run=~/r", "--data=sample", "--out=~/made.csv"]) == 0
    assert (tmp_path / "sample-made.csv").exists()
    monkeypatch.setenv("KDIGITS_DATA", "~/competition")
    assert cli.main(["check", "~/s.csv"]) == 0
    assert not Path("~").exists()
    # The name of a user that is none is a file name like others.
    assert cli.main(["check", "~nobody-here/s.csv"]) == 2
    assert "~nobody-here/s.csv: no such file." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "missing", "extra", "packages"),
    [
        (["pad"], "uvicorn", "pad", "segno starlette uvicorn"),
        (["kernel", "build"], "jupytext", "notebook", "jupytext nbformat"),
    ],
)
def test_a_missing_extra_is_named_with_the_line_that_adds_it(arguments, missing, extra, packages, tmp_path):
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        f"from kaggle_digits.cli import main; sys.exit(main({arguments!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert f"{arguments[0]}: the package {missing} is missing. Install the extra [{extra}], or" in done.stderr
    assert done.stderr.endswith(f" pip install {packages}\n")


def test_quiet_prints_only_the_result(capsys, monkeypatch, caplog):
    monkeypatch.setitem(RECIPES, "quick", QUICK)
    assert cli.main(["submit", "--recipe", "quick", "--data", "sample", "--quiet"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert [record.message for record in caplog.records if record.levelno < logging.WARNING] == []
    assert printed.out.startswith("source  sample: ")


def test_json_is_one_line_with_the_result(capsys, monkeypatch):
    monkeypatch.setitem(RECIPES, "quick", QUICK)

    def result(*arguments: str) -> dict:
        assert cli.main([*arguments, "--recipe", "quick", "--data", "sample", "--json", "--quiet"]) == 0
        (line,) = capsys.readouterr().out.splitlines()
        return json.loads(line)

    submitted = result("submit")
    assert submitted["file"] == "submissions/sample-quick-seed0.csv"
    assert sum(submitted["label_counts"]) == submitted["rows"] == 360
    assert submitted["upload"] is None
    trained = result("train", "--run", "r")
    assert (trained["run"], trained["held_out_rows"]) == ("r", 72)
    assert trained["held_out_accuracy"] == submitted["held_out_accuracy"]
    assert result("validate", "--folds", "2", "--out", "v")["rows"] == 1437


def test_the_time_left_is_that_of_the_whole_job(monkeypatch):
    now = 0.0
    monkeypatch.setattr(output.time, "monotonic", lambda: now)
    progress = output.TrainingProgress()
    progress.step(500, 1000)  # a job that is continued in its middle
    for done in range(501, 601):
        now += 0.1
        progress.step(done, 1000)
    assert progress.clock.left() == "about 40 s left"
    progress.step(800, 1000)  # a part that had been done before
    now += 0.1
    progress.step(801, 1000)
    assert progress.clock.left() == "about 20 s left"
    progress.step(1000, 1000)
    assert progress.clock.left() == ""


def test_parts_of_a_job_add_up():
    class Whole:
        def step(self, done, total):
            self.share = done / total

    whole = Whole()
    part_of(part_of(whole, 1, 2), 0, [3, 1]).step(5, 10)  # the second half; in it the first three of four quarters
    assert whole.share == 1 / 2 + 1 / 2 * 3 / 4 * 5 / 10
    assert part_of(None, 0, 2) is None
