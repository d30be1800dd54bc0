"""The formats of import and export by name, without the weight of what reads and writes them: the help names them."""

IMPORTED = ("rankings", "hh", "oasst", "tulu_human_eval", "pandalm", "llamafactory", "openai", "trl")
"""Modules of `importers`; the first one that recognises a row decides, so the most particular formats come first."""

EXPORTED = ("trl", "rankings")
"""Modules of `exporters`; the first is the default."""
