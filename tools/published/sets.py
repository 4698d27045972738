"""Which published set gets which model key, and which one a bare key means where a checkpoint has several.

The recommended set is the file of the bare key and answers to its explicit key as an alias; every other set is the file of
its own explicit key. Nothing here depends on the order of the facts.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SeveralSets:
    """All sets of one checkpoint.

    Attributes:
        recommended: id of the set that the bare key names.
        suffixes: id → last segment of its explicit key.
        reason: why this one, in a sentence that the records carry.
    """

    recommended: str
    suffixes: dict[str, str]
    reason: str


_BLOCK_SIGNAL = "the time projection it was fitted to is what the transformer's blocks receive, while the other set's signal never reaches them"
_WAN_REASON = f"upstream's README finds retention steps both faster and better, and {_BLOCK_SIGNAL}"


def _wan(variant: str, reason: str = _WAN_REASON) -> SeveralSets:
    return SeveralSets(
        recommended=f"wan2.1-{variant}-ret",
        suffixes={f"wan2.1-{variant}-ret": "retention", f"wan2.1-{variant}-default": "no-retention"},
        reason=reason,
    )


SEVERAL: dict[str, SeveralSets] = {
    "wan2.1/t2v-1.3b": _wan(
        "t2v-1.3b",
        f"{_BLOCK_SIGNAL} (upstream's README makes an exception of this model: there it does not find retention steps better)",
    ),
    "wan2.1/t2v-14b": _wan("t2v-14b"),
    "wan2.1/i2v-14b-480p": _wan("i2v-14b-480p"),
    "wan2.1/i2v-14b-720p": _wan("i2v-14b-720p"),
    "flux.1/dev": SeveralSets(
        recommended="flux.1-dev",
        suffixes={"flux.1-dev": "upstream", "flux.1-dev-issue20-refit": "issue-20-refit"},
        reason="it is the TeaCache authors' own and every engine's choice, while the refit's reporter calls its correlation poor",
    ),
    "lumina-image-2.0": SeveralSets(
        recommended="lumina-image-2.0-v2",
        suffixes={
            "lumina-image-2.0-v2": "modulated-input",
            "lumina-image-2.0-v1": "v1",
            "lumina-image-2.0-comfy": "timestep-embedding",
        },
        reason="it is made for this model, and its source finds it faster, and better at low thresholds, than the first list of the "
        "TeaCache repository, which that repository's script runs",
    ),
    "qwen-image": SeveralSets(
        recommended="qwen-image-mlx",
        suffixes={"qwen-image-mlx": "fitted", "qwen-image-chenpipi": "hand-set"},
        reason="it is a documented fit with a held-out R², while the other set consists of round numbers without a fit",
    ),
    "anima": SeveralSets(
        recommended="anima-watayuki",
        suffixes={
            "anima-watayuki": "any-sampler",
            "anima-chinokikiss-euler-normal": "euler-normal",
            "anima-chinokikiss-euler-simple": "euler-simple",
            "anima-chinokikiss-euler-beta57": "euler-beta57",
            "anima-chinokikiss-er_sde-simple": "er-sde-simple",
            "anima-chinokikiss-uni_pc-ddim_uniform": "uni-pc-ddim-uniform",
        },
        reason="it is not tied to one sampler, follows plain TeaCache and comes with reported speed-ups, "
        "while each other set holds for one sampler and scheduler and caches another residual",
    ),
}

TITLES = {
    "wan2.1-t2v-1.3b-default": "Wan2.1 T2V 1.3B, no retention steps",
    "wan2.1-t2v-14b-default": "Wan2.1 T2V 14B, no retention steps",
    "wan2.1-i2v-14b-480p-default": "Wan2.1 I2V 14B 480P, no retention steps",
    "wan2.1-i2v-14b-720p-default": "Wan2.1 I2V 14B 720P, no retention steps",
    "wan2.1-t2v-1.3b-ret": "Wan2.1 T2V 1.3B, retention steps",
    "wan2.1-t2v-14b-ret": "Wan2.1 T2V 14B, retention steps",
    "wan2.1-i2v-14b-480p-ret": "Wan2.1 I2V 14B 480P, retention steps",
    "wan2.1-i2v-14b-720p-ret": "Wan2.1 I2V 14B 720P, retention steps",
    "flux.1-dev-issue20-refit": "FLUX.1 [dev], a user's refit",
    "lumina-image-2.0-v1": "Lumina-Image-2.0, Lumina-Next's list",
    "lumina-image-2.0-v2": "Lumina-Image-2.0, LPIPS search",
    "lumina-image-2.0-comfy": "Lumina-Image-2.0, ComfyUI-TeaCache",
    "newbie": "NewBie Image",
    "boogu-image-sglang-fork": "Boogu-Image",
    "qwen-image-chenpipi": "Qwen-Image, round numbers",
    "qwen-image-mlx": "Qwen-Image",
    "qwen-image-2512-mlx": "Qwen-Image-2512",
    "z-image-base-mlx": "Z-Image base",
    "flux.2-klein-4b-mlx": "FLUX.2 Klein 4B",
    "flux.2-klein-9b-mlx": "FLUX.2 Klein 9B",
    "anima-watayuki": "Anima",
    "anima-chinokikiss-euler-normal": "Anima, Euler with the normal scheduler",
    "anima-chinokikiss-euler-simple": "Anima, Euler with the simple scheduler",
    "anima-chinokikiss-euler-beta57": "Anima, Euler with the beta57 scheduler",
    "anima-chinokikiss-er_sde-simple": "Anima, ER-SDE with the simple scheduler",
    "anima-chinokikiss-uni_pc-ddim_uniform": "Anima, UniPC with the ddim_uniform scheduler",
    "ltx-2-stage1-euler-mlx": "LTX-2 dev stage 1, Euler",
    "ltx-2-stage1-res2s-mlx": "LTX-2 dev stage 1, res_2s HQ",
}

# Models that generate sound along with the picture; the facts file counts them as video.
WITH_AUDIO = frozenset({"minimax-h3/fl2va", "minimax-h3/ref2va", "ltx-2/stage1-euler", "ltx-2/stage1-res2s-hq"})


# Borrowed lists that their source measured on the borrower: records of their own.
MEASURED_WHERE_BORROWED = frozenset({"lumina-image-2.0-v1"})

# Records that were corrected since they were first published; all others are of revision 1.
REVISIONS = {"lumina-image-2.0-v2": 2, "lumina-image-2.0-comfy": 2}


def is_calibration(fact: dict[str, object]) -> bool:
    """True for a plain TeaCache calibration of the model it is named after: what becomes a record."""
    own = fact["borrowed_from"] is None or fact["id"] in MEASURED_WHERE_BORROWED
    return own and "encoded404" not in str(fact["id"])


def bare_key(fact: dict[str, object]) -> str:
    """The checkpoint's key, whatever set of it this is."""
    return str(fact["model_key"])


def explicit_key(fact: dict[str, object]) -> str | None:
    """The key that names this set and no other, or None where the checkpoint has only one."""
    several = SEVERAL.get(bare_key(fact))
    return None if several is None else f"{bare_key(fact)}/{several.suffixes[str(fact['id'])]}"


def registry_key(fact: dict[str, object]) -> str:
    """The key whose file holds this set."""
    several = SEVERAL.get(bare_key(fact))
    if several is None or several.recommended == fact["id"]:
        return bare_key(fact)
    explicit = explicit_key(fact)
    assert explicit is not None
    return explicit
