"""``callfs server``: run the daemon in the foreground."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from twisted.logger import globalLogBeginner

from callfs.cli.options import config_option, config_path, loaded_configuration
from callfs.config.loader import load
from callfs.logs import LogObserver
from callfs.logstream import LogStream

FAILURE_STATUS = 1
STDOUT = 1


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


@contextmanager
def _importing() -> Iterator[None]:
    """
    Look for no garbage while modules are imported, nor among what they are made of ever after: it is there as long
    as the process. That is a tenth of the start, and most of the pause that each full collection would be later.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def run_server(path: Path | None, reached: Callable[[str], None] = _nothing) -> int:
    """
    Run a node until it is told to stop.

    :param path: the configuration file; ``None`` looks in the usual places.
    :param reached: called at named steps of a write; tests end the process there.
    :return: the exit status.
    """
    with _importing():
        from twisted.internet import reactor

        from callfs.recognition import CannotStart
        from callfs.service import NodeService

    loaded = loaded_configuration(path, warn=False)
    observer = LogObserver(LogStream(STDOUT).write)
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    try:
        service = NodeService(
            loaded,
            reactor,
            observer=observer,
            reload=lambda: load(path, os.environ, Path.cwd()),
            reached=reached,
        )
    except CannotStart as error:
        click.echo(f"callfs server: {error}", err=True)
        return FAILURE_STATUS
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.callWhenRunning(service.startService)
    reactor.run()
    return FAILURE_STATUS if service.failed else 0
