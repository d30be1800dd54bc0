import subprocess
import sys

import pytest


@pytest.mark.parametrize("package", ["sft", "reward", "rlhf.ppo", "annotate_ui", "plumbline.compare"])
def test_importing_a_package_switches_telemetry_off(package):
    code = (
        "import os\nfor name in ('HF_HUB_DISABLE_TELEMETRY', 'GRADIO_ANALYTICS_ENABLED', 'DO_NOT_TRACK'):\n"
        f"    os.environ.pop(name, None)\nimport {package}\nfrom huggingface_hub import constants\n"
        "assert constants.HF_HUB_DISABLE_TELEMETRY\nassert os.environ['GRADIO_ANALYTICS_ENABLED'] == 'False'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
