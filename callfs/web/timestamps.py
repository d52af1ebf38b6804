"""
Instants as text: RFC 3339 in JSON and ``X-CallFS-MTime``, HTTP dates in the headers of HTTP.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
SECOND = 1_000_000

_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TIME = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_MONTH = "(?P<month>" + "|".join(_MONTHS) + ")"
_DAY = "(?:" + "|".join(_DAYS) + ")"
_HTTP_DATES = tuple(
    re.compile(pattern, re.ASCII)
    for pattern in (
        rf"{_DAY}, (?P<day>\d\d) {_MONTH} (?P<year>\d{{4}}) {_TIME} GMT",
        rf"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (?P<day>\d\d)-{_MONTH}-(?P<year>\d\d) {_TIME} GMT",
        rf"{_DAY} {_MONTH} (?P<day>[ \d]\d) {_TIME} (?P<year>\d{{4}})",
    )
)


def rfc3339(instant: int) -> str:
    """An instant in UTC with microseconds, for example ``2026-01-31T08:15:00.000000Z``; sorts as it reads."""
    moment = _EPOCH + timedelta(microseconds=instant)
    return f"{moment.isoformat(timespec='microseconds')[:26]}Z"


def parse_rfc3339(text: str) -> int | None:
    """
    The instant of an RFC 3339 date and time, its fraction cut to microseconds.

    :return: ``None`` when it isn't one, or isn't between the years 1 and 9999.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    *date, fraction, sign, hours, minutes = match.groups()
    offset = timedelta(hours=int(hours), minutes=int(minutes)) if sign else timedelta()
    try:
        zone = timezone(-offset if sign == "-" else offset)
        year, month, day, hour, minute, second = map(int, date)
        moment = datetime(year, month, day, hour, minute, second, int((fraction or "")[:6].ljust(6, "0")), zone)
        if sign and int(minutes) > 59:
            return None
        return (moment.astimezone(UTC) - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError):
        return None


def http_date(instant: int) -> str:
    """The IMF-fixdate of an instant, cut to the second (RFC 9110, section 5.6.7)."""
    moment = _EPOCH + timedelta(microseconds=instant)
    return (
        f"{_DAYS[moment.weekday()]}, {moment.day:02d} {_MONTHS[moment.month - 1]} {moment.year:04d} "
        f"{moment.hour:02d}:{moment.minute:02d}:{moment.second:02d} GMT"
    )


def parse_http_date(text: str) -> int | None:
    """
    The instant of an HTTP date in any of its three forms (RFC 9110, section 5.6.7).

    Of the form with a two-digit year, 69 to 99 are in the 20th century, as POSIX has it for ``%y``.

    :return: ``None`` when it isn't one.
    """
    for pattern in _HTTP_DATES:
        if match := pattern.fullmatch(text.strip(" \t")):
            year = int(match["year"])
            if len(match["year"]) == 2:
                year += 1900 if year >= 69 else 2000
            try:
                moment = datetime(
                    year,
                    _MONTHS.index(match["month"]) + 1,
                    int(match["day"]),
                    int(match["hour"]),
                    int(match["minute"]),
                    min(int(match["second"]), 59) if match["second"] == "60" else int(match["second"]),
                    tzinfo=UTC,
                )
            except ValueError:
                return None
            return (moment - _EPOCH) // _MICROSECOND
    return None


def whole_seconds(instant: int) -> int:
    """The instant cut to the second, as an HTTP date shows it."""
    return instant - instant % SECOND
