"""Personal data in text: e-mail, IP, credit card, bank account (IBAN) and phone numbers.

Numbers with check digits are verified: cards by Luhn's formula (ISO/IEC 7812-1, annex B) and an
issuer's range, IBANs by ISO 7064 MOD 97-10 and the length of their country (ISO 13616).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from data.cleaning.ip_addresses import ip_addresses
from data.cleaning.phone_numbers import phone_numbers

MASKS = {"iban": "<IBAN>", "card": "<CARD>", "email": "<EMAIL>", "ip": "<IP>", "phone": "<PHONE>"}

_LENGTHS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28"
    " EE20 EG29 ES24 FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26"
    " IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30"
    " NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SE24 SI19 SK24 SM27 ST25 SV28 TL23"
    " TN24 TR26 UA29 VA22 VG24 XK20"
)
IBAN_LENGTHS = {entry[:2]: int(entry[2:]) for entry in _LENGTHS.split()}

_EMAIL = re.compile(
    r"(?<![\w.%+-])\w(?:[\w.%+'-]{0,62}[\w%+-])?@"
    r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+(?:[^\W\d_]{2,24}|xn--[a-z0-9-]{2,59})(?![\w-])"
)
_CARD_START = re.compile(r"(?<![\w.,+-])(?=\d{4}[ -]?\d)")
_CARDS = [
    re.compile(pattern + r"(?![\w]|[.,-]\d)")
    for pattern in (
        r"\d{13,19}",
        r"\d{4}([ -])\d{4}\1\d{4}\1\d{4}\1\d{1,3}",
        r"\d{4}([ -])\d{4}\1\d{4}\1\d{1,4}",
        r"\d{4}([ -])\d{6}\1\d{4,5}",
    )
]
"""How cards are written, the longest first: what follows may be a code or the year it ends."""
_CARD_ISSUER = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"
    r"|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|6(?:011|5\d\d|4[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}"
    r"|62\d{14,17}"
)
_NUMBER_BEFORE = re.compile(r"(?<!\w)(\d{13,})[\s'\"]{1,8}$")
_NUMBER_AFTER = re.compile(r"[\s'\"]{1,8}(\d{13,})(?!\w)")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?=[ -]?[A-Za-z0-9])")
MIN_IBAN_DIGITS = 8
"""Digits in the account part of every country's IBAN, at least; words have none."""

_SPACES = "\u00a0\u2007\u2008\u2009\u200a\u202f\u3000"
_HYPHENS = "\u2010\u2011\u2012\u2013\u2212"
_ALIKE = {
    **dict.fromkeys(map(ord, _SPACES), " "),
    **dict.fromkeys(map(ord, _HYPHENS), "-"),
    **dict.fromkeys(map(ord, "\u2019\u02bc"), "'"),
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},  # full width
}
"""What people and word processors write in place of ASCII, character by character."""


@dataclass(frozen=True)
class Finding:
    """One occurrence of personal data: text[start:end]."""

    kind: str
    start: int
    end: int


def find_personal_data(text: str) -> list[Finding]:
    """Return all occurrences in order, without overlaps."""
    if not text.isascii():
        text = text.translate(_ALIKE)
    findings: list[Finding] = []
    covered = bytearray(len(text))
    for search in (_ibans, _cards, _emails, _ips, _phones):
        for finding in search(text):
            if not any(covered[finding.start : finding.end]):
                covered[finding.start : finding.end] = b"x" * (finding.end - finding.start)
                findings.append(finding)
    return sorted(findings, key=lambda finding: finding.start)


def mask_personal_data(text: str, findings: list[Finding]) -> str:
    """Return the text with each finding replaced by its kind, such as <EMAIL>."""
    masked = []
    position = 0
    for finding in findings:
        masked += [text[position : finding.start], MASKS[finding.kind]]
        position = finding.end
    return "".join((*masked, text[position:]))


def _emails(text: str) -> Iterator[Finding]:
    for match in _EMAIL.finditer(text) if "@" in text else ():
        if ".." not in match.group():
            yield Finding("email", match.start(), match.end())


def _ips(text: str) -> Iterator[Finding]:
    yield from (Finding("ip", start, end) for start, end in ip_addresses(text))


def _phones(text: str) -> Iterator[Finding]:
    yield from (Finding("phone", start, end) for start, end in phone_numbers(text))


def _cards(text: str) -> Iterator[Finding]:
    position = 0
    for start in _CARD_START.finditer(text):
        if start.start() < position:
            continue
        written = (pattern.match(text, start.start()) for pattern in _CARDS)
        card = next((match for match in written if match and _is_card(match.group())), None)
        if card is not None and not _is_among_numbers(text, card):
            yield Finding("card", card.start(), card.end())
            position = card.end()


def _is_card(number: str) -> bool:
    digits = re.sub(r"[ -]", "", number)
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


def _ibans(text: str) -> Iterator[Finding]:
    for match in _IBAN.finditer(text):
        length = IBAN_LENGTHS.get(match.group()[:2].upper(), 0)
        end = _account_end(text, match.start(), length) if length else None
        if end is None or _is_alphanumeric(text, end):
            continue
        account = re.sub(r"[ -]", "", text[match.start() : end]).upper()
        if sum(map(str.isdigit, account[4:])) >= MIN_IBAN_DIGITS and passes_mod97(account):
            yield Finding("iban", match.start(), end)


def _account_end(text: str, start: int, length: int) -> int | None:
    """Return the end of `length` letters and digits, with single spaces or hyphens between."""
    count, position = 0, start
    while count < length:
        character = text[position : position + 1]
        if character.isascii() and character.isalnum():
            count += 1
        elif character not in (" ", "-") or not _is_alphanumeric(text, position + 1):
            return None
        position += 1
    return position


def _is_alphanumeric(text: str, position: int) -> bool:
    return text[position : position + 1].isalnum()


def passes_mod97(account: str) -> bool:
    """Check the check digits of an IBAN without spaces."""
    return int("".join(str(int(c, 36)) for c in account[4:] + account[:4])) % 97 == 1
