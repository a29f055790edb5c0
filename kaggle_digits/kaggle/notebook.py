"""Build the notebook that runs on Kaggle's machines.

A push sends one file, and the notebook runs without the internet. So it carries the modules that it uses: the core file
by file, in reading order, and the rest in a folded cell for each folder. The cells write themselves to a folder from
which Python can import them.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kaggle_digits.digits import __version__
from kaggle_digits.errors import DeviceError, InputError
from kaggle_digits.files import atomic_path
from kaggle_digits.kaggle.client import competition_slug, slug_of
from kaggle_digits.recipes import FOLDER
from kaggle_digits.strategy import DEVICES
from kaggle_digits.tables import COMPETITION

PACKAGE = Path(__file__).parents[1]
METADATA_FILE = "kernel-metadata.json"
NOTEBOOK, SOURCE = "notebooks/kernel.ipynb", "notebooks/digits.py"


def build_kernel(
    folder: Path,
    *,
    device: str = "auto",
    owner: str | None = None,
    build: str | None = None,
    root: Path = PACKAGE.parent,
) -> tuple[Path, Path]:
    """Write the self-contained notebook and its metadata.

    Args:
        folder: the folder for both files; made if needed.
        device: "auto", "tpu", "gpu" or "cpu". The notebook stops if a device other than "auto" is not there.
        owner: the Kaggle user to push as; None keeps the one in kernel-metadata.json.
        build: a mark that the notebook leaves in the record of its submission.
        root: the checkout with notebooks/digits.py and kernel-metadata.json.

    Returns:
        the notebook, the metadata.

    Raises:
        DeviceError: there is no such device.
        InputError: a source file is missing, or the metadata cannot be used.
    """
    try:
        import jupytext
        import nbformat
    except ImportError as error:
        raise InputError(
            f"kernel: the package {error.name} is missing. Install the extra [notebook], or what it consists of: "
            "pip install jupytext nbformat"
        ) from error

    if device not in DEVICES:
        raise DeviceError(f"--device {device}: no such device. Expected one of {', '.join(DEVICES)}. Correct the name.")
    metadata = _read_metadata(root / METADATA_FILE, device, owner)
    source = root / SOURCE
    if not source.is_file():
        raise InputError(
            f"{source}: no such file. Expected the notebook's source, which lies in a checkout of kaggle_digits and "
            "not in an installed package. Run the command in a checkout, installed with `make setup`."
        )
    notebook = jupytext.read(source)
    cells: list[Any] = []
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "parameters" in tags:
            cell.source = cell.source.replace('"auto"', f'"{device}"').replace("None", repr(build))
        cells.append(cell)
        if "package" in tags:
            cells += _package_cells(notebook)
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"  # jupytext draws them at random
    # No metadata of Kaggle's own: it can send a TPU kernel to a machine without a TPU.
    built = nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    )
    written = folder / NOTEBOOK, folder / METADATA_FILE
    if written[1].exists() and _read_metadata(written[1], device, owner)["id"] != metadata["id"]:
        raise InputError(
            f"{written[1]}: describes another kernel than {metadata['id']}. Expected a folder without one. Name "
            "another with --to."
        )
    for path, contents in zip(written, (json.loads(nbformat.writes(built)), metadata), strict=True):
        with atomic_path(path) as partial:
            # In ASCII, because client 2.0.2 reads the files in the system's encoding.
            partial.write_text(json.dumps(contents, indent=1) + "\n", encoding="ascii")
    return written


def _read_metadata(file: Path, device: str, owner: str | None) -> dict[str, Any]:
    """Read kernel-metadata.json, and set the fields for the device, the owner and a notebook without the internet."""
    try:
        metadata = json.loads(file.read_text(encoding="utf-8"))
        user, _, slug = metadata["id"].partition("/")
        competitions = [str(source) for source in metadata.get("competition_sources") or []]
        if os.environ.get("KDIGITS_COMPETITION"):  # instead of the one that the file names
            competitions = [competition_slug(), *(name for name in competitions if name != COMPETITION)]
        # Addresses have these prefixes in front of the names, and Kaggle refuses them.
        datasets = [source.removeprefix("datasets/") for source in metadata.get("dataset_sources") or []]
        kernels = [source.removeprefix("code/") for source in metadata.get("kernel_sources") or []]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{file}: not readable as kernel metadata ({type(error).__name__}: {error}). Expected JSON with at least "
            'an id, "your-kaggle-name/name-of-the-kernel". Correct it, or take it from the repository again.'
        ) from error
    if len(slug) < 5 or _slugified(slug) != slug or not user:
        raise InputError(
            f'{file}: the id is {metadata["id"]!r}. Expected "your-kaggle-name/name-of-the-kernel", the name in at '
            "least five lower-case letters, digits and hyphens. Correct it."
        )
    title = str(metadata.get("title", ""))
    # A docker image, for example, sends a TPU kernel to a machine without a TPU.
    misleading = ("id_no", "machine_shape", "docker_image", "docker_image_pinning_type")
    # Without a shape a GPU kernel got a retired P100; this one is T4 x2. Kaggle silently replaces older shapes.
    shape = {"gpu": "NvidiaTeslaT4", "tpu": "TpuV5E8"}.get(device)
    return {
        **{name: value for name, value in metadata.items() if name not in misleading},
        "id": f"{owner or user}/{slug}",
        # Kaggle names a kernel by its title, so a title that does not match the id would make another kernel.
        "title": title if _slugified(title) == slug else slug.replace("-", " ").capitalize(),
        "code_file": NOTEBOOK,
        "language": "python",
        "kernel_type": "notebook",
        "enable_internet": False,
        "competition_sources": [slug_of(source, f"{file}: competition_sources") for source in competitions],
        "dataset_sources": datasets,
        "kernel_sources": kernels,
        "enable_gpu": device == "gpu",
        "enable_tpu": device == "tpu",
        **({"machine_shape": shape} if shape else {}),
    }


def _slugified(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


CORE = {
    "digits": "The vocabulary: 28 × 28 pixels, ten classes, and how accuracy is counted",
    "errors": "The errors that the package raises on purpose",
    "data": "The rows: find `train.csv` and `test.csv`, read them, hold rows out",
    "recipe": "What to train and how, as data",
    "strategy": "Where to train, and why there",
    "models": "Keras networks from a recipe's layers",
    "run": "The run folder: what a training hands over",
    "train": "Train one, epoch by epoch",
    "submission": "Probabilities → arg-max → a checked submission",
    "submit": "The whole job",
}
"""The core of the package in reading order, and what each module is about."""


def _package_cells(notebook: Any) -> list[Any]:
    """Return the cells with all modules that the notebook uses, directly or not."""
    import nbformat

    used = _modules_used([cell.source for cell in notebook.cells if cell.cell_type == "code"])
    # Folded, on Kaggle and in Jupyter, because the tutorial continues below.
    folded = {"_kg_hide-input": True, "jupyter": {"source_hidden": True}, "tags": ["package"]}
    start = f"""# kaggle_digits {__version__}. The cells below write themselves to a folder, where Python finds them.
