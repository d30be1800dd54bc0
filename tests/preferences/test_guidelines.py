"""Versions of the guideline, consent, and the version that every answer names; on both databases."""

import pytest

from plumbline.errors import StoreError
from plumbline.preferences.records import Assignment, NeedsConsent, NoWork
from tests.preferences.conftest import best_first, new_tasks


def judge(service, who):
    work = service.lease_next(who)
    return service.judge(work.lease_id, who, best_first(work), idempotency_key=work.lease_id)


def test_versions_count_up_and_the_same_text_keeps_its_version(service):
    guidelines = service.guidelines
    assert guidelines.current() is None
    assert [guidelines.publish(text) for text in ("one", "one", "two", "one")] == [1, 1, 2, 3]
    assert guidelines.current().version == 3 and guidelines.current().text == "one"
    assert [(one.version, one.text) for one in guidelines.versions()] == [(3, "one"), (2, "two"), (1, "one")]
    for text in ("", " \n", "a\x00b", "x" * 200_001):
        with pytest.raises(StoreError, match="the guideline"):
            guidelines.publish(text)


def test_the_recipes_file_does_not_take_back_what_the_lead_published(service):
    guidelines = service.guidelines
    guidelines.publish("file", from_file=True)
    guidelines.publish("by the lead")
    assert guidelines.publish("file", from_file=True) == 2  # the next start of the app
    assert guidelines.current().text == "by the lead"
    assert guidelines.publish("file, changed", from_file=True) == 3


def test_who_has_not_accepted_the_version_in_force_gets_no_work(service):
    service.add_tasks(new_tasks(4))
    who = service.sign_in("Anna").annotator_id
    robot = service.sign_in("robot", simulated=True).annotator_id
    judge(service, who)
    service.guidelines.publish("# Be kind")
    asked = service.lease_next(who)
    assert isinstance(asked, NeedsConsent) and isinstance(asked, NoWork)
    assert (asked.version, asked.text, asked.kind, asked.accepted) == (1, "# Be kind", "guideline", None)
    assert service.control.held() == []
    service.guidelines.consent(who, 1)
    service.guidelines.consent(who, 1)
    held = service.lease_next(who)
    service.guidelines.publish("# Be kinder")
    with pytest.raises(StoreError, match="has changed since you opened it"):
        service.guidelines.consent(who, 1)
    service.judge(held.lease_id, who, best_first(held), idempotency_key="shown under version 1")
    assert (service.lease_next(who).version, service.lease_next(who).accepted) == (2, (1, "# Be kind"))
    service.guidelines.consent(who, 2)
    judge(service, who)
    judge(service, robot)
    found = sorted((record.annotator, record.guideline or 0) for record in service.judgements())
    assert found == [("Anna", 0), ("Anna", 1), ("Anna", 2), ("robot", 0)]
    assert [(one.version, one.consents) for one in service.guidelines.versions()] == [(2, 1), (1, 1)]
    assert service.own_work(who)[0].answer.guideline == 2


def test_a_task_in_hand_waits_for_the_consent(service):
    service.add_tasks(new_tasks(1))
    who = service.sign_in("Anna").annotator_id
    held = service.lease_next(who)
    service.guidelines.publish("new")
    assert isinstance(service.lease_next(who), NeedsConsent)
    service.guidelines.consent(who, 1)
    again = service.lease_next(who)
    assert isinstance(again, Assignment) and again.lease_id == held.lease_id
