"""How fast and how frugal a daemon is, as ratios to something simple on the same machine in the same run."""
