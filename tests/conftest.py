import sys
from collections.abc import Generator
from typing import Any

import pytest


@pytest.hookimpl(tryfirst=True, wrapper=True)
def pytest_collection_modifyitems() -> Generator[None, Any, Any]:
    # hypothesis looks for the file of every module, and SpeechBrain's lazy ones answer that by importing what they
    # stand for, optional dependencies such as k2 included.
    from speechbrain.utils.importutils import LazyModule

    for module in list(sys.modules.values()):
        if isinstance(module, LazyModule):
            module.__dict__.setdefault("__file__", None)
    return (yield)
