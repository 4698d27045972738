"""The page of supported models says what the table, the registry and the tests say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import diffusers
from diffusers.models.cache_utils import CacheMixin

from easyteacache.integrations.diffusers import adapters

ROOT = Path(__file__).resolve().parents[4]


def test_the_page_is_fresh():
    command = [sys.executable, str(ROOT / "tools" / "docs" / "support_page.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_class_that_diffusers_can_cache_has_an_adapter():
    names = [name for name in dir(diffusers) if "Transformer" in name]
    kinds = [kind for kind in (getattr(diffusers, name) for name in names) if isinstance(kind, type)]
    cacheable = {kind.__name__ for kind in kinds if issubclass(kind, CacheMixin)}
    assert len(cacheable) >= 30
    assert cacheable <= {adapter.transformer for adapter in adapters()}
