"""
What a changed configuration changes in a running daemon.
"""

from __future__ import annotations

from dataclasses import dataclass

from callfs.config.schema import Config

AT_ONCE = (
    "auth.",
    "log.level",
    "log.format",
    "limits.",
    "server.cert_file",
    "server.key_file",
)
"""Keys, or what keys begin with, that take effect on SIGHUP; all others need a restart."""


@dataclass(frozen=True)
class Changes:
    """
    Changed keys, in the order of the reference.

    :param at_once: those that take effect now.
    :param after_restart: those of which an operator has to be told that they don't.
    """

    at_once: tuple[str, ...]
    after_restart: tuple[str, ...]


def reloadable_changes(old: Config, new: Config) -> Changes:
    """Which keys differ, and which of them a running daemon takes over."""
    before = dict(old.items())
    changed = [key for key, value in new.items() if value != before[key]]
    return Changes(
        tuple(key for key in changed if key.startswith(AT_ONCE)),
        tuple(key for key in changed if not key.startswith(AT_ONCE)),
    )
