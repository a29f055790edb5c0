"""Backend: TensorFlow by default, JAX where only JAX can use the TPU, and always the user's choice if there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from quick import QUICK, QUICK_TOML
from run_folder import write_untrained

from kaggle_digits.cli import VERBS
from kaggle_digits.devices import choose_backend, import_tensorflow
from kaggle_digits.errors import DeviceError
from kaggle_digits.submission import write_submission

CHOOSE = "from kaggle_digits.devices import choose_backend\nprint(*choose_backend(), sep=': ')"


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new process, because Keras fixes its backend when it is imported."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env={**os.environ, **environment}
    )


def tpu_machine(folder: Path, *distributions: str) -> dict[str, str]:
    """Make the environment of a Kaggle TPU machine, and return its variables.

    The tests have no TPU, so the machine is imitated. It has the variables, an empty module in place of the library
    that runs the TPU, and the metadata of the other installed distributions.
    """
    (folder / "libtpu.py").write_text("")
    for name in distributions:
        metadata = folder / f"{name.replace('-', '_')}-2.20.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.20.0\n")
    return {"ISTPUVM": "1", "TPU_PROCESS_ADDRESSES": "local", "PYTHONPATH": str(folder)}


@pytest.mark.parametrize(
    ("variables", "chosen"),
    [
        ({}, "tensorflow: "),
        ({"KERAS_BACKEND": "jax"}, "jax: KERAS_BACKEND is set"),
        ({"KERAS_BACKEND": "tensorflow"}, "tensorflow: KERAS_BACKEND is set"),
        # JAX is installed here, but not the library that runs a TPU.
        ({"ISTPUVM": "1"}, "tensorflow: "),
    ],
)
def test_backend_follows_the_environment(variables, chosen):
    done = run_python(CHOOSE, **variables)
    assert (done.stdout, done.stderr) == (chosen + "\n", "")


@pytest.mark.parametrize(
    ("distributions", "variables", "chosen"),
    [
        ([], {}, "jax: ISTPUVM is set, this TensorFlow has no TPU support, and JAX has"),
        (["tensorflow-tpu"], {}, "tensorflow: "),
        ([], {"KERAS_BACKEND": "tensorflow"}, "tensorflow: KERAS_BACKEND is set"),
    ],
    ids=["only JAX can use it", "TensorFlow can", "the user decides"],
)
def test_tpu_gets_the_backend_that_can_use_it_unless_the_user_decides(tmp_path, distributions, variables, chosen):
    done = run_python(CHOOSE, **tpu_machine(tmp_path, *distributions), **variables)
    assert done.stdout == chosen + "\n", done.stderr


def test_choosing_imports_nothing():
    done = run_python(f"{CHOOSE}\nimport sys\nprint({{'tensorflow', 'jax', 'keras', 'numpy'}} & set(sys.modules))")
    assert done.stdout == "tensorflow: \nset()\n", done.stderr


def test_unknown_backend_is_refused():
    done = run_python(CHOOSE, KERAS_BACKEND="torch")
    assert "DeviceError: KERAS_BACKEND=torch: no such backend here. Expected one of tensorflow, jax." in done.stderr


def test_backend_that_is_not_installed_is_refused():
    hidden = (
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name: None if name == 'jax' else find(name)\n"
    )
    done = run_python(f"{hidden}from kaggle_digits.devices import choose_backend\nchoose_backend('jax')")
    assert done.stderr.endswith("DeviceError: --backend jax: jax is not installed. Install it: pip install jax\n")


def test_process_keeps_the_backend_that_runs():
    import_tensorflow()
    assert choose_backend() == ("tensorflow", "")
    with pytest.raises(DeviceError, match=r"^--backend jax: Keras runs on tensorflow in this process already\."):
        choose_backend("jax")


def test_failing_import_shows_what_was_held_back(tmp_path):
    failing = "import os\nos.write(2, b'library missing')\nraise ImportError('gone')\n"
    Path(tmp_path / "tensorflow.py").write_text(failing)
    done = run_python(
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n"
        "from kaggle_digits.devices import import_tensorflow\nimport_tensorflow()"
    )
    assert done.returncode == 1
    assert "library missing" in done.stderr


def test_tensorflow_starts_without_what_it_does_not_need():
    done = run_python(
        "import sys\n"
        "from kaggle_digits.devices import import_tensorflow\n"
        "import_tensorflow()\n"
        "print([name for name in ('sklearn', 'jax', 'matplotlib') if name in sys.modules])\n"
        "import sklearn, jax, matplotlib.pyplot, keras\n"
        "print(sklearn.__name__, jax.__name__, matplotlib.__name__, keras.backend.backend())\n"
    )
    assert done.stdout == "[]\nsklearn jax matplotlib tensorflow\n", done.stderr


@pytest.mark.parametrize(
    ("line", "enabled"),
    [("del os.environ['TF_ENABLE_ONEDNN_OPTS']", True), ("os.environ['TF_ENABLE_ONEDNN_OPTS'] = '0'", False)],
)
def test_onednn_computes_unless_the_user_says_otherwise(line, enabled):
    done = run_python(
        f"import os\n{line}\n"
        "from kaggle_digits.devices import import_tensorflow\n"
        "import_tensorflow()\n"
        "from tensorflow.python.util import _pywrap_util_port\n"
        "print(_pywrap_util_port.IsMklEnabled())\n",
        TF_ENABLE_ONEDNN_OPTS="1",
    )
    assert done.stdout == f"{enabled}\n", done.stderr


def test_what_is_imported_already_stays():
    done = run_python(
        "import sys, sklearn\n"
        "from kaggle_digits.devices import import_tensorflow\n"
        "import_tensorflow()\n"
        "import keras\n"
        "print(sys.modules['sklearn'] is sklearn, keras.wrappers.SKLearnClassifier.__name__)\n"
    )
    assert done.stdout == "True SKLearnClassifier\n", done.stderr


ARROW = next(Path(sys.prefix).glob("pyarrow/*"), None)
NETWORK = "./mine.toml"
COMMANDS = {
    "submit": f"--data . --recipe {NETWORK}",
    "recipes": "",
    "train": f"--data . --recipe {NETWORK} --run new",
    "validate": f"--recipe {NETWORK} --data . --folds 2 --out new",
    "predict": "--data . --run run --out mine.csv",
    "compare": f"--recipes random,{NETWORK} --data . --out new",
    "tune": f"{NETWORK} --vary epochs=1,2 --data . --folds 2 --out new",
    "recognize": "test.csv",
    "pad": "",
    "report": "run --data .",
    "export": "--run run --format keras --out new.keras --data .",
    "devices": "",
    "check": "whole.csv --data .",
    "download": "",
    "upload": "whole.csv --message mine",
    "kernel": "build --to new",
}
"""A command of each verb. The upload ends early, because it has no credentials."""
WITHOUT = ("recipes", "check", "download", "upload", "kernel")
"""The verbs that need no backend."""


def exit_code(arguments: str) -> int:
    """Return what ``imports.py`` says, with pyarrow installed."""
    program = str(Path(__file__).with_name("imports.py"))
    path = os.pathsep.join([str(ARROW), str(Path(__file__).parents[1])])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KAGGLE")}
    done = subprocess.run(
        [sys.executable, program, *arguments.split()],
        capture_output=True,
        text=True,
        timeout=300,
        env=kept | {"PYTHONPATH": path, "HOME": "none"},
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode


@pytest.mark.skipif(not ARROW, reason="pyarrow is not at hand: `make test` installs it")
def test_every_verb_imports_its_backend_before_pandas_and_pyarrow(competition, monkeypatch):
    """On Macs with Apple silicon, TensorFlow can hang otherwise (keras-team/keras#23083)."""
    monkeypatch.chdir(competition)
    Path("mine.toml").write_text(QUICK_TOML)
    write_untrained(Path("run"), QUICK)
    write_submission(Path("whole.csv"), range(13))
    assert set(COMMANDS) == set(VERBS)
    codes = {verb: exit_code(f"{verb} {options}") for verb, options in COMMANDS.items()}
    assert {verb for verb, code in codes.items() if code == 10} == set(VERBS) - set(WITHOUT), codes
    assert {codes[verb] for verb in WITHOUT} <= {0, 1, 2}, codes
    for more in (
        "submit --backend jax --recipe ./mine.toml",
        "compare --folds 2 --recipes random,./mine.toml --out new",
    ):
        assert exit_code(f"{more} --data .") == 10, more
    assert exit_code("submit --data sample --recipe random") == 0


WITHOUT_TENSORFLOW = """
import sys
from importlib.machinery import PathFinder
class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, *arguments):
        return None if name.split(".")[0] == "tensorflow" else super().find_spec(name, *arguments)
sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
from kaggle_digits.cli import main
print([main(line.split()) for line in sys.argv[1:]])
"""


def test_where_tensorflow_is_not_installed_jax_takes_its_place(workplace):
    """As on Python 3.14, for which TensorFlow has no final release."""
    Path("mine.toml").write_text(QUICK_TOML)
    seven = Image.new("L", (100, 100), 255)
    ImageDraw.Draw(seven).line([(30, 20), (70, 20), (45, 80)], width=6)
    seven.save("seven.png")
    commands = {
        f"submit --data sample --recipe {NETWORK}": 0,
        "predict --data sample --run runs/sample-mine-seed0 --out other.csv": 0,
        "report runs/sample-mine-seed0": 0,
        "recognize seven.png": 0,
        "export --run runs/sample-mine-seed0 --data sample --format web --out mine.html": 0,
        "export --run runs/sample-mine-seed0 --data sample --format keras --out mine.keras": 0,
        "export --run runs/sample-mine-seed0 --data sample --format onnx --out mine.onnx": 2,
        f"train --data sample --recipe {NETWORK} --run new --backend tensorflow": 2,
    }
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, *commands]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines()[-1] == str([*commands.values()]), done.stderr[-3000:]
    assert "jax on cpu, float32 (JAX: TensorFlow is not installed;" in done.stdout
    assert "\n7\n" in done.stdout
