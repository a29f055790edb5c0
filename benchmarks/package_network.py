"""Make the network that comes with the package from a run folder.

    kaggle-digits train --recipe handwriting --data digit-recognizer.zip --run network
    .venv/bin/python benchmarks/package_network.py network

The weights are stored in half precision, so that twice as many fit.
"""

from __future__ import annotations

import argparse
import tempfile
import zipfile
from pathlib import Path

from kaggle_digits.backend import import_backend
from kaggle_digits.files import atomic_path
from kaggle_digits.predict import PACKAGED_RUN
from kaggle_digits.runs import RUN_FILE, read_run


def main() -> None:
    """Write the two files of the packaged run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a finished run folder of a network")
    options = parser.parse_args()
    import_backend("tensorflow")
    from kaggle_digits.learners.models import build_model, without_own_normalisation
    from kaggle_digits.learners.network import MODEL_FILE

    (recipe,) = read_run(options.run).recipe.networks
    small, trained = (build_model(recipe, precision=precision) for precision in ("float16", "float32"))
    trained.load_weights(options.run / MODEL_FILE)
    small.set_weights(trained.get_weights())
    with tempfile.TemporaryDirectory() as folder, atomic_path(PACKAGED_RUN / MODEL_FILE) as path:
        plain = Path(folder) / MODEL_FILE
        without_own_normalisation(small).save(plain)
        # Keras writes the archive without compression.
        with (
            zipfile.ZipFile(plain) as stored,
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed,
        ):
            for entry in stored.infolist():
                packed.writestr(entry.filename, stored.read(entry))
    (PACKAGED_RUN / RUN_FILE).write_bytes((options.run / RUN_FILE).read_bytes())
    print(sum(file.stat().st_size for file in PACKAGED_RUN.iterdir()), "bytes")


if __name__ == "__main__":
    main()
