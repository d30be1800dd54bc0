"""Personal data in texts, as far as rules can tell: what has a form of its own, check digits, or a word before it.

    find("Write to ada@example.org")        # [Span('EMAIL', 9, 24)]
    mask("Write to ada@example.org")        # 'Write to [EMAIL]'

Names of people, postal addresses, dates of birth and whatever else only sense tells are not found. Time is linear in
the text: every expression is bounded, and from each group of digits a few numbers are looked at.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import phonenumbers
from stdnum import iban, luhn, numdb
from stdnum.es import dni, nie
from stdnum.fr import nir
from stdnum.it import codicefiscale
from stdnum.us import ssn

EMAIL, PHONE, IBAN, CARD, SSN, NATIONAL_ID, ACCOUNT, IP = KINDS = (
    "EMAIL",
    "PHONE",
    "IBAN",
    "CARD",
    "SSN",
    "NATIONAL_ID",
    "ACCOUNT",
    "IP",
)
"""National ids are those of Spain, France and Italy, which have check digits; accounts are numbers that follow the
word; IP addresses are those of the public internet."""

REGIONS = ("US",)
"""Where telephone numbers without a country's code are taken to come from."""


class Span(NamedTuple):
    """A piece of a text, `text[start:end]`, that looks like personal data of a kind."""

    kind: str
    start: int
    end: int


def find(text: str, regions: Sequence[str] = REGIONS, own: Collection[str] = ()) -> list[Span]:
    """What looks like personal data, in order, without overlaps.

    Args:
        regions: countries (ISO 3166, two letters) in whose form telephone numbers may be written; with a country's code
            (`+49 …`) they are found wherever they are from.
        own: what is nobody's personal data, such as the shop's address and hotline: as `comparable` writes it, and
            `@shop.example` for all addresses of a domain.
    """
    if not _MAYBE.search(text):
        return []
    found: list[Span] = []
    for spans in (_emails(text), _addresses(text), _ibans(text), _national_ids(text), _numbers(text, tuple(regions))):
        found += spans  # the surer kinds come first
    kept: list[Span] = []
    for span in sorted(found, key=lambda one: one.start):  # stable: of two that begin together the surer one stays
        if not kept or span.start >= kept[-1].end:
            kept.append(span)
    return [span for span in kept if not _is_own(comparable(text[span.start : span.end]), own)] if own else kept


def comparable(text: str) -> str:
    """An address, or a number however it is grouped, in one form: `+1 (555) 010-99` becomes `+155501099`."""
    return re.sub(r"[^\w@.+%'&~-]" if "@" in text else r"[^\w+]", "", text).casefold()


def _is_own(found: str, own: Collection[str]) -> bool:
    at = found.find("@")
    return found in own or (at >= 0 and found[at:] in own)


def mask(text: str, regions: Sequence[str] = REGIONS, own: Collection[str] = ()) -> str:
    """The text with each span replaced by its kind, such as `[EMAIL]`; masking once more changes nothing."""
    while spans := find(text, regions, own):
        pieces, end = [], 0
        for span in spans:
            pieces += [text[end : span.start], f"[{span.kind}]"]
            end = span.end
        text = "".join([*pieces, text[end:]])
    return text


def check_regions(regions: Sequence[str]) -> None:
    """Refuse what is no country of the telephone numbers' plans.

    Raises:
        ValueError: names the first one.
    """
    for region in regions:
        if region not in phonenumbers.SUPPORTED_REGIONS:
            raise ValueError(f"{region!r} is no country in two capital letters, such as US or DE")


_MAYBE = re.compile(r"[0-9@]")

# -- e-mail ----------------------------------------------------------------------------------------------------------

_LOCAL_PART = re.compile(r"[\w.+%'&~-]{1,64}\Z")
_DOMAIN = re.compile(r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}([^\W\d_]{2,24}|xn--[a-z0-9-]{2,59})(?![\w-])")
_FILES = frozenset({"gif", "jpeg", "jpg", "js", "css", "pdf", "png", "svg", "webp"})
"""What `icon@2x.png` ends with."""


