"""The registry: an immutable mapping from model key to calibration, in layers.

Lookup order: an explicit registry → the folders in ``EASYTEACACHE_REGISTRY`` → the local layer (what people
filed on this machine) → the pulled layer (a pinned snapshot of a hub) → the bundled one. The first layer that holds a key wins
and is named in the policy. A key that no layer holds is an error with suggestions, never an ancestor's numbers. Where a lock is
in force (``lock_file``), the first layer that holds the locked content wins.

An alias belongs to the last layer that lists it, counted from the first searched to the bundled one: a record that arrives in
a layer before cannot take the name of another layer's record. A lock decides among the records that claim a name.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from easyteacache.errors import AmbiguousModelKey, InvalidCalibration, InvalidModelKey, UnknownModelKey
from easyteacache.files import strict_json
from easyteacache.records import calibration, model_key, parsing
from easyteacache.records.calibration import Calibration
from easyteacache.registry import bundled, index, lock_file
from easyteacache.registry.family import model_of, names_method
from easyteacache.registry.index import Index, IndexEntry
from easyteacache.registry.lock_file import LockFile
from easyteacache.registry.named_path import expanded

ENVIRONMENT_FOLDERS = "EASYTEACACHE_REGISTRY"
ENVIRONMENT_HOME = "EASYTEACACHE_HOME"
# What people may have meant as a key, a Hub repository id or a transformer class.
_NAME_LIKE = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9@._-]*(/[A-Za-z0-9_][A-Za-z0-9@._-]*)*")

_SET_HOME = f"set {ENVIRONMENT_HOME} to a folder that can be"
_HOMELESS = f"this user has no home folder; set {ENVIRONMENT_HOME} to a folder of your choice"


def home() -> Path:
    """Where this machine's own layers live: ``$EASYTEACACHE_HOME``, else ``~/.local/share/easyteacache``.

    Raises:
        InvalidCalibration: a variable names the home of a user that is not known here, or this user has none.
    """
    explicit, data = os.environ.get(ENVIRONMENT_HOME), os.environ.get("XDG_DATA_HOME")
    if explicit:
        return expanded(explicit, ENVIRONMENT_HOME, rule="registry.folder")
    if data:
        return expanded(data, "XDG_DATA_HOME", rule="registry.folder") / "easyteacache"
    try:
        return Path.home() / ".local/share/easyteacache"
    except RuntimeError as error:
        raise InvalidCalibration("HOME", _HOMELESS, rule="registry.folder") from error


def names_file(name: str) -> bool:
    """Whether a name is that of a calibration file: no model key ends so."""
    return name.endswith(".json")


@dataclass(frozen=True)
class Layer:
    """One source of records.

    Attributes:
        name: ``local``, ``pulled``, ``bundled`` or the folder's path.
        folder: where its files are; index.json there is used when present, otherwise the files are scanned once.
        foreign: others chose its records, as those of a hub: a key of theirs gives way where a later layer knows that name as
            an alias of a record of its own.
        around: a damaged file spoils its own record alone, as in folders that people fill by hand; False: the whole layer.
    """

    name: str
    folder: Path
    foreign: bool = False
    around: bool = False

    @property
    def index(self) -> Index:
        """The layer's table of contents."""
        return self._contents[0]

    @property
    def damaged(self) -> Mapping[str, InvalidCalibration | InvalidModelKey]:
        """What is wrong with files that were passed over, by key, or by path where that is no key."""
        return self._contents[1]

    @functools.cached_property
    def _contents(self) -> tuple[Index, Mapping[str, InvalidCalibration | InvalidModelKey]]:
        if not self.around:
            return index.read(self.folder) or index.build(self.folder), {}
        try:
            listed = index.read(self.folder)
        except InvalidCalibration as error:
            found, damaged = index.build_around(self.folder)
            return found, {index.FILE_NAME: error, **damaged}
        return index.build_around(self.folder) if listed is None else (listed, {})

    @functools.cached_property
    def aliases(self) -> Mapping[str, tuple[str, ...]]:
        """Alias value → the model keys that carry it."""
        found: dict[str, tuple[str, ...]] = {}
        for key, entry in self.index.records.items():
            for alias in entry.aliases:
                # One record may carry the same name as two kinds of alias.
                found[alias.value] = tuple(dict.fromkeys((*found.get(alias.value, ()), key)))
        return found

    def load(self, key: str) -> Calibration:
        """Read the record filed under ``key``.

        Raises:
            InvalidCalibration: the file is missing, differs from the index, breaks the format, or is filed wrongly.
        """
        entry = self.index.records[key]
        path = self.folder / entry.path
        try:
            inside = path.resolve(strict=True).is_relative_to(self.folder.resolve())
        # Python before 3.13 has an error of its own for links that go in circles.
        except (OSError, RuntimeError) as error:
            raise InvalidCalibration(
                os.fspath(path),
                f"listed in {index.FILE_NAME} but cannot be read: {getattr(error, 'strerror', None) or error}",
                rule="record.unreadable",
            ) from error
        if not inside:
            # A symbolic link inside the folder must not lead the reader out of it.
            raise InvalidCalibration(os.fspath(path), "leads out of the registry folder", rule="record.path")
        data = parsing.read_file(path, rules="record", max_bytes=strict_json.MAX_BYTES)
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise InvalidCalibration(
                os.fspath(path),
                f"its content differs from the sha256 in {index.FILE_NAME}; restore the file or rebuild the index",
                rule="index.sha256",
            )
        record = Calibration.from_json(data, where=os.fspath(path))
        if record.model_key != key:
            raise InvalidCalibration(
                os.fspath(path), f"model_key is {record.model_key!r}, its path says {key!r}", rule="record.path"
            )
        return record


