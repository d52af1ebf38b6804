"""
Small JSON bodies, decoded into frozen values. The Content-Type of a request isn't looked at.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from callfs.errors import BadRequest

T = TypeVar("T", bound=msgspec.Struct)


def decode(raw: bytes, wanted: type[T]) -> T:
    """
    Decode a JSON object into ``wanted``.

    :raises BadRequest: it is no JSON or no object, lacks a field, or has unknown ones (all are named) or one of the
        wrong type.
    """
    if not raw.strip(b" \t\r\n"):
        raise BadRequest("the body is empty; a JSON object is expected")
    _refuse_unknown(_decoded(raw, dict[str, msgspec.Raw]), wanted)
    value: T = _decoded(raw, wanted)
    return value


def _decoded(raw: bytes, wanted: Any) -> Any:
    try:
        return msgspec.json.decode(raw, type=wanted)
    except msgspec.ValidationError as error:
        raise BadRequest(f"the JSON body can't be used: {error}") from None
    except msgspec.DecodeError as error:
        raise BadRequest(f"the body isn't JSON: {error}") from None
    except UnicodeDecodeError:
        raise BadRequest("the body isn't JSON: it isn't valid UTF-8") from None
    except RecursionError:
        raise BadRequest("the JSON body is nested too deeply") from None


def _refuse_unknown(found: dict[str, Any], wanted: type[msgspec.Struct]) -> None:
    known = [field.encode_name for field in msgspec.structs.fields(wanted)]
    unknown = sorted(set(found) - set(known))
    if unknown:
        shown = ", ".join(f"'{name[:64]}'" for name in unknown[:10])
        raise BadRequest(f"the JSON body has unknown fields: {shown}; known are {', '.join(known)}")
