"""Find the registry record for a pipeline: by exact names only, never by a likeness."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from easyteacache.errors import AmbiguousModelKey, AttachError, EasyTeaCacheError, UnknownModelKey
from easyteacache.integrations.diffusers.model_classes import class_of
from easyteacache.integrations.diffusers.model_identity import configuration_name
from easyteacache.integrations.diffusers.pipeline import PARTS, parts_of
from easyteacache.records import model_key
from easyteacache.registry.family import model_of
from easyteacache.registry.registry import Found, Registry

# Where the Hub's own client keeps `owner/name`.
_HUB_FOLDER = re.compile(r"models--([A-Za-z0-9._-]+?)--([A-Za-z0-9._-]+)")
_REPOSITORY = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$")
#: More keys than these in one sentence help nobody.
_MOST_NAMED = 12


def keys_for(pipe: Any, registry: Registry, *, allow_borrowed: bool = False) -> dict[str, str]:
    """The registry key of each transformer of a pipeline.

    Looked up are each transformer's ``configuration_name`` and the Hub repository ids that the pipeline and its transformers were
    loaded from, as exact aliases; then the class and configuration that records say they were made with, layer by layer.

    Args:
        pipe: a diffusers pipeline.
        registry: where to look.
        allow_borrowed: accept numbers that were fitted to another model than the one the alias stands for.

    Returns:
        Component name (``transformer``, ``transformer_2``) → model key. Both experts of a model have one key where its records hold
        for the whole run.

    Raises:
        UnknownModelKey: none of the names leads to a record; the error lists the records of this class and says how to name one.
        AmbiguousModelKey: they lead to several.
        AttachError: the pipeline has no transformer, or the numbers are borrowed.
    """
    parts = parts_of(pipe)
    if len(parts) == 1:
        [(component, transformer)] = parts.items()
        return {component: _single(pipe, transformer, registry, allow_borrowed=allow_borrowed)}
    return {
        component: _expert(pipe, transformer, PARTS[component], registry, allow_borrowed=allow_borrowed)
        for component, transformer in parts.items()
    }


def key_for_new(pipe: Any, registry: Registry) -> str:
    """The key under which a calibration made here of this pipeline's transformer is filed.

    That of the model whose records its exact names lead to; else its Hub repository id in lower case; else ``local/`` with the class
    and eight digits of its configuration's hash. A folder's name on this machine is nobody's business.

    Raises:
        AttachError: the pipeline has no transformer.
    """
    transformer = next(iter(parts_of(pipe).values()))
    names = list(dict.fromkeys(_names(pipe, transformer)))
    for name in _by_trust(names, registry):
        if _known(name, registry):
            try:
                return model_of(_own(registry.find(name), allow_borrowed=False))
            except (EasyTeaCacheError, AttachError):
                continue
    for name in names:
        key = re.sub(r"[^a-z0-9._/-]+", "-", name.lower())
        if "@" not in name and model_key.is_valid(key):
            return key
    kind, _, digest = names[0].partition("@")
    return f"local/{kind.lower()}-{digest[:8]}"


def repository_of(pipe: Any) -> str | None:
    """The Hub repository id that a pipeline or its transformer was loaded from; None where neither says one."""
    transformer = next(iter(parts_of(pipe).values()))
    return next((name for name in _names(pipe, transformer) if "@" not in name), None)


def _names(pipe: Any, transformer: Any) -> Iterator[str]:
    yield configuration_name(transformer)
    for config in (getattr(pipe, "config", None), transformer.config):
        path = str((config or {}).get("_name_or_path") or "")
        found = _HUB_FOLDER.search(path)
        if found is not None:
            yield f"{found.group(1)}/{found.group(2)}"
        elif _REPOSITORY.match(path):
            yield path


def _single(pipe: Any, transformer: Any, registry: Registry, *, allow_borrowed: bool) -> str:
    names = _by_trust(_names(pipe, transformer), registry)
    for name in names:
        if _known(name, registry):
            # What an alias leads to may be one of several records of its model.
            return model_of(_own(registry.find(name), allow_borrowed=allow_borrowed))
    made_with = _made_with(transformer, registry)
    if len(made_with) > 1:
        raise AmbiguousModelKey(names[0], candidates=made_with)
    if made_with:
        return made_with[0]
    raise _unknown(transformer, names, registry)


def _expert(pipe: Any, transformer: Any, part: str, registry: Registry, *, allow_borrowed: bool) -> str:
    """The key of one expert: an alias both experts share leads to both, and the part's name tells them apart.

    A plan or MagCache counts the sampler's steps through both experts, so a model that has no other records has one key for both.
    """
    names = _by_trust(_names(pipe, transformer), registry)
    for name in names:
        if not _known(name, registry):
            continue
        try:
            key = _own(registry.find(name), allow_borrowed=allow_borrowed)
        except AmbiguousModelKey as error:
            mine = [key for key in error.suggestions if key.endswith(f"/{part}")]
            if len(mine) != 1:
                raise
            return mine[0]
        if key.endswith(f"/{part}"):
            return key
        model = model_of(key)
        if f"{model}/{part}" not in registry and _counts_steps(model, registry):
            return model
        return registry.find(f"{model}/{part}").calibration.model_key
    found = _made_with(transformer, registry)
    made_with = [key for key in found if key.endswith(f"/{part}")] or found
    if len(made_with) == 1:
        return made_with[0]
    if made_with:
        raise AmbiguousModelKey(names[0], candidates=made_with)
    raise _unknown(transformer, names, registry)


def _by_trust(names: Iterable[str], registry: Registry) -> list[str]:
    """Each name once, those last that none but layers of others' records know: a pulled record cannot come first by one."""
    own = [layer for layer in registry.layers if not layer.foreign]
    known = {name for layer in own for name in (*layer.index.records, *layer.aliases)}
    return sorted(dict.fromkeys(names), key=lambda name: name not in known)


