"""
The credentials for S3: the configured keys, or the usual AWS chain by botocore.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError
from botocore.session import Session
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from callfs.backends.jobs import Jobs
from callfs.backends.s3_errors import S3NoCredentials
from callfs.backends.s3_settings import S3Settings
from callfs.deferreds import returns_deferred

_ASK_AGAIN_SECONDS = 60.0
"""How long what the chain gave is used without asking it: it renews temporary ones a quarter of an hour before."""


class S3Credentials:
    """
    Gives the credentials of the moment. The chain (environment, profile, web identity, container, instance role)
    may read files and ask servers: it does so in a thread.

    :param new_session: begins with the chain anew.
    """

    def __init__(
        self,
        settings: S3Settings,
        *,
        jobs: Jobs,
        clock: IReactorTime,
        new_session: Callable[[], Any] = Session,
    ) -> None:
        self._jobs = jobs
        self._clock = clock
        self._new_session = new_session
        self._fixed: ReadOnlyCredentials | None = None
        if settings.access_key is not None and settings.secret_key is not None:
            self._fixed = ReadOnlyCredentials(settings.access_key.reveal(), settings.secret_key.reveal(), None)
        self._chain: Any = None
        self._current: ReadOnlyCredentials | None = None
        self._asked_at_seconds = 0.0
        self._waiters: list[Deferred[None]] | None = None

    async def current(self) -> ReadOnlyCredentials:
        """
        Those to sign with now.

        :raises S3NoCredentials: there are none.
        """
        if self._fixed is not None:
            return self._fixed
        while self._current is None or self._clock.seconds() - self._asked_at_seconds >= _ASK_AGAIN_SECONDS:
            if self._waiters is None:
                # Whoever asks first may be cancelled; the answer is for the others, too.
                self._waiters = []
                self._ask()
            waiter: Deferred[None] = Deferred()
            self._waiters.append(waiter)
            await waiter
        return self._current

    def refused(self, credentials: ReadOnlyCredentials) -> bool:
        """
        The server doesn't take these, which may have been replaced: ask the whole chain again.

        :return: whether there may be others.
        """
        if self._fixed is not None:
            return False
        if self._current == credentials:
            self._current = self._chain = None
        return True

    @returns_deferred
    async def _ask(self) -> None:
        outcome: Exception | None = None
        try:
            self._chain, self._current = await self._jobs.run(self._look, self._chain)
            self._asked_at_seconds = self._clock.seconds()
        except Exception as error:
            outcome = error
        waiters, self._waiters = self._waiters or [], None
        for waiter in waiters:
            if waiter.called:
                continue
            if outcome is None:
                waiter.callback(None)
            else:
                waiter.errback(outcome)

    def _look(self, chain: Any) -> tuple[Any, ReadOnlyCredentials]:
        """In a thread: what the chain gives, renewed if need be."""
        try:
            chain = self._new_session().get_credentials() if chain is None else chain
            if chain is not None:
                return chain, chain.get_frozen_credentials()
        except (BotoCoreError, OSError, ValueError) as error:
            raise S3NoCredentials(f"The AWS chain gives no credentials: {error}") from error
        raise S3NoCredentials(
            "There are no credentials. Set backend.s3_access_key and backend.s3_secret_key, or give the daemon "
            "some through the environment, a profile, or an instance role."
        )
