"""Preferences of people (and of simulated annotators): collected, stored, imported, exported, frozen into snapshots.

`plumbline.preferences.service.PreferenceService` owns every rule; nothing here knows a user interface.
"""
