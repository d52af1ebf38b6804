"""The engine: the file system itself, over the ports of metadata, backends and locks."""
