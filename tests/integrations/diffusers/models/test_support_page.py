"""The page of supported models says what the table, the registry and the tests say."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import diffusers
from click.testing import CliRunner
from diffusers.models.cache_utils import CacheMixin

from easyteacache.integrations.diffusers import adapters


def test_the_page_is_fresh(load_tool: Callable[[str], ModuleType]) -> None:
    result = CliRunner().invoke(load_tool("docs/support_page.py").main, ["--check"])
    assert result.exit_code == 0, result.output


def test_every_class_that_diffusers_can_cache_has_an_adapter():
    names = [name for name in dir(diffusers) if "Transformer" in name]
    kinds = [kind for kind in (getattr(diffusers, name) for name in names) if isinstance(kind, type)]
    cacheable = {kind.__name__ for kind in kinds if issubclass(kind, CacheMixin)}
    assert len(cacheable) >= 30
    assert cacheable <= {adapter.transformer for adapter in adapters()}
