"""turnwire: a self-hosted server for agent sessions, in which the log is the turn."""

__version__ = "0.1.0"
