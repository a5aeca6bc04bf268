"""The plugin manager: finds plugins behind the entry-point group `chimeralab`, asks them, keeps broken ones apart.

A plugin that fails to import, raises in a hook or registers a taken name is listed as broken, with its traceback;
everything else goes on. `CHIMERALAB_PLUGINS_ALLOW` and `CHIMERALAB_PLUGINS_DENY` (names, comma separated) choose
which are loaded. `CHIMERALAB_STRICT=1` turns a broken plugin into an error, for its author.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import EntryPoint, entry_points
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import pluggy

from chimeralab import hookspecs
from chimeralab.errors import PluginError, SpecError, did_you_mean

if TYPE_CHECKING:
    from pathlib import Path

    from chimeralab.contracts import Preset

GROUP = "chimeralab"
log = logging.getLogger(__name__)
State = Literal["active", "broken", "denied", "incompatible"]


@dataclass
class PluginInfo:
    """One plugin as `chimeralab plugins` lists it."""

    name: str
    package: str
    version: str
    state: State = "active"
    hooks: list[str] = field(default_factory=list)
    provides: list[str] = field(default_factory=list)  # "mixer attention", ...
    sizes: list[str] = field(default_factory=list)  # of its presets: "mamba-130m", ...
    error: str = ""  # traceback


class Registry:
    """What the plugins provide, by kind and name. Each kind is asked for when it is first needed."""

    def __init__(self, entries: Iterable[EntryPoint] | None = None) -> None:
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self.plugins: dict[str, PluginInfo] = {}
        self._owners: dict[tuple[str, Any], str] = {}
        found = entry_points(group=GROUP) if entries is None else entries
        for entry in sorted(found, key=lambda e: _rank(e.dist.name if e.dist else "", e.name)):
            self._load(entry)

    def register(self, plugin: object, name: str) -> None:
        """Add a plugin object by hand, in a notebook or a test, before its kinds are first asked for.

        Raises:
            PluginError: the name is taken, or the object implements a hook that does not exist.
        """
        if name in self.plugins:
            raise PluginError(f"a plugin {name!r} is there already", remedy="Give it another name")
        self.plugins[name] = PluginInfo(name, "(registered by hand)", "")
        try:
            self._manager.register(plugin, name)
            self._note_hooks(name)
        except Exception:
            self._manager.unregister(name=name)
            del self.plugins[name]
            raise

    @cached_property
    def mixers(self) -> dict[str, Any]:
        return self._collect("mixer", "register_mixers", lambda mixer: mixer.name)

    @cached_property
    def feed_forwards(self) -> dict[str, Any]:
        return self._collect("feed-forward", "register_feed_forwards", lambda ffn: ffn.name)

    @cached_property
    def tasks(self) -> dict[str, Any]:
        return self._collect("task", "register_tasks", lambda task: task.name)

    @cached_property
    def kernels(self) -> dict[tuple[str, str], Any]:
        return self._collect("kernel", "register_kernels", lambda kernel: (kernel.op, kernel.tier))

    @cached_property
    def presets(self) -> dict[str, Any]:
        """Presets, each followed by its sizes."""
        return self._collect("preset", "register_presets", lambda preset: preset.name, _with_sizes)

    @cached_property
    def studies(self) -> dict[str, Path]:
        """Files of studies, by name."""
        return dict(sorted(self._collect("study", "register_studies", lambda file: file.stem).items()))

    @cached_property
    def pages(self) -> dict[str, Any]:
        found = self._collect("page", "register_pages", lambda page: page.path)
        return dict(sorted(found.items(), key=lambda item: item[1].order))

    def mixer(self, name: str, place: str = "") -> Any:
        return _lookup(self.mixers, "mixer", name, place)

    def feed_forward(self, name: str, place: str = "") -> Any:
        return _lookup(self.feed_forwards, "feed-forward", name, place)

    def task(self, name: str, place: str = "task") -> Any:
        return _lookup(self.tasks, "task", name, place)

    def owner(self, kind: str, name: Any) -> PluginInfo:
        """The plugin that provides this."""
        return self.plugins[self._owners[kind, name]]

    def notify(self, hook: str, **kwargs: Any) -> None:
        """Call a run event in every plugin; what one raises is logged, kept in its record, and harms nobody."""
        for name, implementation in self._implementations(hook):
            try:
                accepted = {k: kwargs[k] for k in implementation.argnames if k in kwargs}
                implementation.function(**accepted)
            except Exception:
                log.exception("plugin %s: %s", name, hook)
                self.plugins[name].error = traceback.format_exc()

    def all(self) -> list[PluginInfo]:
        """Every plugin, with all kinds asked, so that what is broken shows."""
        _ = self.mixers, self.feed_forwards, self.tasks, self.kernels, self.presets, self.studies, self.pages
        return list(self.plugins.values())

    def _load(self, entry: EntryPoint) -> None:
        dist = entry.dist
        package, version = (dist.name, dist.version) if dist else ("", "")
        info = PluginInfo(entry.name, package, version)
        if entry.name in self.plugins:  # two packages chose one name: both are kept, told apart by their package
            info.name = f"{package}:{entry.name}"
        self.plugins[info.name] = info
        if not _allowed(info.name):
            info.state = "denied"
            return
        try:
            plugin = entry.load()
            written_for = getattr(plugin, "CHIMERALAB_API", hookspecs.API_VERSION)
            if written_for != hookspecs.API_VERSION:
                info.state = "incompatible"
                info.error = f"it was written for API {written_for}; this laboratory has API {hookspecs.API_VERSION}"
                return
            self._manager.register(plugin, info.name)
            self._note_hooks(info.name)
        except (Exception, SystemExit) as error:  # a module that exits when it is imported ends nobody else
            self._break(info, error)

    def _note_hooks(self, name: str) -> None:
        callers = self._manager.get_hookcallers(self._manager.get_plugin(name)) or []
        self.plugins[name].hooks = sorted(caller.name for caller in callers)
        for caller in callers:
            if not caller.has_spec():
                known = [hook for hook in vars(hookspecs) if hook.startswith(("register_", "run_"))]
                raise PluginError(
                    f"there is no hook {caller.name!r}", place=f"plugin {name}", remedy=did_you_mean(caller.name, known)
                )

    def _implementations(self, hook: str) -> list[tuple[str, Any]]:
        found = getattr(self._manager.hook, hook).get_hookimpls()
        active = [impl for impl in found if self.plugins[impl.plugin_name].state == "active"]
        return sorted(
            ((impl.plugin_name, impl) for impl in active),
            key=lambda pair: _rank(self.plugins[pair[0]].package, pair[0]),
        )

    def _collect(
        self,
        kind: str,
        hook: str,
        key: Callable[[Any], Any],
        expand: Callable[[Any], Iterable[Any]] = lambda item: (item,),
    ) -> dict[Any, Any]:
        collected: dict[Any, Any] = {}
        for name, implementation in self._implementations(hook):
            info = self.plugins[name]
            try:
                items: dict[Any, Any] = {}
                for item in chain.from_iterable(map(expand, implementation.function() or ())):
                    if (taken := key(item)) in items or taken in collected:
                        owner = self._owners.get((kind, taken), name)
                        raise PluginError(
                            f"{kind} {_label(taken)!r} is already registered by plugin {owner!r}",
                            place=f"plugin {name}",
                            remedy="Give it another name",
                        )
                    items[taken] = item
            except Exception as error:
                self._break(info, error)
                continue
            collected.update(items)
            self._owners.update({(kind, item): name for item in items})
            sizes = [name for name, item in items.items() if getattr(item, "size_of", "")]
            info.provides += [f"{kind} {_label(name)}" for name in items if name not in sizes]
            info.sizes += sizes
        return collected

    def _break(self, info: PluginInfo, error: BaseException) -> None:
        info.state, info.error = "broken", "".join(traceback.format_exception(error))
        if os.environ.get("CHIMERALAB_STRICT") == "1":
            raise PluginError(f"plugin {info.name!r} of package {info.package!r} is broken: {error}") from error


def _with_sizes(preset: Preset) -> Iterator[Preset]:
    yield preset
    yield from map(preset.at, preset.sizes)


def _rank(package: str, name: str) -> tuple[bool, str]:
    """First-party plugins come first, so that a third party's cannot take their names."""
    return package != GROUP, name


def _label(key: Any) -> str:
    return "/".join(key) if isinstance(key, tuple) else str(key)


def _allowed(name: str) -> bool:
    def names(variable: str) -> list[str]:
        return [n.strip() for n in os.environ.get(variable, "").split(",") if n.strip()]

    allow, deny = names("CHIMERALAB_PLUGINS_ALLOW"), names("CHIMERALAB_PLUGINS_DENY")
    return name not in deny and (not allow or name in allow)


def _lookup(known: dict[str, Any], kind: str, name: str, place: str) -> Any:
    try:
        return known[name]
    except KeyError:
        raise SpecError(f"unknown {kind} {name!r}", place=place, remedy=did_you_mean(name, known)) from None


@cache
def registry() -> Registry:
    """The registry of this process."""
    return Registry()
