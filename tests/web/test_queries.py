"""Values of parameters and options, and the choice of a format."""

from __future__ import annotations

import pytest

from callfs.errors import BadRequest
from callfs.web.negotiation import prefers
from callfs.web.queries import boolean, integer, integer_or_none

JSON, LINES = "application/json", "application/x-ndjson"


class TestBooleans:
    """true and false."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [("true", True), ("TRUE", True), ("1", True), ("yes", True), ("false", False), ("0", False), ("No", False)],
    )
    def test_both_values_in_their_spellings(self, text: str, expected: bool) -> None:
        """Whatever the case."""
        assert boolean("recursive", text) is expected

    def test_absent_is_the_default(self) -> None:
        """False, unless said otherwise."""
        assert boolean("recursive", None) is False
        assert boolean("recursive", None, default=True) is True

    @pytest.mark.parametrize("text", ["", "maybe", "2", "tru", "truee"])
    def test_anything_else_is_refused_by_name(self, text: str) -> None:
        """A mistake in a flag isn't taken for its absence."""
        with pytest.raises(BadRequest, match="recursive"):
            boolean("recursive", text)


class TestIntegers:
    """Whole numbers."""

    @pytest.mark.parametrize(("text", "expected"), [("1", 1), ("0010", 10), ("+7", 7), (" 5 ", 5)])
    def test_whole_numbers_within_the_limits(self, text: str, expected: int) -> None:
        """Both limits are allowed."""
        assert integer("limit", text, expected, expected) == expected

    @pytest.mark.parametrize("text", ["", "x", "1.0", "1e3", "0x10", "-1", "11", "1_0", "٣", "9" * 10_000])
    def test_anything_else_is_refused_by_name(self, text: str) -> None:
        """No number, or one out of the limits."""
        with pytest.raises(BadRequest, match="limit must be a whole number from 1 to 10"):
            integer("limit", text, 1, 10)

    def test_what_is_no_number_can_count_as_absent(self) -> None:
        """For the one parameter that wants it so."""
        assert integer_or_none("many") is None
        assert integer_or_none(None) is None
        assert integer_or_none("-3") == -3


class TestNegotiation:
    """Which format a client prefers."""

    @pytest.mark.parametrize(
        ("accept", "expected"),
        [
            (None, False),
            ("", False),
            ("*/*", False),
            (JSON, False),
            (LINES, True),
            (LINES.upper(), True),
            (f"{LINES}, */*;q=0.1", True),
            (f"{JSON}, {LINES}", True),
            (f"{JSON}, {LINES};q=0.5", False),
            (f"{JSON};q=0.2, {LINES}; q=0.5", True),
            (f"{LINES};q=0", False),
            (f"{LINES};q=zero", True),
        ],
    )
    def test_the_named_format_wins_by_its_weight(self, accept: str | None, expected: bool) -> None:
        """RFC 9110, section 12.5.1; a wildcard gets the default."""
        assert prefers(accept, LINES, JSON) is expected
