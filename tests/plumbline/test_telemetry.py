import subprocess
import sys

import pytest

PROGRAM = """
import os, sys

SETTINGS = {"HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_ANALYTICS_ENABLED": "False", "DO_NOT_TRACK": "1"}
for name in SETTINGS:
    os.environ.pop(name, None)

class Reached(BaseException):
    "The first library is imported that reads the settings."

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("huggingface_hub", "gradio", "transformers", "datasets", "peft", "trl"):
            raise Reached

sys.meta_path.insert(0, Watch())
try:
    import PACKAGE
except Reached:
    assert {name: os.environ.get(name) for name in SETTINGS} == SETTINGS
else:
    raise AssertionError("no such library was imported")
"""


@pytest.mark.parametrize("package", ["sft", "reward", "rlhf.ppo", "annotate_ui", "plumbline.compare"])
def test_telemetry_is_off_before_a_package_loads_what_has_it(package):
    subprocess.run([sys.executable, "-c", PROGRAM.replace("PACKAGE", package)], check=True)
