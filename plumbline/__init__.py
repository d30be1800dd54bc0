"""plumbline: from human judgement to an aligned model, with numbers that show it is better."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("plumbline")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0+unknown"
