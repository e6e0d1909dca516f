"""Personal data in text: e-mail, IP, credit card, bank account (IBAN) and phone numbers.

Numbers with check digits are verified: cards by Luhn's formula (ISO/IEC 7812-1, annex B) and an
issuer's range, IBANs by ISO 7064 MOD 97-10 and the length of their country (ISO 13616).
"""

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

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
    r"(?<![\w.%+-])[A-Za-z0-9_](?:[\w.%+'-]{0,62}[\w%+-])?@"
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}(?![\w-])"
)
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
_VERSION_BEFORE = re.compile(r"(?:\bv(?:er(?:sion)?)?|release|section|§|firmware)[\s.:=]*$", re.I)
_CARD = re.compile(r"(?<![\w.,+-])\d(?:[ -]?\d){12,18}(?![\w]|[.,-]\d)")
_CARD_ISSUER = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"
    r"|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|6(?:011|5\d\d|4[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}"
    r"|62\d{14,17}"
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}")
_PHONE = re.compile(
    r"(?<![\w.,/#$€£=+-])(?:"
    r"(?:\+|00)[1-9]\d{0,2}[ .-]?(?:\(0?\d{1,4}\)[ .-]?)?\d{1,5}(?:[ ./-]?\d{2,5}){1,4}"  # +49 ...
    r"|(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d([ .-]))[2-9]\d\d(?(1)\1|[ .-])\d{4}"  # (212) 555-...
    r"|\(0\d{1,4}\)[ /-]?\d{2,5}(?:[ -]?\d{2,5}){1,3}"  # (030) 1234 567
    r"|0[1-9]\d{1,4}[ /-]\d{2,8}(?:[ -]\d{2,6}){0,3}"  # 030 123456, 020 7946 0018
    r"|0[1-9](?:[ .]\d\d){4}"  # 01 23 45 67 89
    r")(?![\w]|[.,/-]\d)"
)
_PHONE_AFTER_WORD = re.compile(
    r"\b(?:tele?(?:phone|fon)?|phone|ph|mobile?|cell|fax|whatsapp|call|text|sms|handy|tél|móvil)\b"
    r"(?:[.:\s]|\bno\b|\bnumber\b|\bnr\b|\bat\b|\bus\b|\bme\b|\bon\b|\bis\b|\bor\b){1,12}"
    r"(\+?\(?\d(?:[ ().-]{0,2}\d){6,14})(?!\w|[.,-]\d)",
    re.I,
)


@dataclass(frozen=True)
class Finding:
    """One occurrence of personal data: text[start:end]."""

    kind: str
    start: int
    end: int


def find_personal_data(text: str) -> list[Finding]:
    """Return all occurrences in order, without overlaps."""
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
    if "@" in text:
        yield from _matches("email", _EMAIL, text, lambda match: ".." not in match.group())


def _ips(text: str) -> Iterator[Finding]:
    yield from _matches("ip", _IPV4, text, lambda match: _is_host(match, text))
    if "::" in text or text.count(":") >= 7:
        yield from _matches("ip", _IPV6, text, lambda match: _is_host(match, text))


def _is_host(match: re.Match[str], text: str) -> bool:
    try:
        address = ipaddress.ip_address(match.group())
    except ValueError:
        return False
    if address.is_loopback or address.is_unspecified or match.group().startswith("255."):
        return False
    if address.version == 6:  # not a slice such as 1::2, nor names such as add::bad
        return len(match.group()) >= 7 and any(map(str.isdigit, match.group()))
    return not _VERSION_BEFORE.search(text[max(0, match.start() - 12) : match.start()])


def _cards(text: str) -> Iterator[Finding]:
    yield from _matches("card", _CARD, text, _is_card)


def _is_card(match: re.Match[str]) -> bool:
    if " " in match.group() and "-" in match.group():
        return False
    digits = re.sub(r"[ -]", "", match.group())
    return bool(_CARD_ISSUER.fullmatch(digits)) and passes_luhn(digits)


def passes_luhn(digits: str) -> bool:
    """Check the last digit against the others by Luhn's formula."""
    values = [int(digit) for digit in reversed(digits)]
    doubled = (2 * value - 9 * (value > 4) for value in values[1::2])
    return (sum(values[::2]) + sum(doubled)) % 10 == 0


def _ibans(text: str) -> Iterator[Finding]:
    for match in _IBAN.finditer(text):
        length = IBAN_LENGTHS.get(match.group()[:2], 0)
        ends = [i for i, c in enumerate(match.group(), 1) if c not in " -"][:length]
        if length and len(ends) == length and not _is_alphanumeric(text, match.start() + ends[-1]):
            account = re.sub(r"[ -]", "", match.group()[: ends[-1]])
            if passes_mod97(account):
                yield Finding("iban", match.start(), match.start() + ends[-1])


def _is_alphanumeric(text: str, position: int) -> bool:
    return text[position : position + 1].isalnum()


def passes_mod97(account: str) -> bool:
    """Check the check digits of an IBAN without spaces."""
    return int("".join(str(int(c, 36)) for c in account[4:] + account[:4])) % 97 == 1


def _phones(text: str) -> Iterator[Finding]:
    yield from _matches("phone", _PHONE, text, _is_phone)
    for match in _PHONE_AFTER_WORD.finditer(text):
        yield Finding("phone", match.start(1), match.end(1))


def _is_phone(match: re.Match[str]) -> bool:
    digits = re.sub(r"\D", "", match.group())
    return 7 <= len(digits) <= 15 + match.group().startswith("00") * 2


def _matches(
    kind: str, pattern: re.Pattern[str], text: str, valid: Callable[[re.Match[str]], bool]
) -> Iterator[Finding]:
    for match in pattern.finditer(text):
        if valid(match):
            yield Finding(kind, match.start(), match.end())
