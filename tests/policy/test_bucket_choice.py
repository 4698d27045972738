"""What a record says it was made for, where it is not the run at hand."""

from __future__ import annotations

import pytest

from easyteacache.policy.bucket_choice import select
from easyteacache.policy.request import RunContext
from easyteacache.records.bucket import Bucket, SigmaProfileRecord
from easyteacache.records.sampler import SamplerRecord


@pytest.mark.parametrize(
    ("made_with", "said"),
    [
        ("Noisy (stochastic)", "Noisy (stochastic) (4 calls, shift 3), whose steps could not be measured then"),
        (
            "Other",
            "other noise levels, or a sampler that does not draw noise, not Noisy (stochastic) (4 calls, shift 3)",
        ),
    ],
)
def test_a_record_made_under_a_noisy_sampler_does_not_say_that_it_was_made_for_another_one(
    made_with: str, said: str
) -> None:
    levels = (1.0, 0.75, 0.5, 0.25, 0.0)
    bucket = Bucket(
        num_steps=4,
        shift=3.0,
        coefficients=(1.0, 0.0),
        sampler=SamplerRecord(name=made_with, calls=4, levels=levels),
        sigma_profile=SigmaProfileRecord(sigmas=levels, distances=(0.0, 0.1, 0.2, 0.3, 0.4)),
    )
    sampler = SamplerRecord(name="Noisy (stochastic)", calls=4, levels=levels)
    run = RunContext(num_steps=4, shift=3.0, sampler=sampler)
    assert select([bucket], run, []).foreign == (said,)
