"""Notes a user of published numbers should read: derived from the numbers where possible, else from what was read.

Everything here is in this project's words; the sources are cited in each record.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

from easyteacache.policy.curves import Polynomial, RescalePost

SCAN_END = 0.6
_POINTS = 6000

_AFTER_NORM = (
    "The source takes the residual after norm_out, so its reused steps bypass that layer too. Attached here the same steps are "
    "reused and norm_out runs: outputs of reused steps differ from the source's by up to {} on small random instances, and are the "
    "nearer ones to an uncached run (docs/attach.md)."
)

READ: dict[str, tuple[str, ...]] = {
    "wan2.1-t2v-14b-default": (
        "TensorRT-LLM's tests print the last coefficient as -13.02301147; this is the original.",
    ),
    "wan2.2-ti2v-5b-lightx2v": (
        "The source's retention-step slot for this model is empty and its README gives no figures.",
    ),
    "hunyuanvideo-t2v": (
        "The model is guidance-distilled: one forward a step, no guidance branches.",
        "The source reuses the residual of the image stream only; the text stream is not cached.",
    ),
    "flux.1-dev": (
        "A user's refit (flux.1/dev/issue-20-refit) looks nothing like these numbers, and they do not carry over to "
        "FLUX.1-Krea-dev: mlx-teacache scored them there at R² = −496.",
        "TensorRT-LLM shipped Wan2.1 I2V-14B-480P's numbers under this model's name before it corrected them.",
    ),
    "flux.1-dev-issue20-refit": (
        "Fitted by a user on 400 prompts who reports a poor relationship as well; not recommended.",
    ),
    "flux.1-kontext-dev": ("In ComfyUI the signal includes the tokens of the reference image.",),
    "cogvideox-2b": ("The source picks this set for checkpoints without rotary position embeddings.",),
    "cogvideox-5b": (
        "Two engines also apply this set to CogVideoX1.5-5B, which has a fit of its own: cogvideox1.5/5b.",
    ),
    "cogvideox1.5-5b": ("The source runs both guidance branches as one batch and takes one decision for them.",),
    "cogvideox1.5-5b-i2v": (
        "The unmerged diffusers port prints the fourth coefficient as -0.306001; this is the original.",
    ),
    "cosmos-1.0-diffusion-7b": ("One list for the Text2World and the Video2World checkpoint.",),
    "cosmos-predict2.5": (
        "The leading coefficient 100 was put in by hand and is no result of the fit; the source says so.",
        "The source also limits reuse by timestep (its setting is 0.75), which a window of steps cannot express; "
        "with the signal unknown as well, the record can be read but not applied.",
    ),
    "ltx-video-0.9.1": (_AFTER_NORM.format("50 %"),),
    "mochi-1-preview": (_AFTER_NORM.format("35 %"),),
    "lumina-image-2.0-v1": (
        "The list of Lumina-Next (lumina-next/sft), never fitted to this model; the source measured it here and its script runs it.",
        "Its source: poor quality at low thresholds, better at higher ones, though slower.",
        "Its table is of 50 steps; its script runs 30, at threshold 0.3.",
    ),
    "lumina-image-2.0-v2": (
        "Its source: faster, and better at low thresholds, than lumina-image-2.0/v1, but with a significant loss of features at high "
        "ones.",
        "Its table is of 50 steps; its script, which holds this list in a comment, runs 30 with the other one.",
        "Not a fit: the coefficients were searched to lower LPIPS, with block 0's modulation vector as signal in the searching "
        "tool and the modulated joint sequence of text and image in the published script.",
    ),
    "newbie": (
        "A straight line padded with three zero coefficients; its author calls it no more than acceptable.",
        "The signal also carries the pooled prompt embedding, which is constant during a run.",
    ),
    "hidream-i1-dev": ("Another signal than HiDream-I1-Full's: the patch-embedded latent, not modulated.",),
    "hidream-i1-fast": ("Another signal than HiDream-I1-Full's: the patch-embedded latent, not modulated.",),
    "easyanimate-v5-7b-inp": ("Printed only in a comment; the source's own lookup never returns it.",),
    "ruyi-mini-7b": (
        "The source measures the distance from the last *computed* step and accumulates it all the same; with the usual distance "
        "between consecutive steps, the same threshold is less strict.",
    ),
    "boogu-image-sglang-fork": ("The signal is not visible in what was read; the record can be read but not applied.",),
    "qwen-image-chenpipi": (
        "Round numbers without a documented fit; four of the five are about 0.6 times ComfyUI-TeaCache's Lumina-Image-2.0 set.",
        "vLLM-Omni, which credits another origin, accumulates |p(x)| and uses the same list for Z-Image and FLUX.2 [dev].",
    ),
    "qwen-image-mlx": ("The source fits the worse of the two guidance branches and takes one decision for both.",),
    "qwen-image-2512-mlx": (
        "At threshold 0.3 the source's similarity falls below the floor it set itself (SSIM 0.95).",
    ),
    "z-image-base-mlx": (
        "The signal needs one block to be run on every step. Its author rejected the usual signal at R² = 0.069.",
    ),
    "flux.2-klein-4b-mlx": (
        "A few-step distilled model: its author finds that no step is ever reused at threshold 0.2.",
    ),
    "flux.2-klein-9b-mlx": (
        "A few-step distilled model: its author finds that no step is ever reused at threshold 0.2.",
    ),
    "flux.2-klein-base-4b-mlx": ("Its author also applies this set to FLUX.2-klein-base-9B (threshold 0.17).",),
    "bagel-vllm-omni": (
        "A comment in the source credits another model; the numbers are a fit to BAGEL (vllm-omni PR 940).",
    ),
    "hunyuanimage3-vllm-omni": (
        "The source reuses the previous prediction instead of a residual.",
        "Its code comment and its pull request disagree about the size of the fit (80 prompts, or 10 on 8 workers).",
    ),
    "longcat-image-vllm-omni": ("Printed with four decimals only.",),
    "minimax-h3-fl2va": ("SGLang refuses TeaCache for this model.",),
    "minimax-h3-ref2va": (
        "The source also has a budget, at most 5 reused and at least 35 computed steps, which this record does not enforce.",
    ),
    "sdxl-noobai-xl-vpred-1.0": (
        "A U-Net: the signal is the residual of its second input block.",
        "The source prints the lowest degree first; here the highest comes first.",
    ),
    "sdxl-noobai-xl-1.1": (
        "A U-Net: the signal is the residual of its second input block.",
        "Printed in a comment, lowest degree first; here the highest comes first.",
    ),
    "anima-watayuki": ("The source computes a step for the whole batch as soon as one guidance branch needs it.",),
    "ltx-2-stage1-euler-mlx": (
        "Fitted on quantised weights of LTX-2.3 dev. The same author keeps a degree-4 fit in the tests as a bad example.",
    ),
    "ltx-2-stage1-res2s-mlx": ("Not interchangeable with the Euler set: the sampler changes the distances.",),
}
_CHINOKIKISS = (
    "Holds for one sampler and scheduler. The source caches the block stack's output minus the *modulated* input and adds it "
    "back to the modulated input, and computes whenever the raw distance falls below {floor}; neither is plain TeaCache.",
)


def notes(fact: dict[str, object], coefficients: Sequence[float], **context: object) -> list[str]:
    """Everything worth saying about one calibration's numbers.

    Args:
        fact: the published fact.
        coefficients: highest degree first.
        context: ``domain``, ``post`` and ``thresholds`` of the record.
    """
    domain, post, thresholds = context["domain"], context["post"], context["thresholds"]
    identity = str(fact["id"])
    said = list(READ.get(identity, ()))
    if "chinokikiss" in identity:
        extra = fact["extra"]
        assert isinstance(extra, dict)
        said += [text.format(floor=extra["force_recalc_thresh"]) for text in _CHINOKIKISS]
    curve = Polynomial(tuple(coefficients), domain=domain, post=post)  # type: ignore[arg-type]
    said += _range(identity, domain)  # type: ignore[arg-type]
    said += _negative(coefficients, domain, post)  # type: ignore[arg-type]
    said += _unreachable(curve, thresholds)  # type: ignore[arg-type]
    said += _weak_fit(fact)
    if len(coefficients) != 5:
        said.append(f"Degree {len(coefficients) - 1}: runtimes that insist on five coefficients cannot load it.")
    return said


def _range(identity: str, domain: tuple[float, float] | None) -> list[str]:
    if domain is None:
        return []
    if identity.endswith("-mlx"):
        return [
            "The source clamps x to its fit's range too, and computes where x lies above it; here x is only clamped."
        ]
    return ["The source evaluates p(x) outside its fit's range as well; here x is clamped to it."]


_TREATMENT = {
    "none": "the source adds that as it is, so a nearly unchanged or out-of-range signal takes back accumulated distance and "
    "steps go on being reused",
    "abs": "the source adds |p(x)| there",
    "clip": "the source adds 0 there",
}


def _negative(coefficients: Sequence[float], domain: tuple[float, float] | None, post: RescalePost) -> list[str]:
    if domain is not None:
        return []
    raw = Polynomial(tuple(coefficients))
    spans = [_span(start, end) for start, end in negative_intervals(raw)]
    return (
        [f"p(x) is negative for {' and for '.join(spans)} (p(0) = {raw(0.0):.4g}); {_TREATMENT[post]}."]
        if spans
        else []
    )


def _span(start: float, end: float) -> str:
    if start == 0:
        return f"x below {end:.4g}"
    return f"x above {start:.4g}" if end == SCAN_END else f"x between {start:.4g} and {end:.4g}"


def negative_intervals(curve: Polynomial) -> list[tuple[float, float]]:
    """Where p(x) < 0 on [0, 0.6], each edge to about 1e-6."""
    found, start = [], 0.0 if curve(0.0) < 0 else None
    grid = [SCAN_END * i / _POINTS for i in range(_POINTS + 1)]
    for left, right in itertools.pairwise(grid):
        if (curve(left) < 0) == (curve(right) < 0):
            continue
        edge = _edge(curve, left, right)
        if start is None:
            start = edge
        else:
            found.append((start, edge))
            start = None
    return found if start is None else [*found, (start, SCAN_END)]


def _edge(curve: Polynomial, left: float, right: float) -> float:
    for _ in range(20):
        middle = (left + right) / 2
        left, right = (middle, right) if (curve(left) < 0) == (curve(middle) < 0) else (left, middle)
    return (left + right) / 2


def _unreachable(curve: Polynomial, thresholds: Iterable[float]) -> list[str]:
    """Thresholds that the smallest possible p(x) exhausts at once or after one reused step."""
    smallest = min(curve(SCAN_END * i / _POINTS) for i in range(_POINTS + 1))
    if smallest <= 0:
        return []
    runs = {threshold: math.ceil(threshold / smallest) - 1 for threshold in sorted(set(thresholds))}
    never = [f"{threshold:g}" for threshold, run in runs.items() if run <= 0]
    single = [f"{threshold:g}" for threshold, run in runs.items() if run == 1]
    said = [f"threshold {' or '.join(never)} reuses no step at all"] if never else []
    said += [f"threshold {' or '.join(single)} never reuses two steps in a row"] if single else []
    return [f"p(x) does not fall below {smallest:.4g} on [0, {SCAN_END}], so {' and '.join(said)}."] if said else []


def _weak_fit(fact: dict[str, object]) -> list[str]:
    extra = fact.get("extra")
    fit = extra.get("fit", {}) if isinstance(extra, dict) else {}
    r2, heldout, pearson = fit.get("r2"), fit.get("held_out_r2"), fit.get("pearson")
    if r2 is not None and r2 < 0.5:
        more = "" if heldout is None else f" ({heldout:.3g} held out)"
        return [f"The source reports R² = {r2:.3g}{more}: the polynomial explains little of the output distance."]
    if pearson is not None and pearson < 0.7:
        return [f"The source reports a correlation of {pearson:.2g} between signal and output distance: a weak signal."]
    return []