def _emails(text: str) -> Iterator[Span]:
    at = text.find("@")
    while at >= 0:
        local = _LOCAL_PART.search(text, max(0, at - 64), at)
        domain = _DOMAIN.match(text, at + 1)
        if local and domain and domain[1].lower() not in _FILES:
            start = local.start() + len(local[0]) - len(local[0].lstrip(".'-"))
            if start < at:
                yield Span(EMAIL, start, domain.end())
        at = text.find("@", at + 1)


# -- addresses of machines -------------------------------------------------------------------------------------------

_IPV4 = re.compile(r"(?<![\w.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?!\.?[\w-])", re.ASCII)
_IPV6 = re.compile(r"(?<![\w:.])[23][0-9a-f]{3}:[0-9a-f:]{2,34}(?![\w:])", re.ASCII | re.IGNORECASE)
_NUMBERED = re.compile(r"(?:version|release|firmware|section|chapter|clause|§)[ .:]{0,2}\Z", re.IGNORECASE)


def _addresses(text: str) -> Iterator[Span]:
    for pattern in (_IPV4, _IPV6) if "." in text or ":" in text else ():
        for match in pattern.finditer(text):
            if _is_public(match[0]) and not _NUMBERED.search(text, max(0, match.start() - 12), match.start()):
                yield Span(IP, *match.span())


def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


# -- numbers with letters --------------------------------------------------------------------------------------------

_IBAN = re.compile(r"(?<![^\W_])[A-Z]{2}[0-9]{2}(?= ?[A-Z0-9]{4})", re.ASCII | re.IGNORECASE)
_NATIONAL_IDS: tuple[tuple[re.Pattern[str], Callable[[str], bool]], ...] = tuple(
    (re.compile(rf"(?<![^\W_])(?:{form})(?![^\W_])", re.ASCII | re.IGNORECASE), valid)
    for form, valid in (
        (r"[A-Z]{6}[0-9]{2}[A-Z][0-9]{2}[A-Z][0-9]{3}[A-Z]", codicefiscale.is_valid),
        (r"[0-9]{8}-?[A-Z]", dni.is_valid),
        (r"[XYZ]-?[0-9]{7}-?[A-Z]", nie.is_valid),
        (r"[12] ?[0-9]{2} ?[0-9]{2} ?(?:[0-9]{2}|2[AB]) ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}", nir.is_valid),
    )
)


def _ibans(text: str) -> Iterator[Span]:
    for match in _IBAN.finditer(text):
        length = _iban_length(match[0][:2].upper())
        end = _end_of(text, match.start(), length)
        if end and iban.is_valid(text[match.start() : end]):
            yield Span(IBAN, match.start(), end)


@cache
def _iban_length(country: str) -> int:
    """How many letters and digits a country's IBAN has; 0 for no country."""
    form: str = numdb.get("iban").info(country)[0][1].get("bban", "")
    return 4 + sum(int(length) for length in re.findall(r"(\d+)!", form)) if form else 0


def _end_of(text: str, start: int, length: int) -> int | None:
    """Where so many letters and digits end, with a space at most between two; None where there are fewer, or more."""
    at = start
    for _ in range(length):
        at += text[at : at + 1] == " "
        if not text[at : at + 1].isalnum():
            return None
        at += 1
    return at if length and not text[at : at + 1].isalnum() else None


def _national_ids(text: str) -> Iterator[Span]:
    for pattern, valid in _NATIONAL_IDS:
        for match in pattern.finditer(text):
            if valid(match[0]):
                yield Span(NATIONAL_ID, *match.span())


# -- numbers ---------------------------------------------------------------------------------------------------------

_DIGITS = re.compile(r"(?<![^\W_])[0-9]+(?![^\W_])")
_GAP = re.compile(r"[ \u00a0.\-/()\u2010-\u2013]{1,2}")
MOST_DIGITS, MOST_GROUPS = 19, 6
FEWEST_UNNAMED = 7
"""Digits of the shortest number that needs no name."""

