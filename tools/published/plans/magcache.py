"""MagCache's published settings: thresholds of the records that hold their ratios, and plans where their longest run differs."""

from __future__ import annotations

from collections.abc import Sequence

from easyteacache.policy.methods.magcache import magcache_plan, rule_of
from easyteacache.records.bucket import Bucket
from easyteacache.records.operating_point import OperatingPoint
from easyteacache.records.plan import Plan
from published.plans.evidence import evidence_of
from published.plans.method import Fact, computed_of, sentence

#: Settings, by the middle of their ids → the record of their ratios, where that is not the model's own key with `/magcache`.
KEYS = {
    "hunyuanvideo-544p": "hunyuanvideo/t2v/magcache-544p",
    "hunyuanvideo-720p": "hunyuanvideo/t2v/magcache-720p",
    "wan2.2-ti2v-5b-t2v": "wan2.2/ti2v-5b/magcache-t2v",
}


def key_of(fact: Fact) -> str:
    """The record that a setting belongs to."""
    named = fact["id"].split("/", 1)[1].rpartition("/")[0]
    return KEYS.get(named) or f"{fact['model_key_suggestion']}/magcache"


def limit_of(facts: Sequence[Fact]) -> int | None:
    """The longest run of reused steps that any of the settings allows."""
    return max((fact["extra"]["K"] for fact in facts), default=None)


def retention_of(facts: Sequence[Fact]) -> float | None:
    """The share of computed steps at the beginning, which all settings of one record have in common.

    Raises:
        ValueError: they have not.
    """
    found = {fact["extra"]["retention_ratio"] for fact in facts}
    if len(found) > 1:
        raise ValueError(f"{[fact['id'] for fact in facts]}: retention ratios {sorted(found)}")
    return min(found, default=None)


def points(key: str, bucket: Bucket, facts: Sequence[Fact]) -> list[OperatingPoint]:
    """The operating points of a bucket: what it has, and its published settings; the most cautious first.

    A setting whose longest run is the bucket's own is a threshold, which holds at any step count; another one is a plan of its computed
    steps.

    Raises:
        ValueError: the ratios do not lead to the computed steps that a setting is listed with.
    """
    found = {point.threshold: point for point in bucket.operating_points}
    plans = []
    for fact in facts:
        extra, evidence = fact["extra"], evidence_of(fact, full_claim=True)
        for entry in bucket.magnitude_ratios:
            follows = magcache_plan(
                bucket,
                fact["num_steps"],
                entry.branch,
                threshold=extra["threshold"],
                limit=extra["K"],
                retention=extra["retention_ratio"],
                rule=rule_of(key),
            )
            if follows != computed_of(fact):
                raise ValueError(f"{fact['id']}: the ratios lead to {follows}")
        if extra["K"] == bucket.max_consecutive_skips:
            known = found.get(extra["threshold"])
            told = evidence if known is None else (*evidence, *known.evidence)
            found[extra["threshold"]] = OperatingPoint(threshold=float(extra["threshold"]), evidence=told)
        else:
            plans.append(OperatingPoint(plan=Plan(computed=computed_of(fact), predictor="hold"), evidence=evidence))
    counted = [_counted(key, bucket, point) for point in found.values()]
    return sorted([*counted, *plans], key=lambda point: -(point.computed_steps or len(point.schedule or ())))


def _counted(key: str, bucket: Bucket, point: OperatingPoint) -> OperatingPoint:
    """The same threshold with the steps it computes at the bucket's own step count; of several branches the most."""
    if point.threshold is None or bucket.num_steps is None or rule_of(key).boundary is not None:
        return point
    steps = [
        len(magcache_plan(bucket, bucket.num_steps, entry.branch, threshold=point.threshold, rule=rule_of(key)))
        for entry in bucket.magnitude_ratios
    ]
    return OperatingPoint(threshold=point.threshold, computed_steps=max(steps), evidence=point.evidence)


def notes(facts: Sequence[Fact]) -> list[str]:
    """What the settings note, once each, with the setting's name."""
    return [f"{fact['id'].rpartition('/')[2]}: {sentence(note)}" for fact in facts for note in fact["notes"]]
