from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from easyteacache.compare.quality import psnr
from easyteacache.demo.comparison import compare
from easyteacache.demo.sampling import CACHED, VARIANTS, Sample

MakeSamples = Callable[..., list[Sample]]


def test_one_row_a_variant_with_its_cost(make_samples: MakeSamples) -> None:
    rows = compare(make_samples(2))
    assert tuple(row.variant for row in rows) == VARIANTS
    assert [row.computed for row in rows] == [4, 2, 2]
    assert [row.seconds for row in rows] == [2.0, 1.0, 0.8]
    assert [row.speedup for row in rows] == [1.0, 2.0, 2.5]


def test_closeness_is_to_the_uncached_run_of_the_same_seed(make_samples: MakeSamples) -> None:
    uncached, cached, fewer = compare(make_samples(2))
    assert (uncached.psnr, uncached.ssim) == (None, None)
    assert cached.psnr == pytest.approx(20.0, abs=1e-3)
    assert fewer.psnr == pytest.approx(psnr(np.zeros(1), np.full(1, 0.2)), abs=1e-3)
    assert cached.ssim is not None
    assert fewer.ssim is not None
    assert cached.ssim > fewer.ssim


def test_the_worst_sample_is_told_beside_the_mean(make_samples: MakeSamples) -> None:
    samples = [make_samples(1, change=0.1)[0], make_samples(1, change=0.01)[0]]
    cached = compare(samples)[1]
    assert (cached.psnr, cached.worst_psnr) == (pytest.approx(30.0, abs=0.01), pytest.approx(20.0, abs=0.01))


def test_a_moment_in_which_the_machine_was_busy_does_not_spoil_the_result(make_samples: MakeSamples) -> None:
    first, second, third = make_samples(3)
    longer = dataclasses.replace(second.runs[CACHED], seconds=100.0)
    second = dataclasses.replace(second, runs={**second.runs, CACHED: longer})
    assert compare([first, second, third])[1].speedup == 2.0


def test_a_broken_result_is_an_error_and_no_number(make_samples: MakeSamples) -> None:
    samples = make_samples(1)
    samples[0].runs["cached"].frames[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="not an image"):
        compare(samples)
