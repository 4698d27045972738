"""A registry folder whose every text is hostile: markup, scripts, addresses that are none, directions, great length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from easyteacache.records.calibration import Calibration, save
from easyteacache.registry import index

MARKUP = '<script>window.hacked=1</script><img src=x onerror="window.hacked=1">"\'>{{ 7*7 }}{% x %}&lt;--><!--]]>'
#: A right-to-left word and mark, which the format lets through; overrides it refuses.
TURNED = "\u200fשלום‏ עולם"
ADDRESS = "javascript:window.hacked=1"


def texts(limit: int, name: str) -> str:
    """One hostile text of exactly ``limit`` characters that names the field it stands in."""
    head = f"{name} {MARKUP} {TURNED} {ADDRESS} https://evil.example/{MARKUP} "
    return (head + "W" * limit)[: limit - 1] + "e"


SHORT, LONG = 300, 4000


def short(name: str) -> str:
    return texts(SHORT, name)


def long(name: str) -> str:
    return texts(LONG, name)


def record(key: str = "hostile/model") -> Calibration:
    point = {
        "plan": {"computed": [0, 1, 3, 5], "predictor": "hold"},
        "evidence": [
            {
                "kind": "reported",
                "how": "reported",
                "metric": "psnr",
                "value": 31.5,
                "speedup": 1.5,
                "hardware": short("hardware"),
                "compared_with": long("compared_with"),
                "source": ADDRESS,
                "note": long("evidence note"),
            },
            {"kind": "reported", "how": "reported", "metric": short("metric"), "value": 1e300},
        ],
    }
    content: dict[str, Any] = {
        "schema_version": 3,
        "model_key": key,
        "revision": 1,
        "status": "deprecated",
        "title": short("title"),
        "modality": "image",
        "model": {
            "class_name": "HostileModel",
            "checkpoint": short("checkpoint"),
            "checkpoint_commit": ADDRESS,
            "adapters": [{"name": short("adapter"), "scale": -1.5}],
            "dtype": short("dtype"),
            "quantization": short("quantization"),
        },
        "method": "plan",
        "signal": "none",
        "signal_source": long("signal_source"),
        "buckets": [{"num_steps": 8, "sequence_length_source": long("length source"), "operating_points": [point]}],
        "conditions": {"note": long("conditions")},
        "provenance": {
            "author": short("author"),
            "date": "2026-11-28",
            "license": short("license"),
            "tool": short("tool"),
            "tool_version": short("tool_version"),
            "prompt_set": long("prompt_set"),
            "sources": [
                {
                    "repository": ADDRESS,
                    "path": short("path"),
                    "commit": short("commit"),
                    "license": short("source license"),
                    "note": long("source note"),
                },
                {"repository": "owner/name", "path": "../../etc/passwd", "commit": ADDRESS},
            ],
        },
        "retirement": {"date": "2026-11-28", "reason": long("reason")},
        "notes": [long("note")],
    }
    return Calibration.from_mapping(content)


def preset(key: str = "hostile/preset-engine") -> Calibration:
    content = json.loads(record(key).to_json())
    content |= {"method": "preset", "status": "published"}
    content.pop("retirement")
    content["buckets"][0]["operating_points"][0] = {
        "preset": {"engine": short("engine"), "method": short("method"), "parameters": {"text": short("parameter")}}
    }
    return Calibration.from_mapping(content)


def folder(path: Path) -> Path:
    """A registry folder of such records, with wishes of the same kind."""
    for one in (record(), preset()):
        save(one, path / f"{one.model_key}.json")
    index.write(path, index.build(path))
    wish = {
        "model_key": "hostile/model",
        "title": short("wanted title"),
        "why": long("why"),
        "wanted": long("wanted"),
        "checkpoint": short("wanted checkpoint"),
        "asked": [{"note": short("asked note")}, {"address": "https://evil.example/<script>alert(1)</script>"}],
    }
    (path / "wanted.json").write_text(json.dumps({"wanted_version": 1, "models": [wish]}), encoding="utf-8")
    return path
