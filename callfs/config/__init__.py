"""Configuration: from files and the environment to one frozen, checked value."""
