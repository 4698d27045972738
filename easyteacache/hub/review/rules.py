"""What a registry folder, a lock or a submission is refused for beyond what concerns one record: rule id → meaning.

The rules of one record's file are ``check_record.MEANINGS``, those of its accuracy ``solver.validation.rules.TABLE``; ids are the same in every tool.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "registry.folder": "The registry is a folder.",
        "registry.name": "Every `.json` file of the folder has the path of a model key, and none is a symbolic link.",
        "registry.alias": "No alias is used by two records or is the key of another record.",
        "index.missing": "The folder has an index.json.",
        "index.unlisted": "Every record is listed in the index.",
        "index.gone": "Every record that the index lists is there.",
        "index.sha256": "Every record has the content whose hash the index lists.",
        "index.stale": "The index says about every record what the record says.",
        "index.signature": "Where it is asked for, the index is signed by whom it should be (index.json.sigstore).",
        "submission.schema-version": "What is new or changed is written in the newest version of the format.",
        "submission.status": "The status follows the published one: draft → validated → deprecated → yanked.",
        "submission.yanked-base": "A yanked record is never brought back under its key.",
        "submission.revision": "revision is raised by one with every change, and 1 for a new record, unless it is brought to a hub from elsewhere.",
        "submission.retirement": "A record is retired with the numbers it was published with.",
        "submission.replacement": "The replacement of a retired record is published.",
        "submission.license": "The record names the licence of its numbers.",
        "submission.provenance": "The record names its author, date, tool and tool version.",
        "submission.trace-missing": "Every trace file that the record names is attached.",
        "submission.trace-hash": "Every attached trace file has the content that the record names.",
        "submission.trace-runs": "Every trace file holds as many runs as the record says.",
        "submission.deleted": "No record is deleted; one that was renamed is an alias (former_key) of the new one.",
        "evidence.untraced": "Submitted evidence comes with the traces that it was found on.",
        "evidence.unsigned": "Verified evidence is signed by who repeated it.",
        "evidence.verifier": "Who verified is listed in the published registry's verifiers.txt, and is not the record's author.",
        "evidence.signature": "A verifier's signature is of this very block, and of the numbers that it was found with.",
        "evidence.own-prompts": "Verified evidence was found on other prompts than the record was made with.",
        "verifiers.form": "Every line of verifiers.txt is a name, a tab and an ed25519 key.",
        "wanted.schema": "Where there is a wanted.json, it has the form of its schema.",
        "lock.unlisted": "Where a lock is in force, it lists every record that is looked up.",
        "lock.sha256": "Some layer holds the content that the lock pins.",
    }
)
