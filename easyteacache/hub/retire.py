"""Take a record out of use: deprecated (use another one) or yanked (must not be used). Nothing is ever deleted."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Literal

from easyteacache.errors import HubError
from easyteacache.files.strict_json import MAX_BYTES
from easyteacache.hub import push
from easyteacache.hub.alone import alone
from easyteacache.hub.push import Sent
from easyteacache.hub.remote import Remote
from easyteacache.hub.review import check_submission
from easyteacache.hub.review.check_submission import TraceFiles
from easyteacache.records import calibration as records
from easyteacache.records import model_key, parsing
from easyteacache.records.calibration import Calibration
from easyteacache.registry import index
from easyteacache.registry.index import Index

Retired = Literal["deprecated", "yanked"]


def retired(
    record: Calibration, status: Retired, *, reason: str, replacement: str | None = None, date: str | None = None
) -> Calibration:
    """The next revision of ``record``, out of use.

    Args:
        record: as it is published.
        status: ``deprecated`` or ``yanked``.
        reason: one or two sentences.
        replacement: model key to use instead.
        date: YYYY-MM-DD; None: today.

    Raises:
        InvalidCalibration: reason, date or replacement break the format.
    """
    retirement = {
        "date": date or datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "reason": reason,
        **({"replacement": replacement} if replacement else {}),
    }
    changed = {"status": status, "revision": record.revision + 1, "retirement": retirement}
    return Calibration.from_mapping(json.loads(record.to_json()) | changed, where=record.model_key)


def propose(remote: Remote, key: str, status: Retired, *, reason: str, replacement: str | None = None) -> Sent:
    """Open a pull request that retires a published record.

    Raises:
        HubError: it is not published, or the request could not be sent.
        PushRefused: the change breaks a rule.
    """
    base = remote.commit_of("main")
    if key not in push.published_at(remote, base).records:
        raise HubError(remote.repository, f"{key!r} is not published here")
    record, _ = push.published_record(remote, base, key)
    data = retired(record, status, reason=reason, replacement=replacement).to_json().encode()
    return push.send(remote, push.prepare(remote, {f"{key}.json": data}, judge=None))


def retire_in_folder(folder: Path, key: str, status: Retired, *, reason: str, replacement: str | None = None) -> Path:
    """Retire a record of a registry folder: its file and the index; returns the file.

    Raises:
        HubError: the folder does not hold it, or the change breaks a rule.
        InvalidCalibration: the record or the index is damaged.
    """
    # Another process that retires a record meanwhile would write an index without this change.
    with alone(folder):
        listed = index.read(folder) or index.build(folder)
        if key not in listed.records:
            raise HubError(str(folder), f"holds no {key!r}")
        path = folder / model_key.path_of(key)
        before = Calibration.from_json(parsing.read_file(path, rules="record", max_bytes=MAX_BYTES), where=str(path))
        after = retired(before, status, reason=reason, replacement=replacement)
        data = after.to_json().encode()
        judged = check_submission.check(data, str(path), published=listed, incumbent=before, traces=TraceFiles(()))
        if judged.errors:
            raise HubError(str(folder), str(judged.errors[0]))
        # One that is damaged stays listed as it was, and must not leave this change half made.
        readable, damaged = index.build_around(folder)
        kept = {name: entry for name, entry in listed.records.items() if name in damaged}
        entries = {**kept, **readable.records, key: index.entry_of(after, data)}
        fresh = Index(index_version=index.INDEX_VERSION, records=entries)
        records.save(after, path)
        index.write(folder, fresh)
        return path
