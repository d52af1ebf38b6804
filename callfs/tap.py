"""``twistd callfs``: the daemon under twistd."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from twisted.application.service import IService, Service
from twisted.internet import reactor
from twisted.logger import ILogObserver
from twisted.python import usage

from callfs.cli.server import STDOUT
from callfs.config.loader import Loaded, load
from callfs.config.problems import ConfigurationError
from callfs.logs import LogObserver
from callfs.logstream import LogStream
from callfs.recognition import CannotStart
from callfs.service import NodeService


class Options(usage.Options):
    """What ``twistd callfs`` takes after its name."""

    optParameters = [
        ["config", "c", None, "The configuration file; without it the usual places are looked in."],
    ]


class TwistdNode(NodeService):
    """A node whose log replaces twistd's own, and whose failure becomes twistd's exit status."""

    def setServiceParent(self, parent: Any) -> None:
        """Called with the application by twistd, before it looks for who takes the log."""
        if hasattr(parent, "setComponent"):
            parent.setComponent(ILogObserver, self.observer)
        Service.setServiceParent(self, parent)

    def startService(self) -> None:
        """Start, and see to the exit status."""
        reactor.addSystemEventTrigger("after", "shutdown", self._exit)
        super().startService()

    def _exit(self) -> None:
        if self.failed:
            # twistd ends with 0 whatever happened, unless a signal ended it; a supervisor needs to be told.
            sys.stdout.flush()
            os._exit(1)


def makeService(options: Options) -> IService:
    """
    The node that the options describe.

    :raises SystemExit: the configuration, or a certificate, can't be used; the problems are on standard error.
    """
    path = None if options["config"] is None else Path(options["config"])
    folder = Path.cwd()

    def read() -> Loaded:
        return load(path, os.environ, folder)

    try:
        loaded = read()
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None
    try:
        node: Service = TwistdNode(loaded, reactor, observer=LogObserver(_log_stream(options).write), reload=read)
    except CannotStart as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(1) from None
    return node


def _log_stream(options: Options) -> LogStream:
    """Where twistd was told to log: ``--logfile``; else standard output, or ``twistd.log`` in the background."""
    twistd: Any = options.parent or {}
    name = twistd.get("logfile") or ("-" if twistd.get("nodaemon") else "twistd.log")
    if name == "-":
        return LogStream(STDOUT)
    return LogStream(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640))
