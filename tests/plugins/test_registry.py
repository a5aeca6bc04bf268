"""The plugin registry, with real packages on disk: what is found, and that a broken one harms no other."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path
from types import SimpleNamespace

import pytest

from chimeralab import Preset, hookimpl
from chimeralab.errors import PluginError, SpecError
from chimeralab.plugins import GROUP, Registry

Install = Callable[..., None]
_modules = itertools.count()

PRESETS = """
from chimeralab import Preset, hookimpl

@hookimpl
def register_presets():
    return [{presets}]
"""


def presets(*names: str) -> str:
    """Source of a plugin that registers presets of these names."""
    return PRESETS.format(presets=", ".join(f"Preset({name!r}, 'attention')" for name in names))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages, on sys.path."""
    monkeypatch.syspath_prepend(tmp_path)
    for variable in ("CHIMERALAB_PLUGINS_ALLOW", "CHIMERALAB_PLUGINS_DENY", "CHIMERALAB_STRICT"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.fixture
def install(site: Path) -> Install:
    def write(package: str, source: str, *, plugin: str | None = None, version: str = "1.0") -> None:
        """Install a package with one plugin, named after it, whose module has this source."""
        module = f"installed_plugin_{next(_modules)}"
        (site / f"{module}.py").write_text(source)
        info = site / f"{package}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{plugin or package} = {module}\n")

    return write


@pytest.fixture
def opened(site: Path) -> Callable[[], Registry]:
    """Opens a registry over the packages installed in `site` alone."""

    def open_registry() -> Registry:
        found = (entry for dist in distributions(path=[str(site)]) for entry in dist.entry_points)
        return Registry([entry for entry in found if entry.group == GROUP])

    return open_registry


def test_an_installed_plugin_provides_what_it_registers(install: Install, opened: Callable[[], Registry]) -> None:
    install("lynx", presets("big", "small"), version="2.3")
    registry = opened()
    assert registry.presets.keys() == {"big", "small"}


def test_a_plugin_is_listed_with_its_package_hooks_and_wares(install: Install, opened: Callable[[], Registry]) -> None:
    install("lynx", presets("big"), plugin="paw", version="2.3")
    (info,) = opened().all()
    assert (info.name, info.package, info.version, info.state) == ("paw", "lynx", "2.3", "active")
    assert (info.hooks, info.provides) == (["register_presets"], ["preset big"])


def test_the_owner_of_a_ware_is_the_plugin_that_registered_it(install: Install, opened: Callable[[], Registry]) -> None:
    install("lynx", presets("big"))
    install("puma", presets("small"))
    registry = opened()
    registry.all()
    assert registry.owner("preset", "small").package == "puma"


