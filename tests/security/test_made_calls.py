"""500 made messages to everything that annotators' pages ask: nothing breaks, tells of the server, or is another's."""

from __future__ import annotations

import pytest

from tests.security.calls import (
    BOARD_CALLS,
    FORMS,
    LEAD_CALLS,
    ONLY_LEADS,
    actor_of,
    attack_as_stranger,
    attack_call,
    routes_of,
)
from tests.security.conftest import World


def test_every_call_of_the_app_is_attacked(world: World) -> None:
    posts = {route.path for route in routes_of(world.app.routes) if "POST" in (getattr(route, "methods", None) or ())}
    assert posts == {*BOARD_CALLS, *LEAD_CALLS, *FORMS}


@pytest.mark.parametrize("call", BOARD_CALLS)
def test_no_message_breaks_a_call_or_changes_what_is_anothers(fresh: World, call: str) -> None:
    others = fresh.of_person("Vera")
    attack_call(fresh, call)
    if actor_of(call) == "Bob":
        assert fresh.of_person("Vera") == others


@pytest.mark.parametrize("call", ONLY_LEADS)
def test_annotators_get_nothing_of_the_leads(fresh: World, call: str) -> None:
    attack_as_stranger(fresh, call)
