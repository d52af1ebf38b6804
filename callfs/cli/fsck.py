"""``callfs fsck``: do names and bytes agree?"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from callfs.backends.localfs import LocalBackend
from callfs.backends.rootfolder import RootFolder, RootUnusable
from callfs.cli.options import config_option, config_path, loaded_configuration
from callfs.config.schema import Config
from callfs.engine.fsck import ConsistencyCheck, Finding, FindingKind, Progress, Repair, Report, TooManyUnnamed
from callfs.errors import CallFSError
from callfs.metadata.commands import RegisterInstance
from callfs.metadata.interfaces import StoreUnusable
from callfs.metadata.sqlite import SqliteStore
from callfs.metrics import Metrics

FAILURE_STATUS = 1
_THREADS = 4
_LOST = (FindingKind.MISSING_BLOB, FindingKind.WRONG_SIZE, FindingKind.WRONG_CHECKSUM)


@dataclass(frozen=True)
class Options:
    """What the operator asked for."""

    deep: bool
    repair: bool
    remove_lost: bool
    adopt_root: bool
    force: bool

    @property
    def changes(self) -> bool:
        """Whether anything is to be written, so that the daemon must be stopped."""
        return self.repair or self.remove_lost or self.adopt_root


@dataclass
class Tally:
    """What was found."""

    findings: list[Finding] = field(default_factory=list)
    blobs_judged: int = 0

    def of(self, *kinds: FindingKind) -> list[Finding]:
        """The findings of these kinds."""
        return [finding for finding in self.findings if finding.kind in kinds]
