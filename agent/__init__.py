"""reflexd: the privileged agent that watches one host and tells the server what happened."""

__version__ = "0.1.0"
