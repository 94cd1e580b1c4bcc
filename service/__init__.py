"""Serve generators: batched pictures over HTTP, deterministic by seed."""

__version__ = "0.1.0"
