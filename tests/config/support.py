"""Configurations for tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from callfs.config.loader import Loaded, load
from callfs.config.problems import ConfigurationError

ALICE = "alice-key-0123456789"
INTERNAL = "internal-secret-0123456789"
LINK = "link-secret-0123456789"

AUTH = {
    "CALLFS_AUTH__API_KEY_USERS__ALICE": ALICE,
    "CALLFS_AUTH__INTERNAL_PROXY_SECRET": INTERNAL,
    "CALLFS_AUTH__SINGLE_USE_LINK_SECRET": LINK,
}
"""An environment that gives what every configuration needs."""


class Folder:
    """A working directory in which configurations are loaded; nothing of the machine's own is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, content: str | bytes) -> Path:
        """Put a file into the folder."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def load(self, yaml: str | None = None, auth: bool = True, given: Path | None = None, **environ: str) -> Loaded:
        """Load a ``config.yaml`` of this content with this environment."""
        if yaml is not None:
            self.write("config.yaml", yaml)
        return load(given, {**(AUTH if auth else {}), **environ}, self.path, self.path / "etc/callfs/config.yaml")

    def problems(
        self, yaml: str | None = None, auth: bool = True, given: Path | None = None, **environ: str
    ) -> list[str]:
        """The problems that loading meets, as an operator reads them."""
        with pytest.raises(ConfigurationError) as caught:
            self.load(yaml, auth, given, **environ)
        return [str(problem).replace(str(self.path), "") for problem in caught.value.problems]

    def problem(self, yaml: str | None = None, auth: bool = True, given: Path | None = None, **environ: str) -> str:
        """The only problem that loading meets."""
        (problem,) = self.problems(yaml, auth, given, **environ)
        return problem
