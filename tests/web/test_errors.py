"""The one table of statuses, and errors as answers."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from callfs import errors
from callfs.web.errors import STATUS, error_answer, internal_error


def classes(base: type[errors.CallFSError] = errors.CallFSError) -> Iterator[type[errors.CallFSError]]:
    """All errors that a client can meet."""
    for subclass in base.__subclasses__():
        yield subclass
        yield from classes(subclass)


@pytest.mark.parametrize("error", sorted(set(classes()), key=lambda error: error.__name__))
def test_every_error_has_a_status(error: type[errors.CallFSError]) -> None:
    """Each code has a row in the table."""
    assert 400 <= STATUS[error.code] < 600


def test_every_status_has_an_error() -> None:
    """No row is for a code that nothing has."""
    assert set(STATUS) == {error.code for error in classes()}


def test_body() -> None:
    """The body is code, message and details as JSON."""
    answer = error_answer(errors.Conflict("it is «taken»", instance_id="b"))
    assert answer.status == 409
    assert answer.headers == {"Content-Type": "application/json"}
    assert json.loads(answer.body) == {"code": "CONFLICT", "message": "it is «taken»", "instance_id": "b"}


def test_headers() -> None:
    """401, 405, 416 and what can be retried carry the header that RFC 9110 wants."""
    assert error_answer(errors.AuthenticationFailed("no")).headers["WWW-Authenticate"] == "Bearer"
    assert error_answer(errors.MethodNotAllowed("no", ("GET", "PUT"))).headers["Allow"] == "GET, PUT"
    assert error_answer(errors.RangeNotSatisfiable("no", 7)).headers["Content-Range"] == "bytes */7"
    for seconds, header in ((0.0, "1"), (0.2, "1"), (1.0, "1"), (1.2, "2"), (60.0, "60")):
        assert error_answer(errors.RateLimited("no", seconds)).headers["Retry-After"] == header
    assert "Retry-After" not in error_answer(errors.OutcomeUnknown("no")).headers


def test_internal_error_says_nothing() -> None:
    """A fault's answer points to the log, and that is all."""
    assert error_answer(internal_error()).status == 500
