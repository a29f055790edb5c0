"""Notebook: it is built from its source, carries the package, and runs on its own."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest
from terminal import ROOT, TESTS

from kaggle_digits.errors import DeviceError, InputError
from kaggle_digits.kaggle import notebook

NAME = "ada/handwritten-digits-step-by-step"


def cells_of(notebook: Any) -> list[tuple[str, str, dict]]:
    return [(cell.cell_type, cell.source, dict(cell.metadata)) for cell in notebook.cells]


# Build


def test_notebook_is_made_from_its_source():
    made = nbformat.read(ROOT / "notebooks/digits.ipynb", as_version=4)
    assert cells_of(made) == cells_of(jupytext.read(ROOT / "notebooks/digits.py")), "run `make notebooks`"


def test_kernel_in_the_repository_is_what_build_makes(tmp_path):
    for built in notebook.build_kernel(tmp_path):
        committed = ROOT / built.relative_to(tmp_path)
        assert committed.read_text(encoding="utf-8") == built.read_text(encoding="utf-8"), "run `make notebooks`"


def test_notebook_has_short_cells():
    for _, source, _ in cells_of(jupytext.read(ROOT / "notebooks/digits.py")):
        assert len(source.splitlines()) <= 28


def test_tutorial_shows_what_it_did_with_the_data_of_the_competition():
    cells = nbformat.read(ROOT / "notebooks/digits.ipynb", as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run `make tutorial DATA=...`"
    text = "".join(output.get("text", "") for cell in code for output in cell.outputs)
    assert "(42000, 784) to learn from, (28000, 784) to predict" in text
    assert "submission.csv: 28,000 rows, checked; held-out accuracy 99." in text


def test_kernel_carries_the_modules_it_uses_unchanged_the_core_file_by_file(tmp_path):
    built, _ = notebook.build_kernel(tmp_path)
    cells = cells_of(nbformat.read(built, as_version=4))
    carriers = [number for number, (_, source, _) in enumerate(cells) if source.startswith("%%files")]
    # The tutorial comes first. The cells that carry the modules come later and are folded.
    assert cells[0][1].startswith("# Handwritten digits, step by step")
    assert carriers[0] > 2
    carried: dict[str, str] = {}
    for number in carriers:
        _, source, metadata = cells[number]
        assert (metadata["_kg_hide-input"], metadata["jupyter"]) == (True, {"source_hidden": True})
        assert cells[number - 1][1].startswith("### ")
        assert len(source.splitlines()) <= 3500
        carried |= {part.partition("\n")[0]: part.partition("\n")[2] for part in source.split("\n#### ")[1:]}
    for name, text in carried.items():
        assert text.rstrip("\n") == (notebook.PACKAGE / name).read_text(encoding="utf-8").rstrip("\n")
    for number, name in zip(carriers, notebook.CORE, strict=False):
        assert cells[number][1].startswith(f"%%files\n#### {name}.py\n")
    # It carries nothing that it does not need: no command line, no code that talks to Kaggle, no other learners.
    assert {"train.py", "submit.py", "analysis/plots.py", "learners/images.py", "recipes/fast.toml"} <= set(carried)
    assert not [
        name for name in carried if name.startswith(("cli/", "kaggle/c", "kaggle/k", "kaggle/n", "handwriting/"))
    ]
    assert not {"learners/classical.py", "learners/ensemble.py", "learners/distortion.py"} & set(carried)


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("auto", {"enable_gpu": False, "enable_tpu": False}),
        ("gpu", {"enable_gpu": True, "enable_tpu": False, "machine_shape": "NvidiaTeslaT4"}),
        ("tpu", {"enable_gpu": False, "enable_tpu": True, "machine_shape": "TpuV5E8"}),
    ],
)
def test_device_sets_the_machine_and_the_notebook(tmp_path, device, expected):
    built, file = notebook.build_kernel(tmp_path, device=device, owner="ada", build="42")
    metadata = json.loads(file.read_text())
    machine = {name: value for name, value in metadata.items() if name.startswith(("enable_gpu", "enable_tpu", "mach"))}
    assert machine == expected
    assert (metadata["id"], metadata["code_file"]) == (NAME, "notebooks/kernel.ipynb")
    assert (metadata["is_private"], metadata["enable_internet"]) == (True, False)
    assert metadata["competition_sources"] == ["digit-recognizer"]
    read = nbformat.read(built, as_version=4)
    nbformat.validate(read)
    (parameters,) = (source for _, source, metadata in cells_of(read) if metadata.get("tags") == ["parameters"])
    assert parameters.startswith(f"DEVICE = \"{device}\"\nBUILD = '42'  # ")
    # Metadata that Kaggle left from a CPU run would send a TPU kernel to a CPU.
    assert set(read.metadata) == {"kernelspec", "language_info"}


def checkout(tmp_path: Path, metadata: str) -> Path:
    root = tmp_path / "checkout"
    (root / "notebooks").mkdir(parents=True)
    (root / notebook.SOURCE).write_text((ROOT / notebook.SOURCE).read_text(encoding="utf-8"), encoding="utf-8")
    (root / notebook.METADATA_FILE).write_text(metadata)
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
    metadata = json.loads(notebook.build_kernel(tmp_path / "built", root=root)[1].read_text())
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
        ('{"id": "ada/digits", "dataset_sources": [5]}', "not readable as kernel metadata (AttributeError: "),
        ('{"title": "x"}', "not readable as kernel metadata (KeyError: 'id'). Expected JSON with at least an id, "),
        ('{"id": "ada/tiny"}', "the id is 'ada/tiny'. Expected"),
        (
            '{"id": "ada/digits", "competition_sources": ["Digit Recognizer"]}',
            "competition_sources: 'Digit Recognizer'.",
        ),
    ],
)
def test_metadata_that_kaggle_would_refuse_is_refused(tmp_path, metadata, said):
    root = checkout(tmp_path, metadata)
    with pytest.raises(InputError) as raised:
        notebook.build_kernel(tmp_path, root=root)
    assert said in str(raised.value)


def test_another_kernels_metadata_is_not_replaced(tmp_path):
    root = checkout(tmp_path, '{"id": "ada/other-digits"}')
    with pytest.raises(
        InputError, match="describes another kernel than your-kaggle-name/handwritten-digits-step-by-step"
    ):
        notebook.build_kernel(root)
    assert json.loads((root / notebook.METADATA_FILE).read_text()) == {"id": "ada/other-digits"}


def test_unknown_device_and_missing_source_are_refused(tmp_path):
    with pytest.raises(DeviceError, match="--device abacus: no such device"):
        notebook.build_kernel(tmp_path, device="abacus")
    root = checkout(tmp_path, '{"id": "ada/digits"}')
    (root / notebook.SOURCE).unlink()
    with pytest.raises(InputError, match="no such file"):
        notebook.build_kernel(tmp_path, root=root)


# Runs on its own: with nbclient, in an empty folder, without a network, without kaggle_digits


def isolated(inputs: Path) -> list[str]:
    """Return a command prefix that removes the network and makes inputs read-only; empty without user namespaces."""
    make_read_only = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    prefix = ["unshare", "--map-root-user", "--net", "--mount", "sh", "-c", make_read_only, str(inputs)]
    try:
        works = subprocess.run([*prefix, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        works = False
    return prefix if works else []


def like_kaggle(folder: Path, mount: str, train: str, test: str) -> Path:
    """Make a folder that looks like /kaggle: read-only inputs at the given mount, and an empty working folder."""
    inputs = folder / "input" / mount
    inputs.mkdir(parents=True)
    (folder / "working").mkdir()
    for name, text in (("train.csv", train), ("test.csv", test)):
        (inputs / name).write_text(text)
        (inputs / name).chmod(stat.S_IREAD)
    inputs.chmod(stat.S_IREAD | stat.S_IEXEC)
    return folder


def execute(notebook: Path, kaggle: Path, tmp_path: Path) -> tuple[subprocess.CompletedProcess[str], Any]:
    """Execute a notebook in the working folder; return the finished process and the notebook with its outputs."""
    # kaggle_digits may be installed in this environment as an editable checkout, so take it off the import path.
    guard = tmp_path / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(
        "import importlib.util, sys\n"
        f"sys.path[:] = [path for path in sys.path if path != {str(ROOT)!r}]\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in getattr(f, '__module__', '')]\n"
        "assert importlib.util.find_spec('kaggle_digits') is None, 'kaggle_digits is still installed'\n"
        # Where there are no namespaces, this confines all connections to the machine itself.
        "def guard(event, arguments):\n"
        "    if event == 'socket.connect' and isinstance(arguments[1], tuple) and arguments[1][0] != '127.0.0.1':\n"
        "        raise OSError(f'no network in this test: {arguments[1]}')\n"
        "sys.addaudithook(guard)\n"
    )
    inputs = kaggle / "input"
    prefix = isolated(inputs)
    if prefix:
        writable = "import os, sys; sys.exit(os.access(sys.argv[1], os.W_OK))"
        assert subprocess.run([*prefix, sys.executable, "-c", writable, inputs]).returncode == 0
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KDIGITS_")}
    result = tmp_path / "result.ipynb"
    done = subprocess.run(
        [*prefix, sys.executable, TESTS / "run_notebook.py", notebook, kaggle / "working", result],
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


NOT_FOR_FAST = [
    *(f"kaggle_digits/devices/{name}" for name in ("accelerators", "jax")),
    *(f"kaggle_digits/learners/{name}" for name in ("drawing", "placing", "restyle", "upright")),
    *(f"kaggle_digits/{name}" for name in ("submit", "tables/answers")),
]

TOO_EARLY = """
import sys
print("too early:", [name for name in ("pandas", "pyarrow") if name in sys.modules])
"""

NEVER_IMPORTED = """
imported = {name.replace(".", "/") for name in sys.modules if name.split(".")[0] == "kaggle_digits"}
carried = {str(file.relative_to(package.parent).with_suffix("")) for file in package.rglob("*.py")}
print("never imported:", sorted({name.removesuffix("/__init__") for name in carried} - imported))
"""


def test_kernel_runs_alone_and_leaves_a_checked_submission(tmp_path, digits_csv):
    mount = "competitions/digit-recognizer"
    kaggle = like_kaggle(tmp_path / "kaggle", mount, *digits_csv)
    built, _ = notebook.build_kernel(tmp_path / "built", device="cpu", build="b7")
    with_question = nbformat.read(built, as_version=4)
    with_question.cells.append(nbformat.v4.new_code_cell(NEVER_IMPORTED))
    device = next(n for n, cell in enumerate(with_question.cells) if "\ndevice = resolve_device(" in cell.source)
    with_question.cells.insert(device, nbformat.v4.new_code_cell(TOO_EARLY))
    nbformat.write(with_question, built)
    done, result = execute(built, kaggle, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    text = printed(result)
    assert "too early: []\n" in text
    # Other recipes, tables and accelerators need these.
    assert f"never imported: {NOT_FOR_FAST}\n" in text
    # The notebook prints the device it sees and where the data is.
    assert "cpu, float32 (asked for)\n" in text
    assert f"{kaggle / 'input' / mount}: (1437, 784) to learn from, (360, 784) to predict\n" in text
    assert "submission.csv: 360 rows, checked; held-out accuracy" in text
    assert len((kaggle / "working/submission.csv").read_text().splitlines()) == 361
    record = json.loads((kaggle / "working/submission.json").read_text())
    assert (record["build"], record["runs"][0]["recipe"]) == ("b7", "fast")
    for cell in result.cells:  # a plot that a cell ends with is shown
        if cell.source.splitlines()[-1:] and cell.source.splitlines()[-1].startswith("plots and plots."):
            assert any("image/png" in output.get("data", {}) for output in cell.outputs), cell.source
    assert not [o for cell in result.cells for o in cell.get("outputs", []) if o.get("name") == "stderr"]


def test_kernel_without_the_competition_leaves_nothing_to_submit(tmp_path):
    kaggle = tmp_path / "kaggle"
    for name in ("input", "working"):
        (kaggle / name).mkdir(parents=True)
    done, result = execute(notebook.build_kernel(tmp_path / "built")[0], kaggle, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "NO COMPETITION DATA" in printed(result)
    boxes = [o for cell in result.cells for o in cell.get("outputs", []) if "cannot be uploaded" in str(o.get("data"))]
    assert len(boxes) == 2  # where the data is read, and below the submission
    assert sorted(path.name for path in (kaggle / "working").glob("*.*")) == [
        "sample-submission.csv",
        "sample-submission.json",
    ]


def test_kernel_is_built_for_the_competition_that_the_environment_names(tmp_path, monkeypatch):
    monkeypatch.setenv("KDIGITS_COMPETITION", "https://www.kaggle.com/c/our-class")
    metadata = json.loads(notebook.build_kernel(tmp_path)[1].read_text())
    assert metadata["competition_sources"] == ["our-class"]


@pytest.mark.parametrize(("device", "said"), [("gpu", "finds no GPU"), ("tpu", "finds no TPU here")])
def test_kernel_fails_loudly_without_the_device_it_was_sent_for(tmp_path, device, said, digits_csv):
    kaggle = like_kaggle(tmp_path / "kaggle", "competitions/digit-recognizer", *digits_csv)
    built, _ = notebook.build_kernel(tmp_path / "built", device=device)
    done, _ = execute(built, kaggle, tmp_path)
    assert done.returncode == 1
    assert f"--device {device}: TensorFlow" in done.stderr
    assert said in done.stderr
    assert not (kaggle / "working/submission.csv").exists()