import sys
import tempfile

from IPython.core.magic import register_cell_magic

package = Path(tempfile.mkdtemp()) / "kaggle_digits"
sys.path.insert(0, str(package.parent))


@register_cell_magic
def files(_, cell):
    for part in ("\\n" + cell).split("\\n#### ")[1:]:
        name, _, text = part.partition("\\n")
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text.strip("\\n") + "\\n", encoding="utf-8")"""
    cells = [nbformat.v4.new_code_cell(start, metadata=folded)]

    def carry(title: str, names: Iterable[str]) -> None:
        text = "\n".join(f"#### {name}\n{_read(name)}" for name in names)
        cells.append(nbformat.v4.new_markdown_cell(f"### {title}"))
        cells.append(nbformat.v4.new_code_cell(f"%%files\n{text}".rstrip("\n"), metadata=folded))

    for module, title in CORE.items():
        carry(f"`{module}.py`: {title}", [_file_of(module)])
    wings: dict[str, list[str]] = {}
    for file in sorted(_file_of(module) for module in used - set(CORE)):
        wings.setdefault(file.rpartition("/")[0], []).append(file)
    for folder, names in wings.items():
        carry(f"What the core uses: `{folder or 'the package'}`", names)
    carry("The recipes", [f"recipes/{file.name}" for file in sorted(FOLDER.glob("*.toml"))])
    return cells


def _modules_used(sources: list[str]) -> set[str]:
    """Return the modules that pieces of Python use, directly or not."""
    # The core imports these by their names, when they are needed.
    reached = {"train", "tables.find", "tables.answers", "devices.jax", "devices.accelerators"}
    new = {name for source in sources for name in _modules_imported(source)} | {*CORE} | reached
    used: set[str] = set()
    while new:
        used |= new
        packages = {module.rpartition(".")[0] for module in used}
        new = {name for module in new for name in _modules_imported(_read(_file_of(module)))} | packages
        new -= used
    return used


def _file_of(module: str) -> str:
    """Return the file of a module, relative to the package. The module "" is the package itself."""
    path = module.replace(".", "/")
    return f"{path}/__init__.py".lstrip("/") if (PACKAGE / path).is_dir() else f"{path}.py"


def _read(name: str) -> str:
    """Return a file of the package, by its name in it."""
    return (PACKAGE / name).read_text(encoding="utf-8")


def _modules_imported(source: str) -> set[str]:
    """Return the modules of this package that a piece of Python imports, except for type checkers only."""
    tree = ast.parse("\n".join(line for line in source.splitlines() if not line.startswith("%")))
    hints = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    modules: set[str] = set()
    for node in {*ast.walk(tree)} - {node for hint in hints for node in ast.walk(hint)}:
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        ours = (name.removeprefix("kaggle_digits.") for name in names if name.startswith("kaggle_digits."))
        modules |= {name for name in ours if (PACKAGE / _file_of(name)).is_file()}
    return modules