@dataclass(frozen=True)
class Found:
    """A record and how it was found.

    Attributes:
        calibration: the record.
        layer: name of the layer it came from.
        asked: the key or alias that was asked for.
        notes: what the caller should know about the lookup, one sentence each.
    """

    calibration: Calibration
    layer: str
    asked: str
    notes: tuple[str, ...] = field(default=())

    @classmethod
    def in_file(cls, path: str | os.PathLike[str]) -> Found:
        """A record that need not be in any layer; the file's name stands for one.

        Raises:
            InvalidCalibration: the file is missing, unreadable or malformed.
        """
        return cls(calibration.load(path), os.fspath(path), os.fspath(path))


class Registry(Mapping[str, Calibration]):
    """An immutable mapping model key → calibration over layers, the first layer first.

    With a lock it holds what the lock pins and nothing else: iterating gives the pinned keys, and looking another one up is
    an error that says how to add it.

    Args:
        layers: the layers.
        lock: file that pins what a lookup may find; None: no limits.
        notes: why layers are missing, one sentence each; said of every lookup.

    Attributes:
        lock_path: that file.
    """

    def __init__(self, layers: Sequence[Layer], *, lock: Path | None = None, notes: Sequence[str] = ()) -> None:
        self._layers, self._notes = tuple(layers), tuple(notes)
        self.lock_path = lock

    @classmethod
    def default(cls) -> Registry:
        """The layers that ``TeaCache.from_registry`` searches when it is given none."""
        layers = [
            Layer(name, expanded(name, ENVIRONMENT_FOLDERS, rule="registry.folder"), around=True)
            for name in os.environ.get(ENVIRONMENT_FOLDERS, "").split(os.pathsep)
            if name
        ]
        for layer in layers:
            _require_folder(layer.folder, f"{ENVIRONMENT_FOLDERS} names")
        own, notes = _own_layers()
        bundle = Layer("bundled", bundled.registry())
        return cls([*layers, *own, bundle], lock=lock_file.in_force(), notes=notes)

    @classmethod
    def opened(cls, given: Registry | str | os.PathLike[str] | None) -> Registry:
        """What a caller's ``registry=`` or ``--registry`` means: a registry, one folder alone, or with None the default layers."""
        if given is None:
            return cls.default()
        return given if isinstance(given, Registry) else cls.from_folder(given)

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str]) -> Registry:
        """A registry of one folder and nothing else.

        Raises:
            InvalidCalibration: there is no such folder.
        """
        path = expanded(folder, "registry", rule="registry.folder")
        _require_folder(path, "expected a registry folder at")
        return cls([Layer(os.fspath(folder), path)])

    @functools.cached_property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of every lookup: layers that cannot be read, files that were passed over."""
        files = [
            f"A file of the layer {layer.name!r} was passed over: {os.fspath(layer.folder / name)}: {error}"
            if isinstance(error, InvalidModelKey)
            else f"A file of the layer {layer.name!r} was passed over: {error}"
            for layer in self._layers
            for name, error in layer.damaged.items()
        ]
        return (*self._notes, *files)

    @property
    def missing_layers(self) -> tuple[str, ...]:
        """Why layers are not there that belong to this machine, one sentence each."""
        return self._notes

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, first searched first."""
        return self._layers

    def __getitem__(self, key: str) -> Calibration:
        return self.find(key).calibration

    def get(self, key: str, default: Any = None) -> Any:
        """The calibration filed under ``key`` or its alias, or ``default``; a damaged record is still an error."""
        try:
            return self[key]
        except (UnknownModelKey, InvalidModelKey):
            return default

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._reached(key) is not None

    def __iter__(self) -> Iterator[str]:
        return (key for key in self._keys() if self._reached(key) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def entries(self) -> Iterator[tuple[str, str, IndexEntry]]:
        """``(key, layer name, index entry)`` of every record that a lookup can reach, sorted by key; reads no record."""
        for key in self._keys():
            layer = self._reached(key)
            if layer is not None:
                yield key, layer.name, layer.index.records[key]

    def missing(self) -> list[str]:
        """Keys that the lock in force pins to content that no layer holds, sorted; none without a lock."""
        return [] if self.lock is None else [key for key in sorted(self.lock.records) if key not in self]

    def _keys(self) -> list[str]:
        """Every key of every layer, sorted, whatever a lock says."""
        return sorted({key for layer in self._layers for key in layer.index.records})

    def _reached(self, key: str) -> Layer | None:
        """The layer whose record of ``key`` a lookup finds; None where it finds none."""
        if self.lock is None:
            return self._holder(key)
        wanted = self.lock.records.get(key)
        return None if wanted is None else self._with_content(key, wanted.sha256)

    def _with_content(self, key: str, sha256: str) -> Layer | None:
        holders = (layer for layer in self._layers if key in layer.index.records)
        return next((layer for layer in holders if layer.index.records[key].sha256 == sha256), None)

    def find(self, key: str) -> Found:
        """Look a model key or an exact alias up.

        Raises:
            InvalidModelKey: ``key`` is neither spelled like a key nor an alias.
            UnknownModelKey: no layer holds it; the error names the nearest keys.
            AmbiguousModelKey: it is an alias of several records.
            InvalidCalibration: the record's file is damaged, or a lock is in force that no layer's content meets.
        """
        if not isinstance(key, str):
            raise InvalidModelKey(key, f"a {type(key).__name__}, not text")
        holder = self._holder(key)
        if holder is not None:
            holder = self._locked_holder(key) or holder
            return Found(holder.load(key), holder.name, key, self._shadow_notes(key, holder))
        damaged = next((layer.damaged[key] for layer in self._layers if key in layer.damaged), None)
        if damaged is not None:
            raise damaged
        claims = self._claims(key)
        if claims:
            return self._by_alias(key, claims)
        known = [*self._keys(), *(alias for layer in self._layers for alias in layer.aliases)]
        # Hub repository ids may hold upper-case letters; only what is neither known nor id-like is a spelling error.
        suggestions = model_key.nearest(key, known) if _NAME_LIKE.fullmatch(key) else ()
        if not suggestions:
            model_key.parse(key)
        raise UnknownModelKey(key, suggestions=suggestions, layers=[layer.name for layer in self._layers])

    def of_model(self, key: str) -> tuple[Found, ...]:
        """Every record of one model: that of its bare key, where there is one, and then those of its methods, sorted by key.

        Args:
            key: the model's key, a key of one of its methods, or an exact alias of either.

        Raises:
            UnknownModelKey, AmbiguousModelKey, InvalidModelKey, InvalidCalibration: as ``find``; a damaged record beside one that
                can be read is left out, and a note of the first one names it.
        """
        model = self._model_named(key)
        members = [name for name in self._keys() if model_of(name) == model and self._reached(name) is not None]
        if not members:
            return (self.find(key),)
        found: list[Found] = []
        damaged: list[InvalidCalibration] = []
        for name in sorted(members, key=lambda name: (name != model, name)):
            try:
                one = self.find(name)
            except InvalidCalibration as error:
                damaged.append(error)
                continue
            found.append(dataclasses.replace(one, asked=key))
        if not found:
            raise damaged[0]
        notes = [f"A record of {model!r} was left out because it is damaged: {error}" for error in damaged]
        if self._holder(key) is None and (claims := self._claims(key)):
            notes = [*self._alias_notes(key, claims), *notes]
        found[0] = dataclasses.replace(found[0], notes=(*notes, *found[0].notes))
        return tuple(found)

    def meant_by(self, key: str) -> tuple[Found, ...]:
        """The records that a caller's key means: that of a method alone where the key names one, else all of the model.

        Raises:
            UnknownModelKey, AmbiguousModelKey, InvalidModelKey, InvalidCalibration: as ``find`` and ``of_model``.
        """
        return (self.find(key),) if isinstance(key, str) and names_method(key) else self.of_model(key)

    def _model_named(self, key: str) -> str | None:
        """The model that a key or an alias means; None for an alias that is borrowed or of several models, and what is no text."""
        if not isinstance(key, str):
            return None
        claims = self._claims(key)
        if self._holder(key) is not None or not claims:
            return model_of(key)
        layer, keys = self._owner(key, claims)
        if any(alias.borrowed for name in keys for alias in layer.index.records[name].aliases if alias.value == key):
            return None
        models = {model_of(name) for name in keys}
        return models.pop() if len(models) == 1 else None

    def _holder(self, key: str) -> Layer | None:
        """The first layer that holds ``key`` and does not take another record's name by it."""
        locked = self.lock is not None and key in self.lock.records
        for position, layer in enumerate(self._layers):
            if key in layer.index.records:
                taken = layer.foreign and any(key in later.aliases for later in self._layers[position + 1 :])
                if locked or not taken:
                    return layer
            elif key in layer.damaged:
                # It fails; another layer's numbers must not answer for it in silence.
                return None
        return None

    def _claims(self, name: str) -> list[Layer]:
        """The layers that list ``name`` as an alias."""
        return [layer for layer in self._layers if name in layer.aliases]

    @functools.cached_property
    def lock(self) -> LockFile | None:
        """The lock in force, None without one."""
        return None if self.lock_path is None else lock_file.read(self.lock_path)

    def _locked_holder(self, key: str) -> Layer | None:
        """The first layer that holds the locked content of ``key``; None without a lock."""
        if self.lock is None:
            return None
        where = os.fspath(self.lock_path or "")
        wanted = lock_file.pinned(self.lock, key, where)
        layer = self._with_content(key, wanted.sha256)
        if layer is not None:
            return layer
        raise InvalidCalibration(
            where,
            f"pins {key!r} to revision {wanted.revision} ({wanted.sha256[:12]}…), which no layer holds; "
            "get it with `easyteacache-hub pull --locked`",
            rule="lock.sha256",
        )

    def _by_alias(self, asked: str, claims: Sequence[Layer]) -> Found:
        """The record that an alias names; ``claims`` are the layers that list it."""
        layer, keys = self._owner(asked, claims)
        if len(keys) > 1:
            raise AmbiguousModelKey(asked, candidates=keys)
        key, notes = keys[0], self._alias_notes(asked, claims)
        # The alias says which record is meant; which layer's record that is follows the lookup order as for the key itself.
        holder = self._locked_holder(key) or self._holder(key) or layer
        return Found(holder.load(key), holder.name, asked, (*notes, *self._shadow_notes(key, holder)))

    def _alias_notes(self, asked: str, claims: Sequence[Layer]) -> list[str]:
        """What is to be said of an alias: whose it is, and who else claims it."""
        layer, keys = self._owner(asked, claims)
        notes = []
        for key in keys:
            alias = next(alias for alias in layer.index.records[key].aliases if alias.value == asked)
            note = f"{asked!r} is the {alias.kind.replace('_', ' ')} of {key!r}."
            if alias.borrowed:
                note += " These numbers are borrowed: they were fitted to another model."
            notes.append(note)
        for other in claims:
            for rival in other.aliases[asked]:
                if rival not in keys:
                    notes.append(f"{rival!r} in the layer {other.name!r} claims this name, too: ask for it by its key.")
        for other in self._layers:
            if asked in other.index.records:
                notes.append(
                    f"The layer {other.name!r} has a record of this key, which is passed over for this name's sake."
                )
        return list(dict.fromkeys(notes))

    def _owner(self, asked: str, claims: Sequence[Layer]) -> tuple[Layer, tuple[str, ...]]:
        """The layer whose alias counts, and the keys it means there: what a lock lists, else the last layer's."""
        if self.lock is not None:
            for layer in reversed(claims):
                locked = tuple(key for key in layer.aliases[asked] if key in self.lock.records)
                if locked:
                    return layer, locked
        return claims[-1], claims[-1].aliases[asked]

    def _shadow_notes(self, key: str, holder: Layer) -> tuple[str, ...]:
        """What is to be said of every lookup, and of a record that this one hides."""
        mine = holder.index.records[key]
        for layer in self._layers[self._layers.index(holder) + 1 :]:
            other = layer.index.records.get(key)
            if other is not None and other.sha256 != mine.sha256:
                return (
                    *self.notes,
                    f"revision {mine.revision} from the layer {holder.name!r} hides "
                    f"revision {other.revision} in {layer.name!r}.",
                )
        return self.notes


def _own_layers() -> tuple[list[Layer], list[str]]:
    """This machine's own layers, and why there are none where their home cannot be found or read."""
    if not any(os.environ.get(name) for name in (ENVIRONMENT_HOME, "XDG_DATA_HOME")):
        try:
            home()
        except InvalidCalibration:
            return [], [f"No layer of this machine's own: {_HOMELESS}."]
    layers, notes = [], []
    for name in ("local", "pulled"):
        folder = home() / name
        try:
            # Resolved once: a pull may point the folder elsewhere while this registry is read.
            if not stat.S_ISDIR(folder.stat().st_mode):
                continue
            os.scandir(folder).close()
            layers.append(Layer(name, folder.resolve(), foreign=name == "pulled", around=name == "local"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        # Python before 3.13 has an error of its own for links that go in circles.
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or error
            notes.append(f"No layer {name!r} of this machine's own: {folder} cannot be read ({reason}); {_SET_HOME}.")
    return layers, notes


def _require_folder(folder: Path, what: str) -> None:
    if not folder.is_dir():
        raise InvalidCalibration(os.fspath(folder), f"{what} {folder}, which is not a folder", rule="registry.folder")
