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


def test_the_page_names_every_transformer_of_diffusers_on_one_side_or_the_other(
    load_tool: Callable[[str], ModuleType],
) -> None:
    tool = load_tool("docs/support_page.py")
    covered, left = {adapter.transformer for adapter in adapters()}, tool.without_adapter()
    assert covered | set(left) == set(tool.transformers())
    assert not covered & set(left)
    assert len(left) >= 20
    page = tool.page()
    assert all(f"- `{name}`\n" in page for name in left)


def test_every_published_family_that_diffusers_has_a_class_for_can_be_attached() -> None:
    from easyteacache.integrations.diffusers.model_classes import CLASSES

    assert set(CLASSES.values()) <= {adapter.transformer for adapter in adapters()}
