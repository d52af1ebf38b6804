"""
Options whose part isn't in this version yet: they are refused rather than ignored.

When a part is built its rows go.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from callfs.config.problems import Problem
from callfs.config.schema import Config

SWITCHES: Mapping[str, tuple[str, Collection[Any]]] = {
    "server.protocol": ("TLS", ("auto", "http")),
}
"""Keys of which some values need a part that isn't there: the part, and the values that don't need it."""

SETTINGS: Mapping[str, str] = {
    "server.cert_file": "TLS",
    "server.key_file": "TLS",
    "server.enable_quic": "HTTP/3",
    "server.quic_listen_addr": "HTTP/3",
    "erasure.": "erasure coding",
}
"""Keys, or what keys begin with, that have no effect without a part that isn't there."""

_LISTENING = ("server.listen_addr", "metrics.listen_addr")


def unbuilt_problems(config: Config, sources: Mapping[str, str]) -> list[Problem]:
    """
    What the configuration asks of parts that aren't built.

    :param sources: where each full key was given; keys with their default aren't in it.
    """
    problems = []
    for key, value in config.items():
        if key not in sources:
            continue
        part, harmless = SWITCHES.get(key, ("", None))
        if harmless is None:
            part = next((part for start, part in SETTINGS.items() if key.startswith(start)), "")
            harmless = (value,) if value is None or value is False else ()
        if key in _LISTENING and str(value).startswith("ssl:"):
            part, harmless = "TLS", ()
        if part and value not in harmless:
            problems.append(
                Problem(key, f"{part} isn't available in this version of CallFS: remove it", sources[key])
            )
    return problems
