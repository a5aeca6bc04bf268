"""The plain PyTorch references of flash-linear-attention, loaded file by file: the package itself wants a GPU."""

from __future__ import annotations

from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType


def fla_reference(file: str) -> ModuleType:
    """The module `fla/ops/<file>`: `fla_reference("retention/naive.py").naive_retention`."""
    package = find_spec("fla")
    assert package is not None
    assert package.submodule_search_locations, "install fla-core"
    path = Path(package.submodule_search_locations[0], "ops", file)
    spec = spec_from_file_location(f"fla_reference_{file.removesuffix('.py').replace('/', '_')}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
