"""Stage 1: domain adaptation (continued pretraining on raw text) and supervised fine-tuning on conversations."""

import plumbline  # noqa: F401  # switches telemetry off before the libraries are imported
from sft.adaptation import adapt
from sft.training import train_sft

__all__ = ["adapt", "train_sft"]