_FILL = r"(?:[\s:#=.,'-]|number|num|no|nr|is|was|last|four|digits|ending|with|my|its)"
_NAMES = tuple(
    (kind, fewest, most, re.compile(rf"(?<![\[a-z])(?:{words}){_FILL}{{0,10}}\Z", re.IGNORECASE))
    for kind, fewest, most, words in (
        (SSN, 9, 9, "ssn|social security"),
        (SSN, 4, 4, "ssn|social security n(?:umber|o|r)"),
        (CARD, 13, 19, "card|visa|mastercard|amex|kreditkarte|kartennummer"),
        (ACCOUNT, 6, 17, "account|acct?|a/c|ac(?= n)|konto|kontonummer"),
    )
)
"""Numbers that a word before them names, by their digits; check digits are not asked for."""
_ANY_NAME = re.compile(r"ssn|social s|card|visa|amex|karte|acc|a/c|ac n|konto", re.IGNORECASE)
_CALL = re.compile(
    r"(?<![\[a-z])(?:(?:tele|cell|smart)?phone|tel|mobile|cell|call|contact|whatsapp|fax|telefon|handy|rufnummer)"
    r"[^\d\[\]@\n]{0,24}\Z",
    re.IGNORECASE,
)
BEFORE = 48
"""Characters before a number in which a word may name it."""


class _Number(NamedTuple):
    """Groups of digits that may be one number: `shown` in the text from `start` on."""

    groups: list[str]
    digits: str
    shown: str
    start: int

    @property
    def lengths(self) -> list[int]:
        return [len(group) for group in self.groups]

    def span(self, kind: str, before: int = 0) -> Span:
        return Span(kind, self.start - before, self.start + len(self.shown))


def _numbers(text: str, regions: tuple[str, ...]) -> Iterator[Span]:
    """Cards, social security numbers, accounts and telephone numbers: digits in groups with little between them."""
    named = bool(_ANY_NAME.search(text))
    for run in _runs(text):
        if not named and sum(end - start for start, end in run) < FEWEST_UNNAMED:
            continue
        first = 0
        while first < len(run):
            numbers = list(_beginning_with(text, run, first))
            found = _by_form(numbers) or _by_name(text, numbers) or _phone(text, numbers, regions)
            if found:
                yield found
            looked_at = found.end if found else run[first][1]
            while first < len(run) and run[first][0] < looked_at:
                first += 1


def _runs(text: str) -> Iterator[list[tuple[int, int]]]:
    """Groups of digits that follow each other closely, by where they start and end."""
    run: list[tuple[int, int]] = []
    for match in _DIGITS.finditer(text):
        if run and not _GAP.fullmatch(text, run[-1][1], match.start()):
            yield run
            run = []
        run.append(match.span())
    if run:
        yield run


def _beginning_with(text: str, run: list[tuple[int, int]], first: int) -> Iterator[_Number]:
    """The numbers of at least 4 digits that may begin with a group of a run, the longest first."""
    places = run[first : first + MOST_GROUPS]
    groups = [text[start:end] for start, end in places]
    for count in range(len(groups), 0, -1):
        digits = "".join(groups[:count])
        if 4 <= len(digits) <= MOST_DIGITS:
            start = places[0][0]
            yield _Number(groups[:count], digits, text[start : places[count - 1][1]], start)


def _by_form(numbers: list[_Number]) -> Span | None:
    """A card by its check digit, or a social security number by its hyphens or spaces."""
    for number in numbers:
        if _is_card(number):
            return number.span(CARD)
        if number.lengths == [3, 2, 4] and _SSN.fullmatch(number.shown) and ssn.is_valid(number.digits):
            return number.span(SSN)
    return None


_SSN = re.compile(r"...([ -])..\1....")
_ISSUERS = re.compile(
    r"4(?:.{12}|.{15}|.{18})|(?:5[1-5]|2[2-7]).{14}|3[47].{13}|3(?:0[0-5]|[689]).{11,16}|35.{14,17}"
    r"|6(?:011|5|4[4-9]|2).{12,17}|(?:50|5[6-8]|6[0379]).{11,17}"
)
"""First digits and lengths of Visa, Mastercard, American Express, Diners, JCB, Discover and UnionPay, Maestro."""
_CARD_GROUPS = ([4, 4, 4, 4], [4, 6, 5], [4, 6, 4], [4, 4, 4, 4, 3])


