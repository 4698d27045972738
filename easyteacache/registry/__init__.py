"""Find a record: layers, index and lock."""

from easyteacache.registry.registry import Found, Registry

__all__ = ["Found", "Registry"]
