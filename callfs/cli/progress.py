"""How far a long command is: a bar on a terminal, else a line every few seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

LINE_SECONDS = 5.0


class Progress:
    """
    Steps of a known total, shown on standard error.

    :param bar: click's; hidden when nobody sees it.
    :param lines: write lines instead.
    :param seconds: a clock that never jumps.
    """

    def __init__(self, bar: Any, label: str, total: int, lines: bool, seconds: Callable[[], float]) -> None:
        self._bar = bar
        self._label = label
        self._total = total
        self._lines = lines
        self._seconds = seconds
        self._done = 0
        self._said_at = seconds()

    def step(self, count: int, detail: str = "") -> None:
        """
        So many more are done.

        :param detail: what else there is to say of how it goes.
        """
        self._done += count
        if not self._lines:
            self._bar.update(count)
        elif self._seconds() - self._said_at >= LINE_SECONDS:
            self._said_at = self._seconds()
            said = f"{self._label}: {self._done} of {max(self._total, self._done)}"
            click.echo(f"{said}, {detail}" if detail else said, err=True)


@contextmanager
def shown(label: str, total: int, seconds: Callable[[], float]) -> Iterator[Progress]:
    """
    Show progress during a block.

    :param total: how many steps are expected; there may be more or fewer.
    """
    lines = not sys.stderr.isatty()
    with click.progressbar(length=max(total, 1), label=label, file=sys.stderr, show_pos=True, hidden=lines) as bar:
        yield Progress(bar, label, total, lines, seconds)