BROKEN = {
    "raises when imported": ("import no_such_module_at_all", "no_such_module_at_all"),
    "does not parse": ("def register(:", "SyntaxError"),
    "exits when imported": ("raise SystemExit(3)", "SystemExit: 3"),
    "raises in a hook": (presets("wild").replace("return", "raise RuntimeError('at night')\n    return"), "at night"),
    "returns what is no preset": (PRESETS.format(presets="'text'"), "no attribute 'name'"),
    "registers a taken name": (presets("good"), "preset 'good' is already registered by plugin 'ant'"),
    "registers one name twice": (presets("wild", "wild"), "preset 'wild' is already registered by plugin 'lynx'"),
    "wants an argument that the hook lacks": (presets("wild").replace("presets()", "presets(lab)"), "'lab'"),
    "misspells a hook": (
        presets("wild").replace("register_presets", "register_preset"),
        "there is no hook 'register_preset'. did you mean 'register_presets'?",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin_is_listed_with_its_traceback(
    install: Install, opened: Callable[[], Registry], fault: str
) -> None:
    source, told = BROKEN[fault]
    install("ant", presets("good"))
    install("lynx", source)
    info = {info.name: info for info in opened().all()}["lynx"]
    assert info.state == "broken"
    assert "Traceback" in info.error
    assert told in info.error


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin_harms_no_other(install: Install, opened: Callable[[], Registry], fault: str) -> None:
    install("ant", presets("good"))
    install("lynx", BROKEN[fault][0])
    install("zebra", presets("late"))
    assert opened().presets.keys() == {"good", "late"}


@pytest.mark.parametrize("fault", BROKEN)
def test_strict_turns_a_broken_plugin_into_an_error(
    install: Install, opened: Callable[[], Registry], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setenv("CHIMERALAB_STRICT", "1")
    install("ant", presets("good"))
    install("lynx", BROKEN[fault][0])
    with pytest.raises(PluginError, match="plugin 'lynx' of package 'lynx' is broken"):
        opened().all()


def test_a_third_party_cannot_take_a_name_of_ours(install: Install) -> None:
    install("aardvark", presets("transformer"))
    registry = Registry()
    assert registry.presets["transformer"].pattern == "attention x6"
    assert registry.owner("preset", "transformer").package == "chimeralab"
    assert registry.plugins["aardvark"].state == "broken"


def test_two_packages_may_choose_one_name_for_their_plugins(install: Install, opened: Callable[[], Registry]) -> None:
    install("lynx", presets("big"), plugin="cats")
    install("puma", presets("small"), plugin="cats")
    registry = opened()
    assert registry.presets.keys() == {"big", "small"}
    assert {(info.package, info.state) for info in registry.plugins.values()} == {
        ("lynx", "active"),
        ("puma", "active"),
    }


def test_a_denied_plugin_is_listed_and_not_imported(
    install: Install, opened: Callable[[], Registry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHIMERALAB_PLUGINS_DENY", "puma, lynx")
    install("ant", presets("good"))
    install("lynx", "raise RuntimeError")
    registry = opened()
    assert {info.name: info.state for info in registry.all()} == {"ant": "active", "lynx": "denied"}


def test_with_a_list_of_allowed_plugins_all_others_are_denied(
    install: Install, opened: Callable[[], Registry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHIMERALAB_PLUGINS_ALLOW", "lynx")
    install("ant", presets("good"))
    install("lynx", presets("big"))
    assert {info.name: info.state for info in opened().all()} == {"ant": "denied", "lynx": "active"}


def test_deny_wins_over_allow(
    install: Install, opened: Callable[[], Registry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHIMERALAB_PLUGINS_ALLOW", "lynx")
    monkeypatch.setenv("CHIMERALAB_PLUGINS_DENY", "lynx")
    install("lynx", presets("big"))
    assert not opened().presets


class Listener:
    def __init__(self) -> None:
        self.heard: list[tuple] = []

    @hookimpl
    def run_finished(self, run_id: int, status: str) -> None:  # it may leave out what it does not need
        self.heard.append((run_id, status))


class Grumbler:
    @hookimpl
    def run_finished(self) -> None:
        raise RuntimeError("not again")


def test_every_plugin_hears_of_a_run_though_one_of_them_raises() -> None:
    registry, first, last = Registry([]), Listener(), Listener()
    for name, plugin in (("a", first), ("b", Grumbler()), ("c", last)):
        registry.register(plugin, name)
    registry.notify("run_finished", run_id=3, status="completed", reason="")
    assert first.heard == last.heard == [(3, "completed")]


def test_what_a_listener_raises_is_kept_in_its_record() -> None:
    registry = Registry([])
    registry.register(Grumbler(), "grumbler")
    registry.notify("run_finished", run_id=3, status="completed", reason="")
    info = registry.plugins["grumbler"]
    assert "not again" in info.error
    assert info.state == "active"


@pytest.fixture
def by_hand() -> SimpleNamespace:
    @hookimpl
    def register_presets() -> list[Preset]:
        return [Preset("mine", "attention")]

    return SimpleNamespace(register_presets=register_presets)


def test_a_plugin_registered_by_hand_counts_like_any_other(by_hand: SimpleNamespace) -> None:
    registry = Registry([])
    registry.register(by_hand, "notebook")
    assert registry.presets["mine"].pattern == "attention"
    assert registry.owner("preset", "mine").package == "(registered by hand)"


def test_a_name_registered_by_hand_twice_is_refused_and_the_first_stays(by_hand: SimpleNamespace) -> None:
    registry = Registry([])
    registry.register(by_hand, "notebook")
    with pytest.raises(PluginError, match="a plugin 'notebook' is there already"):
        registry.register(Listener(), "notebook")
    assert registry.plugins["notebook"].hooks == ["register_presets"]


def test_a_misspelt_hook_is_refused_by_hand_and_the_name_stays_free(by_hand: SimpleNamespace) -> None:
    registry = Registry([])
    misspelt = SimpleNamespace(register_preset=by_hand.register_presets)
    with pytest.raises(PluginError, match="plugin notebook: there is no hook 'register_preset'"):
        registry.register(misspelt, "notebook")
    registry.register(by_hand, "notebook")
    assert registry.presets.keys() == {"mine"}


def test_a_kind_is_asked_for_when_it_is_first_needed() -> None:
    asked = []

    @hookimpl
    def register_mixers() -> list:
        asked.append("mixers")
        return []

    registry = Registry([])
    registry.register(SimpleNamespace(register_mixers=register_mixers), "lazy")
    _ = registry.presets
    assert asked == []
    _ = registry.mixers, registry.mixers
    assert asked == ["mixers"]


@pytest.mark.parametrize("kind", ["mixer", "feed_forward", "task"])
def test_an_unknown_name_is_refused_with_its_place(kind: str) -> None:
    with pytest.raises(SpecError, match=rf"layer 3: unknown {kind.replace('_', '-')} 'atention'"):
        getattr(Registry(), kind)("atention", "layer 3")


def test_everything_that_we_ship_is_active() -> None:
    ours = [info for info in Registry().all() if info.package == "chimeralab"]
    assert {info.state for info in ours} == {"active"}, [info.error for info in ours if info.error]
