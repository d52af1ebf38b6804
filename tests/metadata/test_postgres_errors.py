"""What the words of PostgreSQL mean, as its sources have them (``postmaster.c``, ``postinit.c``, ``auth.c``)."""

from __future__ import annotations

import pytest

from callfs.metadata.postgres_errors import may_come_up

REFUSED = 'connection failed: connection to server at "127.0.0.1", port 5432 failed: '


@pytest.mark.parametrize(
    "words",
    [
        "Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?",
        "server closed the connection unexpectedly",
        "timeout expired",
        "FATAL:  the database system is starting up",
        "FATAL:  the database system is not yet accepting connections\n"
        "DETAIL:  Consistent recovery state has not been yet reached.",
        "FATAL:  the database system is not accepting connections\nDETAIL:  Hot standby mode is disabled.",
        "FATAL:  the database system is in recovery mode",
        "FATAL:  the database system is shutting down",
        "FATAL:  sorry, too many clients already",
        'FATAL:  too many connections for role "callfs"',
        "FATAL:  remaining connection slots are reserved for non-replication superuser connections",
        "FATAL:  terminating connection due to administrator command",
        "FATAL:  canceling authentication due to timeout",
    ],
)
def test_passing(words: str) -> None:
    """A server that can't be reached, or isn't ready, is waited for: also while it recovers after a crash."""
    assert may_come_up(REFUSED + words)


@pytest.mark.parametrize(
    "words",
    [
        'FATAL:  password authentication failed for user "callfs"',
        'FATAL:  database "callfs" does not exist',
        'FATAL:  database "callfs" is not currently accepting connections',
        'FATAL:  role "callfs" is not permitted to log in',
        'FATAL:  no pg_hba.conf entry for host "127.0.0.1", user "callfs", database "callfs", no encryption',
        "server does not support SSL, but SSL was required",
    ],
)
def test_final(words: str) -> None:
    """What only a person can mend isn't waited for."""
    assert not may_come_up(REFUSED + words)