def _is_card(number: _Number) -> bool:
    if not 13 <= len(number.digits) <= 19 or not (len(number.groups) == 1 or number.lengths in _CARD_GROUPS):
        return False
    return bool(_ISSUERS.fullmatch(number.digits)) and luhn.is_valid(number.digits)


def _by_name(text: str, numbers: list[_Number]) -> Span | None:
    """What a word before says that it is."""
    for kind, fewest, most, name in _NAMES:
        fitting = next((number for number in numbers if fewest <= len(number.digits) <= most), None)
        if fitting and name.search(text, max(0, fitting.start - BEFORE), fitting.start):
            return fitting.span(kind)
    return None


# -- telephone numbers -----------------------------------------------------------------------------------------------

_SIGN = re.compile(r"(?<![^\W_])(?:\+ ?\(?|\()\Z")


def _phone(text: str, numbers: list[_Number], regions: tuple[str, ...]) -> Span | None:
    """A telephone number, with the `+` or `(` before its digits."""
    numbers = [number for number in numbers if 7 <= len(number.digits) <= 15]
    if not numbers:
        return None
    start = numbers[0].start
    sign = _SIGN.search(text, max(0, start - 3), start)
    before = len(sign[0]) if sign else 0
    if sign and "+" in sign[0]:
        found = next((number for number in numbers if _is_valid(_parsed(f"+{number.shown}", None))), None)
    else:
        called = bool(_CALL.search(text, max(0, start - before - BEFORE), start - before))
        numbers = [number for number in numbers if called or not _is_part(text, number)]
        asked = ((number, region) for number in numbers for region in regions)
        found = next((number for number, region in asked if _is_of(region, number, called=called)), None)
    return found.span(PHONE, before) if found else None


def _is_of(region: str, number: _Number, *, called: bool) -> bool:
    """Whether it is a number of the region: in the form that is usual there, or `called` one, with as many digits."""
    if called:
        parsed = _parsed(number.shown, region)
        long = len(number.digits) >= 9
        return parsed is not None and (phonenumbers.is_possible_number(parsed) if long else _is_valid(parsed))
    if not _may_be_of(region, number):
        return False
    parsed = _parsed(number.shown, region)
    if parsed is None or not phonenumbers.is_valid_number_for_region(parsed, region):
        return False
    usual = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.NATIONAL)
    groups = number.groups[1:] if number.groups[0] == _trunk_prefix(region) == "1" else number.groups
    return re.findall("[0-9]+", usual) == groups


_LINKED_BEFORE, _LINKED_AFTER = re.compile(r"[^\W_][-/.]\Z"), re.compile(r"[-/][^\W_]")


def _is_part(text: str, number: _Number) -> bool:
    """Whether a hyphen or stroke joins it to more, as in the middle of a serial number."""
    end = number.start + len(number.shown)
    before = _LINKED_BEFORE.search(text, max(0, number.start - 2), number.start)
    return bool(before or _LINKED_AFTER.match(text, end))


def _may_be_of(region: str, number: _Number) -> bool:
    """Whether the groups may be of the region's own form; spares most numbers the closer look."""
    prefix = _trunk_prefix(region)
    if prefix == "1":  # North America
        return number.lengths in ([3, 3, 4], [1, 3, 3, 4])
    starts = len(number.groups) > 1 and number.digits.startswith(prefix or "")
    return starts and len(number.digits) in _lengths(region)


@cache
def _trunk_prefix(region: str) -> str | None:
    """What is dialled before a number within its country."""
    prefix: str | None = phonenumbers.ndd_prefix_for_region(region, True)
    return prefix


@cache
def _lengths(region: str) -> frozenset[int]:
    """How many digits the numbers of a region have, with what is dialled before them."""
    plan: Any = phonenumbers.PhoneMetadata.metadata_for_region(region)
    return frozenset(length + len(_trunk_prefix(region) or "") for length in plan.general_desc.possible_length)


def _is_valid(parsed: Any) -> bool:
    return parsed is not None and bool(phonenumbers.is_valid_number(parsed))


@lru_cache(maxsize=4096)
def _parsed(shown: str, region: str | None) -> Any:
    try:
        return phonenumbers.parse(shown, region)
    except phonenumbers.NumberParseException:
        return None
