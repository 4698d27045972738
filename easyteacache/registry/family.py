"""Which records are of one model: its bare key, and the same key with the name of a caching method behind it.

``wan2.1/t2v-14b`` and ``wan2.1/t2v-14b/lemica`` are one model's, ``qwen-image`` and ``qwen-image/2512`` are two models'. So a last part
counts as a method only where it begins with a word of this list; a record that is filed under any other name is another model's.
"""

from __future__ import annotations

#: First words of a key's last part that name a method.
METHODS = frozenset(
    {
        "adacache",
        "budcache",
        "cachedit",
        "dbcache",
        "deepcache",
        "dicache",
        "dpcache",
        "dualblockcache",
        "dynamicblockcache",
        "easycache",
        "ertacache",
        "fastercache",
        "firstblockcache",
        "foca",
        "fora",
        "gcache",
        "hicache",
        "hold",
        "l2p",
        "lazycache",
        "lemica",
        "magcache",
        "meancache",
        "pab",
        "plan",
        "preset",
        "scm",
        "seacache",
        "smoothcache",
        "spectrum",
        "stepcache",
        "taylorcache",
        "taylorseer",
        "teacache",
    }
)


def names_method(key: str) -> bool:
    """Whether a key's last part names a caching method: ``flux.1/dev/magcache-vllm-omni`` does."""
    model, _, last = key.rpartition("/")
    return bool(model) and last.split("-")[0] in METHODS


def model_of(key: str) -> str:
    """The key of the model that a key's record is of: without the method, where it ends in one."""
    return key.rpartition("/")[0] if names_method(key) else key
