"""What holds for a whole record in every version of the format, and how each is spelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from pydantic import BaseModel

from easyteacache.errors import InvalidModelKey
from easyteacache.files import strict_json
from easyteacache.records import model_key
from easyteacache.records.bucket import BucketFields
from easyteacache.records.provenance import Alias, Retirement, Source, TraceReference


class Origin(Protocol):
    """Where numbers come from, as far as it is judged here."""

    @property
    def traces(self) -> Sequence[TraceReference]:
        """Trace files that the numbers were fitted to or judged on."""

    @property
    def sources(self) -> Sequence[Source]:
        """Public places that print them."""


class WholeRecord(Protocol):
    """A record of any version, as far as it is judged here."""

    @property
    def model_key(self) -> str:
        """Name of what was calibrated."""

    @property
    def status(self) -> str:
        """How far it is to be trusted."""

    @property
    def branches(self) -> Sequence[str]:
        """Branches the numbers hold for."""

    @property
    def aliases(self) -> Sequence[Alias]:
        """Other exact names."""

    @property
    def buckets(self) -> Sequence[BucketFields]:
        """What holds at one sequence length and sampler setting."""

    @property
    def provenance(self) -> Origin:
        """Where the numbers come from."""

    @property
    def retirement(self) -> Retirement | None:
        """Why it should not be used any more."""


def check_key(record: WholeRecord) -> None:
    """Refuse a name that is no model key; raises ``ValueError``."""
    try:
        model_key.parse(record.model_key)
    except InvalidModelKey as error:
        raise ValueError(str(error)) from error


def check_order(record: WholeRecord) -> None:
    """Refuse buckets that do not ascend; raises ``ValueError``."""
    settings = [bucket.setting for bucket in record.buckets]
    if settings != sorted(settings):
        raise ValueError("buckets must ascend by sequence length, then step count, then shift")


def check_buckets(record: WholeRecord) -> None:
    """Refuse buckets that do not ascend or hold for the same setting; raises ``ValueError``."""
    check_order(record)
    if len({bucket.setting for bucket in record.buckets}) < len(record.buckets):
        raise ValueError("two buckets hold for the same sequence length, step count and shift")


def check_branches(record: WholeRecord) -> None:
    """Refuse a branch named twice, or ratios of a branch that is not named; raises ``ValueError``."""
    if len(set(record.branches)) < len(record.branches):
        raise ValueError("branches lists a name twice")
    ratios = {entry.branch for bucket in record.buckets for entry in bucket.magnitude_ratios}
    if not ratios <= set(record.branches):
        raise ValueError(f"magnitude_ratios of {sorted(ratios - set(record.branches))}, which branches does not list")


def check_aliases(record: WholeRecord) -> None:
    """Refuse an alias listed twice or equal to the key; raises ``ValueError``."""
    if len({(alias.kind, alias.value) for alias in record.aliases}) < len(record.aliases):
        raise ValueError("the same alias is listed twice")
    if record.model_key in {alias.value for alias in record.aliases}:
        raise ValueError("an alias repeats the record's own model_key")


def check_status(record: WholeRecord) -> None:
    """Refuse a status without what it needs; raises ``ValueError``."""
    retired = record.status in ("deprecated", "yanked")
    if retired != (record.retirement is not None):
        raise ValueError(f"status is {record.status!r}: retirement must {'say why' if retired else 'be absent'}")
    if record.retirement is not None and record.retirement.replacement == record.model_key:
        raise ValueError("retirement names the record itself as its replacement")
    if record.status == "validated" and not record.provenance.traces:
        raise ValueError("status is 'validated': provenance.traces must name the traces it was judged on")
    if record.status == "published" and not record.provenance.sources:
        raise ValueError("status is 'published': provenance.sources must name where the numbers are printed")


def spelled(record: BaseModel) -> str:
    """The canonical spelling: fields in the format's order, absent and empty values left out, final newline."""
    return strict_json.spell(_without_empty(record.model_dump(mode="json")))


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: _without_empty(item) for key, item in value.items()}
        # An empty provenance is still a required field; every other empty value means the same as its absence.
        return {key: item for key, item in kept.items() if key == "provenance" or item not in (None, [], {})}
    return [_without_empty(item) for item in value] if isinstance(value, list) else value
