"""
Signature V4, once more: worked out from a request as it came over the wire, step by step as in "Create a signed AWS
API request" (AWS Identity and Access Management User Guide).
"""

from __future__ import annotations

import hashlib
import hmac
import re

from tests.support.faulty_s3 import Seen

_AUTHORIZATION = re.compile(r"AWS4-HMAC-SHA256 Credential=(\S+), SignedHeaders=(\S+), Signature=(\S+)")


def is_signed(seen: Seen, secret_key: str, region: str) -> bool:
    """Whether the signature is that of exactly this request."""
    found = _AUTHORIZATION.fullmatch(seen.headers["authorization"])
    assert found is not None
    scope = found[1].split("/", 1)[1]
    names = found[2].split(";")
    path, _, query = seen.target.partition("?")
    pairs = sorted(pair if "=" in pair else f"{pair}=" for pair in query.split("&") if pair)
    canonical = "\n".join(
        [
            seen.method,
            path,
            "&".join(pairs),
            *(f"{name}:{' '.join(seen.headers[name].split())}" for name in names),
            "",
            found[2],
            seen.headers["x-amz-content-sha256"],
        ]
    )
    text = "\n".join(
        ["AWS4-HMAC-SHA256", seen.headers["x-amz-date"], scope, hashlib.sha256(canonical.encode()).hexdigest()]
    )
    key = f"AWS4{secret_key}".encode()
    for part in (seen.headers["x-amz-date"][:8], region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.new(key, text.encode(), "sha256").hexdigest() == found[3]
