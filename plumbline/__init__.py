"""plumbline: from human judgement to an aligned model, with numbers that show it is better."""

import os
from importlib.metadata import PackageNotFoundError, version

for _name, _value in {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "DO_NOT_TRACK": "1",
}.items():
    os.environ.setdefault(_name, _value)  # no telemetry unless the user's environment asks for it

try:
    __version__ = version("plumbline")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0+unknown"
