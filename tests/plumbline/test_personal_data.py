"""Finding and masking personal data: by hand, by properties, against real texts, and in linear time."""

import gzip
import json
import time
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.personal_data import labelled, score
from plumbline.personal_data import KINDS, check_regions, comparable, find, mask


def found(text, *regions):
    return [(span.kind, text[span.start : span.end]) for span in find(text, regions or ("US", "DE"))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to ada.l+x@mail.example.co.uk.", [("EMAIL", "ada.l+x@mail.example.co.uk")]),
        ("<mailto:'ü@müller.de'>", [("EMAIL", "ü@müller.de")]),
        ("call (212) 555-1234 or 1-800-332-1000!", [("PHONE", "(212) 555-1234"), ("PHONE", "1-800-332-1000")]),
        ("212.555.1234 415-555-2671", [("PHONE", "212.555.1234"), ("PHONE", "415-555-2671")]),
        ("+49 (30) 1234567, +44 20 7946 0958", [("PHONE", "+49 (30) 1234567"), ("PHONE", "+44 20 7946 0958")]),
        ("030 1234567 oder 0171/1234567", [("PHONE", "030 1234567"), ("PHONE", "0171/1234567")]),
        ("my phone number is 8956235478", [("PHONE", "8956235478")]),
        ("DE89 3704 0044 0532 0130 00 gb82west12345698765432.", [("IBAN", "DE89 3704 0044 0532 0130 00")] * 1
         + [("IBAN", "gb82west12345698765432")]),
        ("card 4111 1111 1111 1111 12/25", [("CARD", "4111 1111 1111 1111")]),
        ("3782 822463 10005, 5555555555554444", [("CARD", "3782 822463 10005"), ("CARD", "5555555555554444")]),
        ("card number 4342432153328663", [("CARD", "4342432153328663")]),  # a word instead of the check digit
        ("123-45-6789", [("SSN", "123-45-6789")]),
        ("last four of my SSN: 2567; ssn 123456789", [("SSN", "2567"), ("SSN", "123456789")]),
        ("account no. 100999821", [("ACCOUNT", "100999821")]),
        ("from 8.8.8.8 and 2001:4860:4860::8888", [("IP", "8.8.8.8"), ("IP", "2001:4860:4860::8888")]),
        ("12345678Z, X1234567L, RSSMRA85T10A562S", [("NATIONAL_ID", "12345678Z"), ("NATIONAL_ID", "X1234567L"),
                                                   ("NATIONAL_ID", "RSSMRA85T10A562S")]),
        ("2 95 10 99 126 111 93", [("NATIONAL_ID", "2 95 10 99 126 111 93")]),
    ],
)  # fmt: skip
def test_what_has_a_form_of_its_own_is_found(text, expected):
    assert found(text) == expected


def test_what_is_nobodys_is_not_looked_for():
    own = {comparable(one) for one in ("Help@shop.example", "@pay.example", "0800 555 0199", "(212) 555-1234")}
    text = "help@shop.example, ada@shop.example, any.one@PAY.example, call 212.555.1234 or 212-555-1235"
    assert [text[span.start : span.end] for span in find(text, ("US",), own)] == ["ada@shop.example", "212-555-1235"]
    assert mask(text, ("US",), own) == text.replace("ada@shop.example", "[EMAIL]").replace("212-555-1235", "[PHONE]")


@pytest.mark.parametrize(
    "text",
    [
        "icon@2x.png, user@localhost, @media, a @ b.com, x@y",
        "127.0.0.1, 192.168.0.1, version 8.8.8.8, 8.8.8.8.8, 12:30:45, std::vector, ::1, 999.8.8.8",
        "order 113542617735902 of 2026-12-01, 1,234,567.89, 3.14159265358979",
        "212 555 123, 000-12-3456, 666-12-3456, 123-456-7890123, 123-45-67890",
        "4111 1111 1111 1112, DE88 3704 0044 0532 0130 00, XX82 WEST 1234 5698 7654 32",
        "12345678A, serial 7051f718-0351-4532-85b1, Social Security Act of 1935",
        "[EMAIL] [PHONE] 12345 [CARD] 1234567890123 [SSN] 1234 [ACCOUNT] 1234567",
        "chapter 212-555-1234-99, 030 12",
    ],
)
def test_what_only_looks_like_it_is_left(text):
    assert found(text) == []


def test_telephone_numbers_are_those_of_the_regions():
    assert found("030 1234567", "US") == []
    assert found("612 34 56 78", "ES") == [("PHONE", "612 34 56 78")]
    with pytest.raises(ValueError, match="'UK' is no country"):
        check_regions(["DE", "UK"])


def test_a_mask_names_the_kind():
    assert mask("Ask ada@example.org or (212) 555-1234.") == "Ask [EMAIL] or [PHONE]."


PIECES = [
    "ada@example.org", "@", "a.", ".", "-", "+", "(", ") ", " ", "1", "42", "212", "555", "1234", "4111111111111111",
    "4111 1111 1111 1111", "123-45-6789", "DE89", "DE89370400440532013000", "8.8.8.8", "2001:4860::8", "ssn ", "card ",
    "account ", "phone ", "[", "]", "x", "é", "\n", "is ", "/", "+49 30 1234567", "(212) 555-1234", "12345678Z",
]  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join) | st.text(max_size=200))
@example("ssn ada@example.org 1234")
@example("phone number (212) 555-1234 8956235478")
def test_spans_are_in_order_and_masking_is_final(text):
    spans = find(text, ("US", "DE"))
    ends = [0, *(end for span in spans for end in span[1:])]
    assert ends == sorted(ends) and all(span.kind in KINDS and span.start < span.end for span in spans)
    masked = mask(text, ("US", "DE"))
    assert mask(masked, ("US", "DE")) == masked and find(masked, ("US", "DE")) == []
    if not spans:
        assert masked == text


@pytest.mark.parametrize(
    "piece",
    ["1", "1 ", "a@", "a", "a@" + "a-" * 40, "64" * 32 + "@", "1.", "DE89 ", "2001::", "(", "+1 ", "tel 1234567 ",
     "ssn is is is is is is is 1", "4111 1111 1111 1111 ", "12 34 56 78 ", "(212) 555-1234", "a@b.", "[[[1"],
)  # fmt: skip
def test_no_text_takes_more_than_linear_time(piece):
    text = piece * (50_000 // len(piece))
    began = time.perf_counter()
    mask(text, ("US", "DE", "ES"))
    assert time.perf_counter() - began < 30, "a second at most, where time is linear; minutes or years where it is not"


@pytest.mark.shared_data
def test_labelled_turns(shared):
    report = score(labelled(shared / "multidogo_pii" / "raw.jsonl.gz"))
    assert report.wrong == 1, "a social security number that has no label"
    assert report.found["ssn"] >= 104 and report.found["card_number"] >= 34
    assert report.found["email_address"] == 0, "the file has no @: that data is beside the point"


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("file", "expected"),
    [("bitext_support", {"EMAIL": 2}), ("gsm8k", {}), ("maintie", {}), ("hh_harmless", {"EMAIL": 8, "PHONE": 13})],
)
def test_real_texts_raise_no_false_alarm(shared, file, expected):
    with gzip.open(shared / file / "raw.jsonl.gz", "rt", encoding="utf-8") as rows:
        texts = [text for row in rows for text in json.loads(row).values() if isinstance(text, str)]
    assert Counter(span.kind for text in texts for span in find(text)) == expected
