"""Reading YAML as people write it: `1e-3` is a number, which YAML 1.1 takes for text without a point in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from chimeralab.errors import DataError

NUMBER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")


def read_yaml(file: Path) -> Any:
    """What stands in the file.

    Raises:
        DataError: it cannot be read.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", NUMBER, list("-+0123456789"))
    try:
        return yaml.load(file.read_text(), Loader)  # a safe one: plain values alone
    except OSError as error:
        raise DataError(f"it cannot be read: {error.strerror}", place=str(file)) from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"it cannot be read: {' '.join(str(error).split())}", place=str(file)) from None
