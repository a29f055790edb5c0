"""Put a list of what the wheel contains and needs (an SBOM, as PEP 770 describes) into the wheel."""

from __future__ import annotations

import hashlib
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.builders.utils import get_reproducible_timestamp
from packageurl import PackageURL
from packaging.requirements import Requirement

NETWORKS = {
    "kaggle_digits/learners/packaged_run/model.npz": "reads digits",
    "kaggle_digits/handwriting/ink.npz": "finds the ink of digits on pictures",
}
"""The trained weights in the package, and what they are for. `make networks` makes them from train.csv."""


class SbomHook(BuildHookInterface):
    """Writes the SBOM before a wheel is packed. The same source gives the same bytes."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the SBOM to the files of a wheel, but not to an installation that uses the checkout itself."""
        if version == "editable":
            return
        self.folder = tempfile.TemporaryDirectory()
        file = Path(self.folder.name) / f"{self.metadata.name}.cdx.json"
        file.write_text(self.describe(), encoding="utf-8")
        build_data["sbom_files"].append(str(file))

    def finalize(self, *_: object) -> None:
        """Remove the temporary file."""
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def describe(self) -> str:
        """Return the SBOM as CycloneDX 1.6 in JSON: the networks by their checksums, and the required packages."""
        name, version = self.metadata.name, self.metadata.version
        package = _package(name, version=version, licenses=[LicenseExpression(self.metadata.core.license_expression)])
        bom = Bom(serial_number=uuid5(NAMESPACE_URL, f"pkg:pypi/{name}@{version}"))
        bom.metadata.timestamp = datetime.fromtimestamp(get_reproducible_timestamp(), UTC)
        bom.metadata.component = package
        needed = [Requirement(text) for text in self.metadata.core.dependencies]
        parts = [
            *(_network(Path(self.root), file, purpose) for file, purpose in NETWORKS.items()),
            *(_package(each.name, scope=ComponentScope.REQUIRED, properties=_limits(each)) for each in needed),
        ]
        bom.components.update(parts)
        bom.register_dependency(package, parts)
        return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


def _package(name: str, *, version: str | None = None, **fields: Any) -> Component:
    purl = PackageURL("pypi", name=name, version=version)
    return Component(name=name, version=version, purl=purl, bom_ref=str(purl), **fields)


def _limits(needed: Requirement) -> list[Property]:
    named = {"versions": str(needed.specifier), "condition": str(needed.marker or "")}
    return [Property(name=f"kaggle-digits:{name}", value=value) for name, value in named.items() if value]


def _network(root: Path, file: str, purpose: str) -> Component:
    checksum = HashType(alg=HashAlgorithm.SHA_256, content=hashlib.sha256((root / file).read_bytes()).hexdigest())
    kind = ComponentType.MACHINE_LEARNING_MODEL
    return Component(name=file, type=kind, bom_ref=file, description=f"a network that {purpose}", hashes=[checksum])
