"""Alembic migrations of the preference store, run by `Store.open`.

A new one: change `plumbline.preferences.tables`, write `versions/vNNNN_what.py`, set `SCHEMA_VERSION` in
`plumbline.preferences.store`; the tests compare what the migrations build with the tables.
"""
