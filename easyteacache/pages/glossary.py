"""Words that pages explain where a reader rests on them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "speed-up": "How many times fewer forwards of the model: sampler steps divided by computed steps, or what a source measured on its own hardware.",
        "relative L2": "Distance of a sample from the uncached one of the same seed, divided by the uncached one's length: 0 % is identical.",
        "error": "Relative L2 of the final sample against the uncached one of the same seed: 0 % is identical.",
        "LPIPS": "Perceptual distance from the uncached picture: 0 is identical, below 0.1 hard to see.",
        "PSNR": "Signal-to-noise ratio against the uncached picture in decibels: more is closer, 30 dB is close.",
        "SSIM": "Structural similarity with the uncached picture: 1 is identical.",
        "plan": "Which steps of a run are computed, and what the others are made of.",
        "threshold": "Accumulated predicted change at which a step must be computed.",
        "preset": "Settings of another engine's own method; run by that engine.",
        "computed": "Steps whose blocks run; the others are filled in.",
        "reused": "A step whose blocks are skipped and whose output is predicted from computed ones.",
        "evidence": "Whose figure it is: published, reported, submitted or verified.",
        "sequence length": "Tokens of the generated stream that enter the blocks.",
        "shift": "Flow-matching time shift of the sampler.",
        "signal": "A cheap tensor known before the blocks whose change predicts that of the output.",
        "domain": "The signal distances that a fit saw.",
        "borrowed": "Fitted to another model than the one it is used for.",
        "held-out run": "A recorded run that no fit and no choice saw.",
        "fewer steps": "The same number of forwards spent on a shorter uncached run: what caching has to beat.",
        "evenly spaced": "As many computed steps, spread evenly: the plan that needs no calibration.",
        "90th percentile": "Nine of ten runs are at least as good.",
        "calibration run": "A recorded run that the numbers were fitted to.",
    }
)
