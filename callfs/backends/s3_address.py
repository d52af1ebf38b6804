"""
Where requests for S3 go: path-style or virtual-host addressing, and the one spelling of a URL that is also signed.

Everything but unreserved characters (RFC 3986, section 2.3) is percent-encoded, as Signature V4 asks for, so that
nobody between here and the server has a reason to write it differently.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote, urlsplit

from callfs.backends.s3_settings import S3Settings

Query = Sequence[tuple[str, str | None]]

_PLAIN_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def encoded_path(text: str) -> str:
    """A key in a URL."""
    return quote(text, safe="/-_.~")


def encoded_query(query: Query) -> str:
    """A query, sorted; a parameter without value is its name alone."""
    pairs = [(quote(name, safe="-_.~"), value) for name, value in query]
    return "&".join(
        name if value is None else f"{name}={quote(value, safe='-_.~')}" for name, value in sorted(pairs)
    )


def default_endpoint(region: str) -> str:
    """Of AWS."""
    return f"https://s3.{region}.amazonaws.com" + (".cn" if region.startswith("cn-") else "")


def is_virtual(settings: S3Settings) -> bool:
    """
    Whether the bucket's name is part of the host.

    By itself only with AWS, where path-style is the deprecated way, and only for a name that a certificate for
    ``*.s3.<region>.amazonaws.com`` covers, which one with dots isn't.
    """
    if settings.addressing != "auto":
        return settings.addressing == "virtual"
    host = urlsplit(settings.endpoint or default_endpoint(settings.region)).hostname or ""
    at_aws = host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
    return at_aws and _PLAIN_BUCKET.fullmatch(settings.bucket) is not None


class S3Address:
    """
    The URLs of a bucket.

    :ivar host: what the ``Host`` header says.
    """

    def __init__(self, settings: S3Settings) -> None:
        parts = urlsplit(settings.endpoint or default_endpoint(settings.region))
        virtual = is_virtual(settings)
        netloc = f"{settings.bucket}.{parts.netloc}" if virtual else parts.netloc
        self.host = netloc.removesuffix(_DEFAULT_PORTS[parts.scheme])
        path = parts.path.rstrip("/") + ("" if virtual else f"/{encoded_path(settings.bucket)}")
        self._base = f"{parts.scheme}://{netloc}{path}"
        self._bucket = settings.bucket

    def url(self, key: str, query: Query = ()) -> str:
        """
        Of an object.

        :param key: empty: of the bucket itself.
        """
        path = f"/{encoded_path(key)}" if key or self._base.count("/") == 2 else ""
        return f"{self._base}{path}" + (f"?{encoded_query(query)}" if query else "")

    def copy_source(self, key: str) -> str:
        """How ``x-amz-copy-source`` calls an object."""
        return encoded_path(f"{self._bucket}/{key}")
