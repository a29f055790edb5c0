"""Supply: what is installed is at least as new as this package demands, and is pinned with checksums."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
DEMANDED = [
    Requirement(line) for line in (*PROJECT["dependencies"], *EXTRAS["jax"], *EXTRAS["pad"], *EXTRAS["notebook"])
]
FLOORS = {
    "pillow": "11.3",  # of PSD, older releases than 12.3 are not used, see photo.formats
    "pillow-heif": "1.3.0",  # CVE-2026-28231
    "starlette": "0.47.2",  # CVE-2024-47874, CVE-2025-54121
    "requests": "2.32.4",  # CVE-2024-47081
    "urllib3": "2.7.0",  # CVE-2026-44431, CVE-2026-44432
}
"""Releases from which on no known fault can be reached. Faults of Keras in reading files are out of reach in every
release, because none of its readers is used."""


@pytest.mark.parametrize("demanded", DEMANDED, ids=str)
def test_what_is_installed_is_not_below_the_floor(demanded):
    if demanded.marker and not demanded.marker.evaluate():
        pytest.skip("this platform does not need it")
    assert demanded.specifier.contains(importlib.metadata.version(demanded.name), prereleases=True)


@pytest.mark.parametrize("name", FLOORS)
def test_floors_are_above_known_faults(name):
    (demanded,) = [each for each in DEMANDED if each.name == name]
    (floor,) = [each.version for each in demanded.specifier if each.operator == ">="]
    assert Version(floor) >= Version(FLOORS[name])


def test_no_reader_of_keras_is_used():
    for file in (ROOT / "kaggle_digits").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        if file.name == "formats.py":  # reads what it has just written itself
            text = text.replace("keras.saving.load_model(file, compile=False)", "")
        assert not re.search(r"load_weights|load_model|deserialize|h5py|allow_pickle=True|import pickle", text), file


def test_every_pinned_version_has_checksums_and_no_address():
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert "//" not in text
    pins = re.split(r"\n(?=\S)", re.sub(r"(?m)^#.*\n", "", text).strip())
    assert len(pins) > 100
    for pin in pins:
        assert re.fullmatch(r"[\w.-]+==\S+( ;[^\\]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+", pin), pin[:80]


def test_what_is_pinned_is_not_below_the_floor():
    pinned = dict(re.findall(r"(?m)^([\w.-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text(encoding="utf-8")))
    for demanded in DEMANDED:
        assert demanded.specifier.contains(pinned[demanded.name.lower().replace("_", "-")]), demanded


def build(source: Path, out: Path) -> list[Path]:
    """Build wheel and sdist as of 2026-11-30, and return both files."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "SOURCE_DATE_EPOCH": "1796000000"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted(out.iterdir())


def test_a_release_can_be_made_again_byte_for_byte_and_says_what_is_in_it(tmp_path):
    for module in ("build", "hatchling", "cyclonedx"):
        pytest.importorskip(module, reason="the extra [check] is not installed")
    wheel, sdist = build(ROOT, tmp_path / "once")
    shutil.unpack_archive(sdist, tmp_path / "elsewhere", filter="data")
    again = build(tmp_path / "elsewhere" / sdist.name.removesuffix(".tar.gz"), tmp_path / "again")
    assert [file.read_bytes() for file in again] == [wheel.read_bytes(), sdist.read_bytes()]

    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        contents = {name: archive.read(name) for name in names if name.endswith((".npz", ".cdx.json"))}
    tracked = subprocess.run(["git", "ls-files", "kaggle_digits"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {name for name in names if name.startswith("kaggle_digits/")} == set(tracked.stdout.splitlines())
    (sbom,) = [json.loads(text) for name, text in contents.items() if "/sboms/" in name]
    assert sbom["metadata"]["component"]["version"] == importlib.metadata.version("kaggle-digits")
    parts = {part["name"]: part for part in sbom["components"]}
    networks = {name for name in contents if name.endswith(".npz")}
    assert set(parts) == networks | {Requirement(line).name for line in PROJECT["dependencies"]}
    for name in networks:
        assert parts[name]["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(contents[name]).hexdigest()}]
