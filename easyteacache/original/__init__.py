"""The original project's cache.json and its online fit."""
