"""The verdict as Markdown, with strangers' texts in it: a comment that a workflow writes in the project's name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from easyteacache.hub.review.check_record import Finding
from easyteacache.hub.review.review import Review, github_annotations, summary


@pytest.mark.parametrize(
    "text",
    [
        r"\[Merge now](https://evil.example)",
        r"\\\[Merge now](https://evil.example)",
        r"!\[x](https://evil.example/pixel.png)",
        r"a \| b | c",
        r"\`code` <img src=x> @everybody",
        "one\n::error::two",
    ],
)
def test_a_strangers_text_stays_text_in_its_cell(text: str) -> None:
    finding = Finding("record.schema", "registry/a.json", "/title", text)
    (row,) = [line for line in summary(Review((), (finding,))).split("\n") if "record.schema" in line]
    first, kind, rule, where, what, last = row.split("|")
    assert (first, kind, rule, last) == ("", " error ", " `record.schema` ", "")
    # Everything that Markdown could act on is an entity, a backslash before it as well.
    assert not set("\\[`<@") & set(what + where)
    shown = re.sub(r"&#([0-9]+);", lambda match: chr(int(match[1])), what)
    assert shown.strip() == " ".join(text.split())


def test_a_files_name_acts_on_no_terminal(tmp_path: Path) -> None:
    finding = Finding("record.path", str(tmp_path / "a\x1b[2J\u202e.json"), "", "\x1b]0;owned\x07")
    found = Review((), (finding,))
    (annotation,) = github_annotations(found, tmp_path)
    for text in (summary(found), annotation):
        assert "�" in text
        assert all(one.isprintable() or one == "\n" for one in text)
