"""Text for people on streams that cannot show all of it."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from easyteacache.files import plain_marks


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("██··█", "##..#"),
        ("a → b, x ≤ 2…", "a -> b, x <= 2..."),
        ("10⁻³, 2², naïve, ᾱ", "10-3, 22, naive, ?"),
        ("plain", "plain"),
        ("日本", "??"),
    ],
)
def test_plain_text_is_ascii_that_says_the_same(text: str, expected: str) -> None:
    assert plain_marks.plain(text) == expected


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437", "cp866", "koi8-r", "utf-8", "utf-16"])
def test_what_is_printable_can_be_printed(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "█·●□✗×÷−–—…→←≤≥≠√“”„‘’⟨⟩‖∞§ é日"
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    found = plain_marks.printable(text)
    found.encode(encoding)
    assert (found == text) == encoding.startswith("utf")


def test_without_a_standard_output_text_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert plain_marks.printable("█") == "█"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_summary_can_be_printed_on_any_stream(encoding: str) -> None:
    code = (
        "from easyteacache.runtime.statistics import RunStatistics, describe\n"
        "from easyteacache.runtime.branch_state import StepRecord\n"
        "from types import SimpleNamespace as Policy\n"
        "policy = Policy(model_key='a/b', revision=1, status='draft', layer='x', threshold=0.1, schedule=None,"
        " forecaster='hold', notes=('x ≤ 3 → …',))\n"
        "record = lambda reused: Policy(step=0, reused=reused, distance=None)\n"
        "print(describe(policy, {'cond': RunStatistics((record(False), record(True)))}, 2.0))"
    )
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert b"  #." in done.stdout.replace(b"\xb7", b".")
