"""
Signature V4 by botocore ("Authenticating Requests: Using the Authorization Header", Amazon S3 API Reference).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

_TIMESTAMP = "%Y%m%dT%H%M%SZ"


def signed_headers(
    method: str,
    url: str,
    headers: Mapping[str, str],
    *,
    sha256: bytes,
    credentials: ReadOnlyCredentials,
    region: str,
    at: int,
) -> dict[str, str]:
    """
    The headers of a request, signed; all that are given are part of the signature.

    botocore's steps are called one by one, because its all in one takes the time from the system's clock.

    :param url: spelled as it will be sent.
    :param headers: ``host`` among them.
    :param sha256: of the body.
    :param at: the instant.
    """
    signer = S3SigV4Auth(credentials, "s3", region)
    request = AWSRequest(method=method, url=url, headers=dict(headers))
    timestamp = datetime.fromtimestamp(at // 1_000_000, UTC).strftime(_TIMESTAMP)
    request.context["timestamp"] = timestamp
    request.headers["x-amz-date"] = timestamp
    request.headers["x-amz-content-sha256"] = sha256.hex()
    if credentials.token:
        request.headers["x-amz-security-token"] = credentials.token
    text = signer.string_to_sign(request, signer.canonical_request(request))
    names = signer.signed_headers(signer.headers_to_sign(request))
    signature = signer.signature(text, request)
    authorization = f"Credential={signer.scope(request)}, SignedHeaders={names}, Signature={signature}"
    request.headers["authorization"] = f"AWS4-HMAC-SHA256 {authorization}"
    return dict(request.headers.items())
