"""The import name of the original project (oneflyingfish/EasyTeacache): ``from EasyTeaCache import TeaCache``."""

from easyteacache import TeaCache, TeaCacheConfig

__all__ = ["TeaCache", "TeaCacheConfig"]
