from __future__ import annotations

import pytest
import torch

from easyteacache.errors import ReferenceModelError
from easyteacache.reference.prompts import DIRECTIONS, Prompt, embed_null, embed_prompts, parse_prompt


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        (7, Prompt(7)),
        ("7", Prompt(7)),
        ("0 right", Prompt(0, 0)),
        (" 9  down-left ", Prompt(9, list(DIRECTIONS).index("down-left"))),
    ],
)
def test_prompt_is_a_digit_and_perhaps_a_direction(text, meaning) -> None:
    assert parse_prompt(text) == meaning


@pytest.mark.parametrize("text", ["", 10, -1, "seven", "7 sideways", "7 up left", "up 7", "²"])
def test_unreadable_prompt_is_quoted_in_the_error(text) -> None:
    with pytest.raises(ReferenceModelError, match="found ") as error:
        parse_prompt(text)
    assert repr(text) in str(error.value)


def test_text_table_is_frozen() -> None:
    embedded = embed_prompts([Prompt(3, 2)])
    assert embedded.shape == (1, 4, 64)
    expected = torch.tensor([1.900057, 0.735249, 0.874206, -0.744209])
    torch.testing.assert_close(embedded[0, :, 0], expected, atol=1e-6, rtol=0)


def test_embeddings_differ_by_digit_direction_and_presence() -> None:
    prompts = [Prompt(digit, direction) for digit in range(10) for direction in (None, *range(8))]
    rows = torch.cat((embed_prompts(prompts), embed_null(1))).flatten(1)
    assert len(rows.unique(dim=0)) == len(prompts) + 1
