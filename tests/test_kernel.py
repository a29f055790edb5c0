"""Kernel: the notebook is made from its source, carries the package, runs alone, and goes to Kaggle and back."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import numpy as np
import pytest
from kaggle_server import API, STORAGE, Fault, KaggleServer
from terminal import CLIENTS, ROOT, TESTS, Terminal

from kaggle_digits import kernel
from kaggle_digits.config import DeviceError, InputError, find_commit
from kaggle_digits.submission import HEADER

NAME = "ada/handwritten-digits-step-by-step"
PAGE = f"https://www.kaggle.com/code/{NAME}"
SUBMISSION = "\n".join([HEADER, *(f"{row + 1},{row % 10}" for row in range(28_000))]) + "\n"


def cells_of(notebook: Any) -> list[tuple[str, str, dict]]:
    return [(cell.cell_type, cell.source, dict(cell.metadata)) for cell in notebook.cells]


# Build


def test_notebook_is_made_from_its_source():
    made = nbformat.read(ROOT / "notebooks/digits.ipynb", as_version=4)
    assert cells_of(made) == cells_of(jupytext.read(ROOT / "notebooks/digits.py")), "run `make notebooks`"


def test_kernel_in_the_repository_is_what_build_makes(tmp_path):
    for built in kernel.build_kernel(tmp_path):
        committed = ROOT / built.relative_to(tmp_path)
        assert committed.read_text(encoding="utf-8") == built.read_text(encoding="utf-8"), "run `make notebooks`"


def test_notebook_defines_no_functions_and_has_short_cells():
    for kind, source, _ in cells_of(jupytext.read(ROOT / "notebooks/digits.py")):
        assert kind == "markdown" or not re.search(r"^\s*(def|class) ", source, re.MULTILINE)
        assert len(source.splitlines()) <= 10


def test_kernel_carries_the_modules_it_uses_unchanged_in_one_cell(tmp_path):
    notebook, _ = kernel.build_kernel(tmp_path)
    cells = cells_of(nbformat.read(notebook, as_version=4))
    carriers = [number for number, (_, source, _) in enumerate(cells) if "SOURCES" in source]
    assert len(carriers) == 1
    _, source, metadata = cells[carriers[0]]
    # The tutorial stands in front, and the carrier is folded away.
    assert cells[0][1].startswith("# Handwritten digits, step by step")
    assert carriers[0] > 2
    assert metadata["_kg_hide-input"]
    assert metadata["jupyter"] == {"source_hidden": True}
    names: dict[str, Any] = {}
    exec(source[: source.rindex("import sys")], names)
    for name, text in names["SOURCES"].items():
        assert text == (kernel.PACKAGE / name).read_text(encoding="utf-8")
    # What it does not need it does not carry: no command line, nothing that talks to Kaggle.
    assert {"train.py", "predict.py", "plots.py", "augment.py"} <= set(names["SOURCES"])
    assert not {"cli.py", "competition.py", "connection.py", "kernel.py"} & set(names["SOURCES"])


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("auto", {"enable_gpu": False, "enable_tpu": False}),
        ("cpu", {"enable_gpu": False, "enable_tpu": False}),
        ("gpu", {"enable_gpu": True, "enable_tpu": False, "machine_shape": "NvidiaTeslaT4"}),
        ("tpu", {"enable_gpu": False, "enable_tpu": True, "machine_shape": "TpuV5E8"}),
    ],
)
def test_device_sets_the_machine_and_the_notebook(tmp_path, device, expected):
    notebook, file = kernel.build_kernel(tmp_path, device=device, owner="ada", build="42")
    metadata = json.loads(file.read_text())
    assert metadata == {
        "id": NAME,
        "title": "Handwritten digits step by step",
        "code_file": "notebooks/kernel.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_internet": False,
        "competition_sources": ["digit-recognizer"],
        "dataset_sources": [],
        "kernel_sources": [],
        "model_sources": [],
        "keywords": [],
        **expected,
    }
    read = nbformat.read(notebook, as_version=4)
    nbformat.validate(read)
    (parameters,) = (source for _, source, metadata in cells_of(read) if metadata.get("tags") == ["parameters"])
    assert parameters.startswith(f"DEVICE = \"{device}\"\nBUILD = '42'  # ")
    # A TPU kernel with Kaggle's notes of a CPU run would be sent to a CPU.
    assert set(read.metadata) == {"kernelspec", "language_info"}


def checkout(tmp_path: Path, metadata: str) -> Path:
    root = tmp_path / "checkout"
    (root / "notebooks").mkdir(parents=True)
    (root / kernel.SOURCE).write_text((ROOT / kernel.SOURCE).read_text(encoding="utf-8"), encoding="utf-8")
    (root / kernel.METADATA_FILE).write_text(metadata)
    return root


def test_metadata_of_the_user_is_kept_and_what_misleads_kaggle_is_mended(tmp_path):
    own = {
        "id": "ada/my-digits",
        "title": "Another title",
        "is_private": False,
        "keywords": ["beginner"],
        "competition_sources": ["c/digit-recognizer"],
        "dataset_sources": ["datasets/ada/pens"],
        "id_no": 5,
        "docker_image": "gcr.io/kaggle-images/python",
        "machine_shape": "NvidiaTeslaP100",
        "enable_internet": True,
    }
    root = checkout(tmp_path, json.dumps(own))
    metadata = json.loads(kernel.build_kernel(tmp_path / "built", root=root)[1].read_text())
    assert metadata == {
        "id": "ada/my-digits",
        "title": "My digits",
        "is_private": False,
        "keywords": ["beginner"],
        "competition_sources": ["digit-recognizer"],
        "dataset_sources": ["ada/pens"],
        "kernel_sources": [],
        "code_file": "notebooks/kernel.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "enable_internet": False,
        "enable_gpu": False,
        "enable_tpu": False,
    }


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ("{", "not readable as kernel metadata (JSONDecodeError: "),
        ('{"title": "x"}', "not readable as kernel metadata (KeyError: 'id'). Expected JSON with at least an id, "),
        (
            '{"id": "ada/tiny"}',
            "the id is 'ada/tiny'. Expected \"your-kaggle-name/name-of-the-kernel\", the name in small letters, digits "
            "and "
            "hyphens, five at least. Correct it.",
        ),
        (
            '{"id": "ada/digits", "competition_sources": ["Digit Recognizer"]}',
            "competition_sources: 'Digit Recognizer'. Expected the short name of a competition, as in "
            "digit-recognizer, or "
            "its address. Correct it.",
        ),
    ],
)
def test_metadata_that_kaggle_would_refuse_is_refused(tmp_path, metadata, said):
    root = checkout(tmp_path, metadata)
    with pytest.raises(InputError) as raised:
        kernel.build_kernel(tmp_path, root=root)
    assert said in str(raised.value)


def test_another_kernels_metadata_is_not_replaced(tmp_path):
    root = checkout(tmp_path, '{"id": "ada/other-digits"}')
    with pytest.raises(
        InputError, match="describes another kernel than your-kaggle-name/handwritten-digits-step-by-step"
    ):
        kernel.build_kernel(root)
    assert json.loads((root / kernel.METADATA_FILE).read_text()) == {"id": "ada/other-digits"}


def test_unknown_device_and_missing_source_are_refused(tmp_path):
    with pytest.raises(DeviceError, match="--device abacus: no such device"):
        kernel.build_kernel(tmp_path, device="abacus")
    root = checkout(tmp_path, '{"id": "ada/digits"}')
    (root / kernel.SOURCE).unlink()
    with pytest.raises(InputError, match="no such file"):
        kernel.build_kernel(tmp_path, root=root)


# Run alone: nbclient, an empty folder, no network, no kaggle_digits


def no_network() -> list[str]:
    """A command that runs another without a network, where the system lets users make namespaces."""
    prefix = ["unshare", "--map-root-user", "--net"]
    try:
        works = subprocess.run([*prefix, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        works = False
    return prefix if works else []


def like_kaggle(folder: Path, mount: str, train: str, test: str) -> Path:
    """A folder that looks like /kaggle: read-only inputs at the given mount, an empty working folder."""
    inputs = folder / "input" / mount
    inputs.mkdir(parents=True)
    (folder / "working").mkdir()
    for name, text in (("train.csv", train), ("test.csv", test)):
        (inputs / name).write_text(text)
        (inputs / name).chmod(stat.S_IREAD)
    inputs.chmod(stat.S_IREAD | stat.S_IEXEC)
    return folder


def execute(notebook: Path, kaggle: Path, tmp_path: Path) -> tuple[subprocess.CompletedProcess[str], Any]:
    """Execute a notebook in the working folder, and return how it ended and the notebook with its outputs."""
    # kaggle_digits may be installed here, in the way of a checkout: taken off the import path again.
    guard = tmp_path / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(
        "import importlib.util, sys\n"
        f"sys.path[:] = [path for path in sys.path if path != {str(ROOT)!r}]\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in getattr(f, '__module__', '')]\n"
        "assert importlib.util.find_spec('kaggle_digits') is None, 'kaggle_digits is still installed'\n"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KDIGITS_")}
    result = tmp_path / "result.ipynb"
    done = subprocess.run(
        [*no_network(), sys.executable, TESTS / "run_notebook.py", notebook, kaggle / "working", result],
        env=kept | {"PYTHONPATH": str(guard), "KDIGITS_KAGGLE": str(kaggle), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    return done, nbformat.read(result, as_version=4)


def printed(notebook: Any) -> str:
    return "".join(
        output.text for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == "stream"
    )


@pytest.mark.parametrize("mount", ["competitions/digit-recognizer", "digit-recognizer"])
def test_kernel_runs_alone_and_leaves_a_checked_submission(tmp_path, mount, digits_csv):
    kaggle = like_kaggle(tmp_path / "kaggle", mount, *digits_csv)
    notebook, _ = kernel.build_kernel(tmp_path / "built", device="cpu", build="b7")
    done, result = execute(notebook, kaggle, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    text = printed(result)
    # It says which device it sees, and where the data is.
    assert "cpu, float32 (asked for)\n" in text
    assert f"{kaggle / 'input' / mount}: (1437, 784) to learn from, (360, 784) to predict\n" in text
    assert "submission.csv: 360 rows, checked; held-out accuracy" in text
    assert len((kaggle / "working/submission.csv").read_text().splitlines()) == 361
    record = json.loads((kaggle / "working/submission.json").read_text())
    assert (record["build"], record["runs"][0]["recipe"]) == ("b7", "fast")
    pictures = [o for cell in result.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(pictures) == 5
    assert not [o for cell in result.cells for o in cell.get("outputs", []) if o.get("name") == "stderr"]


@pytest.mark.parametrize(
    ("device", "said"),
    [("gpu", "finds no GPU"), ("tpu", "finds no TPU here")],
)
def test_kernel_fails_loudly_without_the_device_it_was_sent_for(tmp_path, device, said, digits_csv):
    kaggle = like_kaggle(tmp_path / "kaggle", "competitions/digit-recognizer", *digits_csv)
    notebook, _ = kernel.build_kernel(tmp_path / "built", device=device)
    done, _ = execute(notebook, kaggle, tmp_path)
    assert done.returncode == 1
    assert f"--device {device}: TensorFlow" in done.stderr
    assert said in done.stderr
    assert not (kaggle / "working/submission.csv").exists()


# Push and run, with the real clients


@pytest.fixture(params=CLIENTS)
def terminal(request: pytest.FixtureRequest, tmp_path: Path, workplace: Path) -> Iterator[Terminal]:
    home = tmp_path / "home"
    home.mkdir()
    with KaggleServer().running() as server:

        def run_the_notebook(body: dict[str, Any]) -> None:
            build = re.search(r"BUILD = '(\w+)'", body["text"])
            record = {"format": "kaggle_digits submission", "file": "submission.csv", "rows": 28_000, "upload": None}
            runs = [{"recipe": "fast", "seed": 0, "commit": None, "held_out_rows": 2_100, "held_out_accuracy": 0.9962}]
            sha256 = hashlib.sha256(SUBMISSION.encode()).hexdigest()
            record |= {"sha256": sha256, "runs": runs, "build": build and build[1]}
            server.outputs = {"submission.csv": SUBMISSION.encode(), "submission.json": json.dumps(record).encode()}

        server.on_push = run_the_notebook
        yield Terminal(server, request.param, home)
        assert server.hosts <= {API, STORAGE}
        assert server.leaks == []


def test_real_client_accepts_the_metadata_as_it_is(terminal):
    # `kaggle kernels push` in a checkout, as its users type it.
    done = subprocess.run(
        [sys.executable, "-c", "from kaggle.cli import main; main()", "kernels", "push", "-p", str(ROOT)],
        env=terminal.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Kernel version 1 successfully pushed" in done.stdout
    assert "does not resolve" not in done.stdout
    (body,) = terminal.server.pushes
    text = json.loads(body.pop("text"))
    assert body == {
        "slug": "your-kaggle-name/handwritten-digits-step-by-step",
        "newTitle": "Handwritten digits step by step",
        "language": "python",
        "kernelType": "notebook",
        "isPrivate": True,
        "enableGpu": False,
        "enableTpu": False,
        "enableInternet": False,
        "competitionDataSources": ["digit-recognizer"],
    }
    committed = nbformat.read(ROOT / "notebooks/kernel.ipynb", as_version=4)
    assert [cell["source"] for cell in text["cells"]] == [cell.source for cell in committed.cells]


@pytest.mark.parametrize(
    ("device", "fields"),
    [
        ("cpu", {"enableGpu": False, "enableTpu": False}),
        ("gpu", {"enableGpu": True, "enableTpu": False, "machineShape": "NvidiaTeslaT4"}),
        ("tpu", {"enableGpu": False, "enableTpu": True, "machineShape": "TpuV5E8"}),
    ],
)
def test_push_sends_notebook_owner_and_machine(terminal, device, fields):
    code, out, _ = terminal.run("kernel", "push", "--device", device)
    assert (code, out) == (0, f"{NAME}: version 1 runs at {PAGE}\n")
    (body,) = terminal.server.pushes
    assert body["slug"] == NAME
    assert {name: value for name, value in body.items() if name in ("enableGpu", "enableTpu", "machineShape")} == fields
    assert f'DEVICE = \\"{device}\\"' in body["text"]
    assert not {"dockerImage", "dockerImagePinningType", "id"} & set(body)


def test_run_pushes_waits_fetches_checks_and_submits(terminal):
    code, out, err = terminal.run("kernel", "run", "-m", "from a kernel")
    assert code == 0, err
    file = "submissions/handwritten-digits-step-by-step-v1.csv"
    assert out == (
        f"{NAME}: version 1 runs at {PAGE}\n"
        f"{file}: fetched\n"
        f"{file}: submitted to digit-recognizer as 40000000\n"
        "public score  0.99571, rank 1 of 1 among the scored files of submissions/\n"
        "page          https://www.kaggle.com/competitions/digit-recognizer/submissions\n"
    )
    states = [line.rsplit(" (", 1)[0] for line in err.splitlines() if line.startswith(NAME)]
    assert states == [f"{NAME}, version 1: {state}" for state in ("queued", "running", "complete")]
    assert Path(file).read_text() == SUBMISSION
    # What the notebook recorded is kept, with the commit that it cannot know.
    table = Path("submissions/README.md").read_text()
    row = next(line for line in table.splitlines() if line.startswith("| handwritten-digits-step-by-step-v1.csv |"))
    assert "| fast seed 0 | 99.62% of 2,100 | 0.99571 | " in row
    assert f" | {(find_commit() or '–')[:10]} | 40000000 |" in row
    (submission,) = terminal.server.submissions
    assert submission["description"].startswith("from a kernel [")


def test_outputs_of_the_version_before_are_not_taken_for_those_of_this_one(terminal):
    # Right after a push Kaggle may still show the last version, and that it is complete.
    new: dict[str, bytes] = {}
    push = terminal.server.on_push

    def late(body: dict[str, Any]) -> None:
        push(body)
        new.update(terminal.server.outputs)
        terminal.server.outputs = {
            "submission.csv": b"old",
            "submission.json": b'{"format": "kaggle_digits submission", "build": "old"}',
        }

    terminal.server.on_push = late
    terminal.server.kernel_states = ["COMPLETE"]
    process = terminal.start("kernel", "run")
    while terminal.server.names().count("GetKernelSessionStatus") < 2:
        assert process.poll() is None
    terminal.server.outputs = new
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "still shows an earlier version; waiting" in err
    assert Path("submissions/handwritten-digits-step-by-step-v1.csv").read_text() == SUBMISSION


def test_failed_kernel_shows_the_end_of_its_log(terminal):
    terminal.server.kernel_states = ["RUNNING", "ERROR"]
    terminal.server.kernel_failure = "Your notebook tried to allocate more memory than is available."
    terminal.server.kernel_log = json.dumps([{"stream_name": "stderr", "time": 1.0, "data": "DeviceError: no GPU\n"}])
    code, _, err = terminal.run("kernel", "run")
    assert code == 1
    assert err.splitlines()[-1] == (
        f"kaggle-digits: {NAME}: error (Your notebook tried to allocate more memory than is available.). Expected it "
        "to "
        f"finish. See {PAGE}; its log ends: DeviceError: no GPU"
    )
    assert terminal.server.submissions == []


def test_kernel_without_a_submission_is_not_submitted(terminal):
    terminal.server.on_push = None
    terminal.server.outputs = {"other.csv": b"1", "../../escape.csv": b"2"}
    code, _, err = terminal.run("kernel", "run")
    assert code == 1
    assert err.splitlines()[-1] == (
        f"kaggle-digits: {NAME}: left no submission.csv but other.csv. Expected the output of the notebook that "
        f"`kaggle-digits kernel build` makes. See {PAGE}"
    )


def test_broken_output_is_not_taken(terminal):
    terminal.server.faults["GET output"] = Fault(status=403, message="expired", times=9)
    code, _, err = terminal.run("kernel", "run")
    assert code == 1
    assert "download of submission.csv: Kaggle's storage answered 403, 'expired'." in err
    assert not Path("submissions").exists()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            {"error": "Notebook not found"},
            f"kaggle-digits: push of {NAME}: Kaggle answered 'Notebook not found'. Expected a kernel of yours with a "
            "name of "
            "its own. Check id and title in kernel-metadata.json against https://www.kaggle.com/code.\n",
        ),
        (
            {"invalidCompetitionSources": ["digit-recognizer"]},
            f"kaggle-digits: push of {NAME}: Kaggle took it, but without digit-recognizer. Expected names that Kaggle "
            "knows. "
            f"Correct them in kernel-metadata.json; the version at {PAGE} cannot work.\n",
        ),
    ],
)
def test_refused_push_is_an_error(terminal, answer, expected):
    terminal.server.push_answer = answer
    code, out, err = terminal.run("kernel", "push")
    assert (code, out, err) == (1, "", expected)


def test_forbidden_kernel_says_both_reasons(terminal):
    terminal.server.faults["GetKernelSessionStatus"] = Fault(status=403, message="Permission 'kernels.get' was denied")
    code, _, err = terminal.run("kernel", "run")
    assert code == 2
    assert err.splitlines()[-1] == (
        f"kaggle-digits: state of {NAME}: Kaggle answered 403, \"Permission 'kernels.get' was denied\". Expected "
        f"{NAME} to "
        "be a kernel of yours. A wrong name and somebody else's private kernel get this same answer. Compare the id in "
        "kernel-metadata.json with https://www.kaggle.com/code."
    )


def test_lost_answer_to_a_push_is_not_repeated(terminal):
    terminal.server.faults["SaveKernel"] = Fault(handle_first=True)
    code, _, err = terminal.run("kernel", "push")
    assert code == 1
    assert "no whole answer from Kaggle" in err
    assert len(terminal.server.pushes) == 1


# The competition's data


DATA = str(Path(os.environ.get("KDIGITS_DATA", "")).resolve())


@pytest.mark.skipif(
    not DATA.endswith(".zip"), reason="needs the competition's data: set KDIGITS_DATA to digit-recognizer.zip"
)
def test_kernel_reaches_its_floor_on_the_competition(tmp_path):
    with zipfile.ZipFile(DATA) as archive:
        train, test = (archive.read(f"{kind}.csv").decode() for kind in ("train", "test"))
    kaggle = like_kaggle(tmp_path / "kaggle", "competitions/digit-recognizer", train, test)
    done, result = execute(ROOT / "notebooks/kernel.ipynb", kaggle, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "submission.csv: 28,000 rows, checked; held-out accuracy" in printed(result)
    digits = np.loadtxt(kaggle / "working/submission.csv", delimiter=",", skiprows=1, dtype=int)
    assert digits.shape == (28_000, 2)
    record = json.loads((kaggle / "working/submission.json").read_text())
    # 99.6 % is usual; one standard error on 2,100 rows is 0.14 points.
    assert record["runs"][0]["held_out_accuracy"] >= 0.992
