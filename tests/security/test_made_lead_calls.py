"""500 made messages to everything that leads' and admins' pages ask, and some by those who may ask nothing there."""

from __future__ import annotations

import pytest

from tests.security.calls import LEAD_CALLS, attack_as_stranger, attack_call
from tests.security.conftest import World


@pytest.mark.parametrize("call", LEAD_CALLS)
def test_no_message_breaks_a_call_or_changes_an_account(fresh: World, call: str) -> None:
    accounts = fresh.contents()["accounts"]
    attack_call(fresh, call)
    if call.startswith("/lead-work"):
        assert fresh.contents()["accounts"] == accounts


@pytest.mark.parametrize("call", LEAD_CALLS)
def test_who_may_not_call_gets_nothing_whatever_they_send(fresh: World, call: str) -> None:
    attack_as_stranger(fresh, call)
