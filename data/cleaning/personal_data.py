"""Personal data in text: e-mail, IP, credit card, bank account (IBAN) and phone numbers.

Numbers with check digits are verified: cards by Luhn's formula (ISO/IEC 7812-1, annex B) and an
issuer's range, IBANs by ISO 7064 MOD 97-10 and the length of their country (ISO 13616).
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from string import ascii_letters

from data.cleaning.email_addresses import email_addresses
from data.cleaning.ip_addresses import ip_addresses
from data.cleaning.phone_numbers import phone_numbers
from data.cleaning.plain_form import PlainForm

MASKS = {"iban": "<IBAN>", "card": "<CARD>", "email": "<EMAIL>", "ip": "<IP>", "phone": "<PHONE>"}

_LENGTHS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28"
    " EE20 EG29 ES24 FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26"
    " IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30"
    " NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SE24 SI19 SK24 SM27 ST25 SV28 TL23"
    " TN24 TR26 UA29 VA22 VG24 XK20"
)
IBAN_LENGTHS = {entry[:2]: int(entry[2:]) for entry in _LENGTHS.split()}

# Boundaries are of ASCII: a letter of another script right before or after is no part of a number.
_CARD_START = re.compile(
    r"(?=\d{4}[ .-]{0,2}\d)(?<![\w+])(?<!\w-)(?<!\d\.)"
    r"(?:(?<!\d,)|(?<=\d{13},))(?!(?<=-)\d{5})",
    re.ASCII,
)
_CARDS = [
    re.compile(pattern + r"(?!\w|[.-]\d|,(?!\d{13})\d)", re.ASCII)
    for pattern in (
        r"\d{13,19}",
        r"\d{4}( {1,2}|[.-])\d{4}\1\d{4}\1\d{4}\1\d{1,3}",
        r"\d{4}( {1,2}|[.-])\d{4}\1\d{4}\1\d{1,4}",
        r"\d{4}( {1,2}|[.-])\d{6}\1\d{4,5}",
    )
]
"""How cards are written, the longest first: what follows may be a code or the year it ends."""
_CARD_ISSUER = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"
    r"|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|6(?:011|5\d\d|4[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}"
    r"|62\d{14,17}"
)
_NUMBER_BEFORE = re.compile(r"(?<!\w)(\d{13,})[\s'\",]{1,8}$")
_NUMBER_AFTER = re.compile(r"[\s'\",]{1,8}(\d{13,})(?!\w)")
_IBAN_CHECK_DIGITS = re.compile(
    r"\d(?:(?<=[A-Za-z]{2}\d)|(?<=[A-Z]{2} \d))\d(?=[ .-]{0,2}[A-Za-z0-9])"
)
_IBAN_SEPARATORS = re.compile(r"[ .-]{0,2}")
_LETTERS = re.compile(r"[A-Za-z]*(?![A-Za-z0-9])")
MAX_LETTERS_BEFORE = 32
"""Of a word that stands right before an IBAN."""
MIN_IBAN_DIGITS = 8
"""Digits in the account part of every country's IBAN, at least; words have none."""


@dataclass(frozen=True)
class Finding:
    """One occurrence of personal data: text[start:end]."""

    kind: str
    start: int
    end: int


def find_personal_data(text: str) -> list[Finding]:
    """Return all occurrences in order, without overlaps."""
    form = PlainForm(text)
    findings = []
    covered = bytearray(len(form.text))
    for kind, search in _SEARCHES.items():
        for start, end in search(form.text):
            if not any(covered[start:end]):
                covered[start:end] = b"x" * (end - start)
                findings.append(Finding(kind, *form.span(start, end)))
    return sorted(findings, key=lambda finding: finding.start)


def mask_personal_data(text: str, findings: list[Finding]) -> str:
    """Return the text with each finding replaced by its kind, such as <EMAIL>."""
    masked = []
    position = 0
    for finding in findings:
        masked += [text[position : finding.start], MASKS[finding.kind]]
        position = finding.end
    return "".join((*masked, text[position:]))


def _cards(text: str) -> Iterator[tuple[int, int]]:
    position = 0
    for start in _CARD_START.finditer(text):
        if start.start() < position:
            continue
        written = (pattern.match(text, start.start()) for pattern in _CARDS)
        card = next((match for match in written if match and _is_card(match.group())), None)
        if card is not None and not _is_among_numbers(text, card):
            yield card.span()
            position = card.end()


def _is_card(number: str) -> bool:
    digits = re.sub(r"\D", "", number)
    return bool(_CARD_ISSUER.fullmatch(digits)) and passes_luhn(digits)


def _is_among_numbers(text: str, card: re.Match[str]) -> bool:
    """Whether a card without spaces stands beside a number as long that is none: in a table."""
    before = _NUMBER_BEFORE.search(text[max(0, card.start() - 40) : card.start()])
    after = _NUMBER_AFTER.match(text, card.end())
    return card.group().isdigit() and any(
        not _is_card(other.group(1)) for other in (before, after) if other is not None
    )


def passes_luhn(digits: str) -> bool:
    """Check the last digit against the others by Luhn's formula."""
    values = [int(digit) for digit in reversed(digits)]
    doubled = (2 * value - 9 * (value > 4) for value in values[1::2])
    return (sum(values[::2]) + sum(doubled)) % 10 == 0


def _ibans(text: str) -> Iterator[tuple[int, int]]:
    for match in _IBAN_CHECK_DIGITS.finditer(text):
        start = match.start() - (3 if text[match.start() - 1] == " " else 2)
        length = IBAN_LENGTHS.get(text[start : start + 2].upper(), 0)
        end = _account_end(text, start, length) if length else None
        if end is None or not _stands_alone(text, start, end):
            continue
        account = re.sub(r"[ .-]", "", text[start:end]).upper()
        if sum(map(str.isdigit, account[4:])) >= MIN_IBAN_DIGITS and passes_mod97(account):
            yield start, end


def _account_end(text: str, start: int, length: int) -> int | None:
    """Return the end of `length` letters and digits, with up to two separators between."""
    position = start
    for count in range(length):
        if count and (separators := _IBAN_SEPARATORS.match(text, position)):
            position = separators.end()
        character = text[position : position + 1]
        if not (character.isascii() and character.isalnum()):
            return None
        position += 1
    return position


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether only letters of words touch an account: in codes such as hashes, digits do too."""
    before = text[max(0, start - MAX_LETTERS_BEFORE) : start].rstrip(ascii_letters)
    glued = before[-1:].isdigit() or (not before and start >= MAX_LETTERS_BEFORE)
    return not glued and bool(_LETTERS.match(text, end))


def passes_mod97(account: str) -> bool:
    """Check the check digits of an IBAN without spaces."""
    return int("".join(str(int(c, 36)) for c in account[4:] + account[:4])) % 97 == 1


_SEARCHES: dict[str, Callable[[str], Iterable[tuple[int, int]]]] = {
    "iban": _ibans,
    "card": _cards,
    "email": email_addresses,
    "ip": ip_addresses,
    "phone": phone_numbers,
}
"""In this order: what an earlier one finds is no other's."""
