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
    # A real policy: a stand-in goes stale when the summary tells more of it.
    code = (
        "from easyteacache.policy.curves import Polynomial\n"
        "from easyteacache.policy.policy import BucketShare, Policy\n"
        "from easyteacache.runtime.branch_state import StepRecord\n"
        "from easyteacache.runtime.statistics import RunStatistics, describe\n"
        "policy = Policy(model_key='a/b', revision=1, status='draft', layer='x → y', signal='timestep_projection',"
        " curve=Polynomial((1.0, 0.0)), threshold=0.1, first_skip_step=1, last_skip_step=None, max_consecutive_skips=None,"
        " buckets=(BucketShare(None, None, None, 1.0),), notes=('x ≤ 3 → …',))\n"
        "record = lambda step, reused: StepRecord(step, reused, 'below', None, None, 0.0)\n"
        "print(describe(policy, {'cond': RunStatistics((record(0, False), record(1, True)))}, 2.0))"
    )
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert b"layer x -> y)" in done.stdout
    assert b"  #." in done.stdout.replace(b"\xb7", b".")
