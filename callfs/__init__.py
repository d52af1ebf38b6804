"""CallFS: a file system behind a REST API."""

__version__ = "0.1.0"
