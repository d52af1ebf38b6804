"""Small JSON bodies."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callfs.errors import BadRequest
from callfs.web.bodies import decode


class Order(msgspec.Struct, frozen=True):
    """What the tests decode."""

    path: str
    count: int = 1


def refusal(raw: bytes) -> str:
    """The message that a body is refused with."""
    with pytest.raises(BadRequest) as caught:
        decode(raw, Order)
    return caught.value.message


class TestDecode:
    """JSON into frozen values."""

    def test_an_object_becomes_a_value(self) -> None:
        """Blanks around it make no difference."""
        assert decode(b' {"path": "/\\u00e4", "count": 2}\r\n', Order) == Order("/ä", 2)

    def test_all_unknown_fields_are_named(self) -> None:
        """A client with a typing mistake sees which."""
        message = refusal(b'{"path": "/a", "cuont": 2, "zz": {"deep": [1]}}')
        assert "'cuont', 'zz'" in message
        assert "path, count" in message

    @pytest.mark.parametrize(
        ("raw", "part"),
        [
            (b"", "empty"),
            (b" \r\n", "empty"),
            (b"path=/a", "isn't JSON"),
            (b'{"path": "/a"} x', "isn't JSON"),
            (b'{"path": "/a"', "isn't JSON"),
            (b'{"path": "\xff"}', "UTF-8"),
            (b'{"path": "\\ud800"}', "isn't JSON"),
            (b'{"path": NaN}', "isn't JSON"),
            (b"[]", "object"),
            (b'"text"', "object"),
            (b"{}", "path"),
            (b'{"path": 1}', "$.path"),
            (b'{"path": null}', "$.path"),
            (b'{"path": "/a", "count": "1"}', "$.count"),
            (b'{"path": "/a", "count": true}', "$.count"),
            (b'{"path": "/a", "count": 1.5}', "$.count"),
            (b'{"path": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested"),
        ],
    )
    def test_what_cannot_be_used_is_refused_with_the_reason(self, raw: bytes, part: str) -> None:
        """Each fault has a message that names it."""
        assert part in refusal(raw)

    @given(st.binary(max_size=60))
    def test_no_body_makes_it_fail_otherwise(self, raw: bytes) -> None:
        """A value or 400, whatever is sent."""
        try:
            decode(raw, Order)
        except BadRequest:
            return
