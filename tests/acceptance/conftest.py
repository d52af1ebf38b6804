"""
The daemons of the acceptance tests: one shared by all tests that need only a directory of their own, and
one per test where something is killed, filled up, or configured in its own way.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.http import Client

StartDaemon = Callable[..., Daemon]

ROOMY_LIMITS = {
    "link_generate_rate": 100_000,
    "link_generate_burst": 100_000,
    "download_rate": 100_000,
    "download_burst": 100_000,
}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Show the logs of a failed test's daemons."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for number, daemon in enumerate(getattr(item, "daemons", [])):
            report.sections.append((f"log of daemon {number} ({daemon.folder})", daemon.tail()))


def shown_on_failure(request: pytest.FixtureRequest, daemon: Daemon) -> None:
    """Let the report of this test show the daemon's log."""
    request.node.daemons = [*getattr(request.node, "daemons", []), daemon]


class DaemonShare:
    """The daemon that tests share; a new one takes over when a test has ended it."""

    def __init__(self, make_folder: Callable[[], Path], settings: dict[str, Any] | None = None) -> None:
        self._make_folder = make_folder
        self._settings = {"limits": ROOMY_LIMITS, **(settings or {})}
        self._daemon: Daemon | None = None

    def daemon(self) -> Daemon:
        """The running daemon."""
        if self._daemon is None or not self._daemon.running:
            self._daemon = Daemon(self._make_folder(), self._settings)
            self._daemon.start()
        return self._daemon

    def close(self) -> None:
        """End it."""
        if self._daemon is not None:
            self._daemon.close()


@pytest.fixture(scope="session")
def daemon_share(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonShare]:
    """Keeps the shared daemon for the whole run."""
    share = DaemonShare(lambda: tmp_path_factory.mktemp("shared-daemon"))
    yield share
    share.close()


@pytest.fixture
def daemon(daemon_share: DaemonShare, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """The shared daemon: a test may not stop it, nor leave its directory; it must survive every test."""
    shared = daemon_share.daemon()
    shown_on_failure(request, shared)
    yield shared
    assert shared.running, f"the test ended the shared daemon:\n{shared.tail()}"


@pytest.fixture
def start_daemon(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[StartDaemon]:
    """Makes daemons of this test alone; keyword ``start=False`` leaves one unstarted."""
    made: list[Daemon] = []

    def make(settings: dict[str, Any] | None = None, *, start: bool = True, **options: Any) -> Daemon:
        folder = options.pop("folder", None) or tmp_path / f"daemon-{len(made)}"
        folder.mkdir(exist_ok=True)
        daemon = Daemon(folder, settings, **options)
        made.append(daemon)
        shown_on_failure(request, daemon)
        return daemon.start() if start else daemon

    yield make
    for daemon in made:
        daemon.close()


def _client(daemon: Daemon, user: str | None) -> Iterator[Client]:
    client = daemon.client(user)
    yield client
    client.close()


@pytest.fixture
def alice(daemon: Daemon) -> Iterator[Client]:
    """An ordinary user."""
    yield from _client(daemon, "alice")


@pytest.fixture
def bob(daemon: Daemon) -> Iterator[Client]:
    """Another ordinary user."""
    yield from _client(daemon, "bob")


@pytest.fixture
def carol(daemon: Daemon) -> Iterator[Client]:
    """An administrator."""
    yield from _client(daemon, "carol")


@pytest.fixture
def nobody(daemon: Daemon) -> Iterator[Client]:
    """A client without a key."""
    yield from _client(daemon, None)


@pytest.fixture
def home(alice: Client, request: pytest.FixtureRequest) -> str:
    """A fresh directory of alice's."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)[:40]
    return alice.made(f"/{name}-{secrets.token_hex(4)}")
