"""Backends keep bytes: immutable blobs by id, never by a user's path."""
