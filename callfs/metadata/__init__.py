"""Metadata: the names, owners and links, and which blob a path has."""
