"""That a bucket can't be used: apart from what uses it, so that whoever has none needn't load that."""

from __future__ import annotations


class S3Unusable(Exception):
    """The bucket can't be used; the message is for the operator: what is wrong and what to do."""
