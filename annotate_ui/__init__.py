"""The annotation app: people rank responses in the browser.

    from annotate_ui import Setup, serve
    serve(service, Setup("support", guideline="# How to rank"), host="127.0.0.1", port=7860)

The app is a view: every rule (who gets what, when a judgement counts, what a correction does) is in
`plumbline.preferences.service.PreferenceService`.
"""

import plumbline  # noqa: F401  # switches telemetry off before the libraries are imported
from annotate_ui.app import build_app
from annotate_ui.server import serve
from annotate_ui.setup import Setup

__all__ = ["Setup", "build_app", "serve"]
