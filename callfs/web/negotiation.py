"""Which of the formats on offer a client prefers (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import re

_WEIGHT = re.compile(r"[ \t]*q=([01](?:\.[0-9]{0,3})?)[ \t]*", re.IGNORECASE)


def prefers(accept: str | None, wanted: str, default: str) -> bool:
    """
    Whether ``Accept`` names ``wanted``, with a weight above 0 and not below that of ``default``.

    :param accept: the header's value, ``None`` without one. A wildcard asks for the default.
    """
    weights = _weights(accept or "")
    return weights.get(wanted, 0.0) > 0 and weights[wanted] >= weights.get(default, 0.0)


def _weights(accept: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for element in accept.split(","):
        name, *parameters = element.split(";")
        matches = [match for parameter in parameters if (match := _WEIGHT.fullmatch(parameter))]
        weights[name.strip(" \t").lower()] = float(matches[-1][1]) if matches else 1.0
    return weights
