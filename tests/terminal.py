"""Run the command line with a real Kaggle client of a given version, against the loopback server."""

from __future__ import annotations

import base64
import importlib.metadata
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from kaggle_server import KaggleServer

TESTS = Path(__file__).parent
ROOT = TESTS.parent
CLIENTS = ("2.0.2", "2.2.5")
"""The client of Kaggle's own image, and the newest one."""
INSTALLED = importlib.metadata.version("kaggle")
KEY, TOKEN = "0123456789abcdef-legacy-key", "KGAT_0123456789abcdef-access-token"
SECRETS = (KEY, TOKEN, base64.b64encode(f"ada:{KEY}".encode()).decode())


def folder_of(client: str) -> list[str]:
    """Return the folder of that client, to put first on the import path; nothing for the installed client."""
    if client == INSTALLED:
        return []
    folder = Path(sys.prefix) / "clients" / client
    if not folder.is_dir():
        pytest.skip(f"the Kaggle client {client} is not at hand: `make test` installs it")
    return [str(folder)]


@dataclass
class Terminal:
    """A user's shell with its own home, its own folder, and the loopback server as its only network."""

    server: KaggleServer
    client: str
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.upper().startswith("KAGGLE") and name.upper() not in ("NO_PROXY", "VERBOSE", "VERBOSE_OUTPUT")
        }
        proxy = f"http://127.0.0.1:{self.server.port}"
        return kept | {
            "HOME": str(self.home),
            "PYTHONPATH": os.pathsep.join([*folder_of(self.client), str(ROOT)]),
            "PAUSES_FILE": str(self.home / "pauses.txt"),
            "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
            "KAGGLE_USERNAME": "ada",
            "KAGGLE_KEY": KEY,
            **dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"), proxy),
        }

    def start(self, *arguments: str, **changes: str | None) -> subprocess.Popen[str]:
        environment = {name: value for name, value in (self.environment | changes).items() if value is not None}
        return subprocess.Popen(
            [sys.executable, str(TESTS / "hurried.py"), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **changes: str | None) -> tuple[int, str, str]:
        """Run a command, and return its exit code, stdout and stderr."""
        process = self.start(*arguments, **changes)
        out, err = process.communicate(timeout=120)
        assert "Traceback" not in err, err
        return process.returncode, out, err

    def run_then_kill(self, *arguments: str) -> None:
        """Start a command, and kill it when it reaches the fault of the server."""
        process = self.start(*arguments)
        assert self.server.reached.wait(60), process.communicate(timeout=10)
        process.kill()
        process.communicate(timeout=10)
        self.server.reached.clear()

    def pauses(self) -> list[float]:
        file = self.home / "pauses.txt"
        return [float(line) for line in file.read_text().split()] if file.exists() else []
