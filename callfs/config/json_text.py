"""JSON, strictly: no name twice, no NaN, every fault said with its line."""

from __future__ import annotations

import json
from typing import Any, NoReturn


class InvalidJson(Exception):
    """The text is no JSON that can be used; the message says why and never repeats a value."""


def parse_json(text: str) -> Any:
    """
    Read a JSON text.

    :raises InvalidJson: it is none, names something twice, or is nested beyond reason.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise InvalidJson(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise InvalidJson("nested too deeply") from None
    except ValueError:
        raise InvalidJson("a number with too many digits") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise InvalidJson(f"the name {json.dumps(name)} is there twice")
        result[name] = value
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidJson(f"{name} is no JSON number")
