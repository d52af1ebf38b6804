"""What a process asks of the machine it runs on."""

from __future__ import annotations

import errno
import resource
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.internet.interfaces import IReactorFromThreads


def raise_file_limit() -> int:
    """
    Allow this process as many open files as the system lets it have.

    :return: how many that is.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def dual_stack() -> bool:
    """Whether a socket that listens on ``::`` takes connections by IPv4 as well."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            if probe.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
                return False
            probe.bind(("::", 0))
    except OSError as error:
        # Without IPv6 in the kernel, or with it turned off.
        return error.errno == errno.EADDRINUSE
    return True


def measure_steadily(reactor: Any) -> None:
    """
    Have the reactor measure time with the clock that is never set; call it before anything is scheduled.

    Twisted's own choice is the wall clock: put back by an hour, every timeout would come an hour late; put forward,
    all would come at once and cut what is under way.
    """
    reactor.seconds = time.monotonic


def on_hangup(reactor: IReactorFromThreads, call: Callable[[], None]) -> None:
    """Have ``call`` made on the reactor's thread whenever SIGHUP comes, from now on for this process."""
    signal.signal(signal.SIGHUP, lambda _number, _frame: reactor.callFromThread(call))


def on_repeated_end(reactor: IReactorFromThreads, is_ending: Callable[[], bool], call: Callable[[], None]) -> None:
    """
    Have ``call`` made, on the reactor's thread, for every SIGTERM and SIGINT after the first: that one ends the
    reactor, which takes any further for a mistake. From now on for this process.

    :param is_ending: whether the process ends already for another reason.
    """
    asked = False

    def watch(number: signal.Signals) -> None:
        first: Any = signal.getsignal(number)

        def handle(signum: int, frame: FrameType | None) -> None:
            nonlocal asked
            if asked or is_ending():
                reactor.callFromThread(call)
            else:
                asked = True
                first(signum, frame)

        if callable(first):
            signal.signal(number, handle)

    for number in (signal.SIGTERM, signal.SIGINT):
        watch(number)
