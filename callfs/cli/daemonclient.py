"""What a command asks of the running daemon, over its internal routes."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from callfs.config.addresses import base_url, default_base_url
from callfs.config.schema import Config

F = TypeVar("F", bound=Callable[..., Any])

_BEARER = re.compile(r"[\x21-\x7e]+")

FAILURE_STATUS = 1
TIMEOUT_SECONDS = 600.0
"""A batch of files that travel between nodes may take long; a daemon that is gone is noticed all the same."""


class DaemonFailure(Exception):
    """
    The daemon couldn't be asked, or refused; the message says why and what to do.

    :ivar code: the refusal's stable code; empty when there was no answer of a daemon.
    """

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


def url_option(function: F) -> F:
    """Give a command the option ``--url``: which daemon it talks to."""
    return click.option(
        "--url",
        metavar="URL",
        default=None,
        help="Base URL of the daemon to talk to; by default the one that this configuration runs here.",
    )(function)


class DaemonClient:
    """
    Asks one daemon.

    :param config: says where it listens, and has the internal secret.
    :param url: another daemon's base URL; ``None`` for the one of this configuration.
    :param timeout_seconds: how long the daemon may be silent.
    :param secret: another internal secret than the configuration's.
    :raises DaemonFailure: ``url`` is none, or the secret can't be sent.
    """

    def __init__(
        self,
        config: Config,
        url: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        secret: str | None = None,
    ) -> None:
        scheme = "https" if config.tls else "http"
        base = default_base_url(config.server.listen_addr, scheme) if url is None else base_url(url, scheme)
        if base is None:
            raise DaemonFailure(f"{url} isn't a base URL: write it like https://node-1.example:8443")
        self.url = base
        self._secret = config.auth.internal_proxy_secret[0].reveal() if secret is None else secret
        # What http.client says of a header that it refuses would show it.
        if _BEARER.fullmatch(self._secret) is None:
            raise DaemonFailure("the internal secret must be visible ASCII characters without blanks")
        self._timeout_seconds = timeout_seconds
        # Without proxies of the environment: the secret goes to the daemon and to nobody else.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=_trust(config)), _NoRedirect()
        )

    def get(self, path: str) -> Any:
        """
        The JSON at an internal path, which begins with ``/v1/internal/``.

        :raises DaemonFailure: no answer, or a refusal.
        """
        return self._ask(urllib.request.Request(self.url + path))  # noqa: S310 - base_url admits http(s) alone

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """
        Send JSON to an internal path; the JSON that is answered.

        :raises DaemonFailure: no answer, or a refusal.
        """
        data = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        return self._ask(urllib.request.Request(self.url + path, data, headers, method="POST"))  # noqa: S310

    def _ask(self, request: urllib.request.Request) -> Any:
        request.add_header("Authorization", f"Bearer {self._secret}")
        try:
            with self._opener.open(request, timeout=self._timeout_seconds) as answer:
                body = answer.read()
        except urllib.error.HTTPError as error:
            raise _refusal(error, self.url) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise DaemonFailure(
                f"the daemon at {self.url} can't be asked: {reason}. Is it running, and is that its URL?"
            ) from error
        try:
            return json.loads(body)
        except ValueError:
            raise DaemonFailure(f"what answers at {self.url} isn't a CallFS daemon") from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The daemon never redirects; whoever does isn't to see the secret."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Follow nothing."""


def _trust(config: Config) -> ssl.SSLContext:
    backend = config.backend
    context = ssl.create_default_context(
        cafile=None if backend.internal_proxy_ca_file is None else str(backend.internal_proxy_ca_file)
    )
    if backend.internal_proxy_skip_tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _refusal(error: urllib.error.HTTPError, url: str) -> DaemonFailure:
    try:
        body = json.loads(error.read())
        code, message = str(body["code"]), str(body["message"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return DaemonFailure(f"{url} answers {error.code} {error.reason}: is that a CallFS daemon?")
    if code == "AUTHENTICATION_FAILED":
        message = (
            f"the daemon at {url} has another internal secret: auth.internal_proxy_secret is the same on all nodes"
        )
    return DaemonFailure(message, code)


def failing_with_status(command: str, job: Callable[[], None]) -> None:
    """
    Do a command's job; when the daemon can't be asked or refuses, say so and end with status 1.

    :param command: as the user types it, without ``callfs``.
    """
    try:
        job()
    except DaemonFailure as failure:
        click.echo(f"callfs {command}: {failure}", err=True)
        sys.exit(FAILURE_STATUS)
