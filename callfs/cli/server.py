"""``callfs server``: run the daemon in the foreground."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import click
from twisted.logger import globalLogBeginner

from callfs.cli.options import config_option, config_path, loaded_configuration
from callfs.config.loader import load
from callfs.logs import LogObserver

FAILURE_STATUS = 1


@click.command()
@config_option
def server() -> None:
    """
    Run the daemon in the foreground until SIGTERM or SIGINT.

    The log goes to standard output. SIGHUP rereads keys, limits, log level and format.

    Exit status: 0 after a graceful stop, 1 when it could not start or had to stop, 2 for a bad configuration.
    """
    sys.exit(run_server(config_path()))


def _nothing(_step: str) -> None:
    """The failpoint of a daemon that isn't under test."""


def run_server(path: Path | None, reached: Callable[[str], None] = _nothing) -> int:
    """
    Run a node until it is told to stop.

    :param path: the configuration file; ``None`` looks in the usual places.
    :param reached: called at named steps of a write; tests end the process there.
    :return: the exit status.
    """
    from twisted.internet import reactor

    from callfs.node import Node

    loaded = loaded_configuration(path)
    observer = LogObserver(write_stdout)
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    node = Node(
        loaded,
        reactor,
        observer=observer,
        reload=lambda: load(path, os.environ, Path.cwd()),
        reached=reached,
    )
    reactor.addSystemEventTrigger("before", "shutdown", node.stopService)
    reactor.callWhenRunning(node.startService)
    reactor.run()
    return FAILURE_STATUS if node.failed else 0


def write_stdout(text: str) -> None:
    """Write to standard output; a reader that went away is no reason to stop serving files."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(text)
        sys.stdout.flush()
