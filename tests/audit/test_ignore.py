"""What an audit passes over: patterns of an ignore file, and comments beside a list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from easyteacache.audit.ignore_file import FILE_NAME, IgnoreFile, ignored_rules
from easyteacache.audit.scan import Standard, audit, audit_text
from easyteacache.registry.registry import Registry

Plant = Callable[[str, str], Path]
BORROWED = "flux = [2.57151496e+05, -3.54229917e+04, 1.40286849e+03, -1.35890334e+01, 1.32517977e-01]"


@pytest.mark.parametrize(
    ("pattern", "passed"),
    [
        ("vendor/", {"vendor/a.py", "vendor/deep/b.py"}),
        ("/vendor/", {"vendor/a.py", "vendor/deep/b.py"}),
        ("vendor/*.py", {"vendor/a.py", "vendor/deep/b.py"}),
        ("*/a.py", {"vendor/a.py"}),
        ("own.py", {"own.py"}),
        ("# vendor/", set()),
        ("", set()),
    ],
)
def test_patterns_are_relative_to_the_ignore_file(
    pattern: str, passed: set[str], plant: Plant, bundled: Registry
) -> None:
    names = {"vendor/a.py", "vendor/deep/b.py", "own.py"}
    for name in names:
        tree = plant(name, BORROWED + "\n")
    plant(FILE_NAME, f"# comment\n{pattern}  # why\n")
    report = audit(tree, bundled)
    assert {Path(f.file).relative_to(tree).as_posix() for f in report.findings} == names - passed
    assert report.ignored == len(passed)


def test_the_ignore_file_of_a_folder_above_holds_too(plant: Plant, bundled: Registry) -> None:
    tree = plant("src/vendor/a.py", BORROWED + "\n")
    plant(FILE_NAME, "src/vendor/\n")
    assert audit(tree / "src", bundled).findings == ()
    assert audit(tree / "src" / "vendor" / "a.py", bundled).findings == ()


def test_without_an_ignore_file_nothing_is_passed_over(tmp_path: Path) -> None:
    assert not IgnoreFile(tmp_path).covers(tmp_path / "a.py")


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        (f"{BORROWED}  # easyteacache-audit: ignore\n", []),
        (f"# easyteacache-audit: ignore\n{BORROWED}\n", []),
        (f"{BORROWED}  # easyteacache-audit: ignore[borrowed, stale]\n", []),
        (f"{BORROWED}  # easyteacache-audit: ignore[mistyped]\n", ["borrowed"]),
        (f"# easyteacache-audit: ignore\n\n{BORROWED}\n", ["borrowed"]),
        (f"{BORROWED}\n# easyteacache-audit: ignore\n", ["borrowed"]),
    ],
)
def test_a_comment_passes_over_the_list_beside_it(text: str, rules: list[str], standard: Standard) -> None:
    assert [finding.rule for finding in audit_text(text, standard, filename="a.py")[1]] == rules


def test_a_comment_works_in_any_language() -> None:
    assert ignored_rules(["// easyteacache-audit: ignore[rounded]", "x"], 2) == {"rounded"}
