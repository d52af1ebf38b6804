"""Instants as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callfs.web.timestamps import http_date, parse_http_date, parse_rfc3339, rfc3339, whole_seconds

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
moments = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(lambda moment: moment.replace(tzinfo=UTC))


def instant(moment: datetime) -> int:
    """Microseconds since the epoch."""
    return (moment - EPOCH) // timedelta(microseconds=1)


class TestRfc3339:
    """JSON and X-CallFS-MTime."""

    @given(moments)
    def test_what_is_written_is_read_back(self, moment: datetime) -> None:
        """Nothing is lost, from year 1 to 9999."""
        text = rfc3339(instant(moment))
        assert parse_rfc3339(text) == instant(moment)
        assert datetime.fromisoformat(text) == moment

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("1970-01-01T00:00:01Z", 1_000_000),
            ("1970-01-01t00:00:01z", 1_000_000),
            ("1970-01-01T01:00:00+01:00", 0),
            ("1969-12-31T23:00:00-01:00", 0),
            ("1970-01-01T00:00:00.5Z", 500_000),
            ("1970-01-01T00:00:00.123456789Z", 123_456),
            ("1969-12-31T23:59:59.999999Z", -1),
        ],
    )
    def test_zones_fractions_and_case(self, text: str, expected: int) -> None:
        """Any offset, any fraction (cut to microseconds), T and Z in either case."""
        assert parse_rfc3339(text) == expected

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "now",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "1970-01-01 00:00:00Z",
            "1970-13-01T00:00:00Z",
            "1970-02-30T00:00:00Z",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:60Z",
            "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-01:00",
            "1970-01-01T00:00:00+25:00",
            "1970-01-01T00:00:00+01:60",
            "1970-01-01T00:00:00.Z",
            "١٩٧٠-01-01T00:00:00Z",
            "1970-01-01T00:00:00Z\n",
        ],
    )
    def test_anything_else_is_refused(self, text: str) -> None:
        """What is no RFC 3339 date and time, or out of reach, is None."""
        assert parse_rfc3339(text) is None


class TestHttpDate:
    """Last-Modified and the conditions."""

    @given(moments)
    def test_it_is_an_imf_fixdate(self, moment: datetime) -> None:
        """The same text as the standard library makes, and read back to the second."""
        whole = moment.replace(microsecond=0)
        assert http_date(instant(moment)) == format_datetime(whole, usegmt=True)
        assert parse_http_date(http_date(instant(moment))) == instant(whole) == whole_seconds(instant(moment))

    @pytest.mark.parametrize(
        "text",
        ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"],
    )
    def test_all_three_forms_are_read(self, text: str) -> None:
        """The examples of RFC 9110, section 5.6.7."""
        assert parse_http_date(text) == 784_111_777_000_000

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "0",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "1994-11-06T08:49:37Z",
            "Sun, 06 nov 1994 08:49:37 GMT",
        ],
    )
    def test_anything_else_is_no_date(self, text: str) -> None:
        """Such a header is to be ignored."""
        assert parse_http_date(text) is None

    def test_two_digit_years_are_of_two_centuries(self) -> None:
        """As POSIX has it: 69 to 99 in the 20th century, 00 to 68 in the 21st."""
        assert parse_http_date("Monday, 06-Nov-69 08:49:37 GMT") == parse_http_date("Thu, 06 Nov 1969 08:49:37 GMT")
        assert parse_http_date("Monday, 06-Nov-68 08:49:37 GMT") == parse_http_date("Tue, 06 Nov 2068 08:49:37 GMT")

    def test_a_leap_second_is_read(self) -> None:
        """23:59:60 counts as the second before."""
        assert parse_http_date("Sat, 31 Dec 2016 23:59:60 GMT") == parse_http_date("Sat, 31 Dec 2016 23:59:59 GMT")
