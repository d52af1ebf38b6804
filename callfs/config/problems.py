"""
What can be wrong with a configuration, said so that an operator can put it right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """
    One thing that is wrong.

    :param key: the full key, ``server.listen_addr``; empty for the configuration as a whole.
    :param message: what was given, as a type and never a secret's value, and what is allowed.
    :param source: where it was given (``config.yaml, line 3``, ``environment CALLFS_LOG__LEVEL``), or empty.
    """

    key: str
    message: str
    source: str = ""

    def __str__(self) -> str:
        where = f" ({self.source})" if self.source else ""
        return f"{self.key}: {self.message}{where}" if self.key else f"{self.message}{where}"


class ConfigurationError(Exception):
    """
    The configuration can't be used.

    :param problems: all that is wrong with it, at least one.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))