def _counts_steps(model: str, registry: Registry) -> bool:
    return all(found.calibration.method in ("plan", "magcache", "preset") for found in registry.of_model(model))


def _known(name: str, registry: Registry) -> bool:
    # In any layer: a record that a lock does not list is refused by the lookup, not passed over for another name's.
    return any(name in layer.index.records or name in layer.aliases for layer in registry.layers)


def _made_with(transformer: Any, registry: Registry) -> list[str]:
    """Keys of the models that records say were made with this class and configuration, of the first layer that has any.

    Layers of others' records come last, as for names: what was pulled displaces none of this machine's own or of the package's.
    """
    kind, _, digest = configuration_name(transformer).partition("@")
    for layer in sorted(registry.layers, key=lambda layer: layer.foreign):
        found = []
        for key, entry in layer.index.records.items():
            if entry.class_name != kind:
                continue
            try:
                record = registry.find(key).calibration
            except EasyTeaCacheError:
                # Damaged, or left out by a lock: it serves nobody, and the others do.
                continue
            if record.model is not None and record.model.configuration_sha256 == digest:
                found.append(model_of(key))
        if found:
            return list(dict.fromkeys(found))
    return []


def _unknown(transformer: Any, names: list[str], registry: Registry) -> UnknownModelKey:
    """The error that says what there is: records of this class, and how to use or make one."""
    kind, _, digest = configuration_name(transformer).partition("@")
    repositories = [name for name in names if "@" not in name]
    of_class = [
        key
        for key, _, entry in registry.entries()
        if (entry.class_name or class_of(key)) == kind and entry.method != "preset"
    ]
    models = list(dict.fromkeys(map(model_of, of_class)))
    listed = ", ".join(map(repr, models[:_MOST_NAMED]))
    more = f" and {len(models) - _MOST_NAMED} more" if len(models) > _MOST_NAMED else ""
    there = (
        f"The registry has records of {len(models)} models that run in {kind}: {listed}{more}. If this is one of them, name it: "
        f"TeaCache.from_registry({models[0]!r}, speedup=2.0)."
        if models
        else f"No record of the registry was made with a {kind}."
    )
    known = [*registry, *(alias for layer in registry.layers for alias in layer.aliases)]
    return UnknownModelKey(
        repositories[-1] if repositories else f"{kind} with the configuration {digest[:12]}…",
        suggestions=model_key.nearest(repositories[-1], known) if repositories else (),
        layers=[layer.name for layer in registry.layers],
        advice=f"{there} To calibrate this one: `easyteacache record`, then `easyteacache solve` (it is found here from then on).",
    )


def _own(found: Found, *, allow_borrowed: bool) -> str:
    key = found.calibration.model_key
    borrowed = any(alias.borrowed and alias.value == found.asked for alias in found.calibration.aliases)
    if borrowed and not allow_borrowed:
        raise AttachError(
            f"the numbers filed for {found.asked!r} were fitted to another model ({key!r}): calibrate this one, or pass "
            "allow_borrowed=True"
        )
    return key
