"""Phone numbers in text, told from dates, versions, postal codes, ISSNs and counts."""

import re
from collections.abc import Iterator

_EXTENSION = (
    r"(?i:[ ,;]{0,2}(?:x|ext\.?|extn\.?|extension|durchwahl|poste|anexo|ramal|#)[ .:=]{0,2}"
    r"\d{1,6}(?!\w))?"
)
# Boundaries are of ASCII: a letter of another script right before or after is no part of a number.
_INTERNATIONAL = re.compile(
    r"(?=[+0])(?:(?<![\w#$€£=+~-])(?<!\w\.)|(?<![\d+~])(?=\+\d{1,3}[ (-]))"
    r"(?:\+|(?<!\d )00)[1-9]\d{0,2}"
    r"(?:[ .-]| {2})?(?:\(0?\d{1,4}\)(?:[ .-]| {2})?)?"
    r"\d++(?:(?: ?[/-] ?|[ .]| {2})\d{2,}+)?+"
    r"(?:(?:[ ./-]| {2})\d{2,}+){0,8}+",  # +49 (0) 30 / 123456
    re.ASCII,
)
_NATIONAL = re.compile(
    r"(?=[(0])(?<![\w/#$€£=+~])(?<!\w-)(?<!\d[.,])(?:"
    r"\(0\d{1,4}\)(?: ?[/-] ?| )?\d{2,}+|(?<!\d )0[1-9]\d{1,4}(?: ?[/-] ?| )\d{2,8}+"
    r")(?:[ -]\d{2,6}+){0,8}+",  # (030) 1234 567, 020 7946 0018
    re.ASCII,
)
_GROUPED = re.compile(
    r"(?=[(\d])(?<![\w$€£+~#])(?<!\w-)(?<!\d\.)(?:(?:1[ .-])?"
    r"(?:\([2-9]\d\d\) {0,2}|[2-9]\d\d([ .-]))[2-9]\d\d(?(1)\1|[ .-])\d{4}"  # (212) 555-0187
    r"|(?<![=,/])(?<!\b\d[\dA-Fa-f] )0[1-9](?:[ .]\d\d){4}"  # 01 23 45 67 89, not bytes
    r"(?! \d[\dA-Fa-f]\b|[,/]\d)"
    r"|(?<![=/])(?<!\d,)(?:0[1-9]-\d{3,4}-\d{4}"  # 03-1234-5678, 02-123-4567
    r"|(?<!\d )1[3-9]\d([ -])\d{4}\2\d{4})(?! \d|[,/]\d))" + _EXTENSION + r"(?![\w+~]|[.-]\d)",
    re.ASCII,
)
_TAIL = re.compile(_EXTENSION + r"(?![\w+~]|[.-]\d)", re.ASCII)
_NATIONAL_TAIL = re.compile(_EXTENSION + r"(?![\w+~]|[.,/-]\d)", re.ASCII)
_DIGITS = re.compile(r"\d+", re.ASCII)
_GLUED = re.compile(r"(?!(?:st|nd|rd|th)\b)[A-Za-z_]")
_AFTER_WORD = re.compile(
    r"(?:\b(tele?(?:phone|fon)?|phone|fax|whatsapp|tél|móvil|mobile?|handy|cell|call|text|sms|ph"
    r"|тел|телефон|факс|τηλ|هاتف|جوال|טלפון)\b"
    r"(?:[.: \t]|\bno\b|\bnumber\b|\bnr\b|\bat\b|\bus\b|\bme\b|\bon\b|\bis\b|\bor\b){1,12}"
    # No space divides these from what stands around them.
    r"|(?:電話|电话|手机|手機|携帯|传真|傳真|ファックス|전화|휴대폰|핸드폰|팩스|โทร|फोन|फ़ोन|मोबाइल)"
    r"(?:番号|号码|號碼|号|번호)?[.:： \t]{0,4})"
    r"(?P<number>\+?\(?\d(?:[ ()./-]{0,3}\d){6,14})" + _EXTENSION + r"(?![A-Za-z0-9_+~]|[.,-]\d)",
    re.I,
)
_WEAK_WORDS = frozenset(("call", "text", "cell", "sms", "handy", "mobile", "mobil", "ph"))
"""Words of code and prose as well: the number must look like one of a phone."""
_DATE = re.compile(
    r"(?:19|20)\d\d([-./ ]?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])"  # 2022-07-25, 20220725
    r"|(?:0?[1-9]|[12]\d|3[01])[./](?:0?[1-9]|1[0-2])[./](?:19|20)\d\d"  # 25.07.2022
)
_TIMESTAMP = re.compile(r"\+?(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d*")
_POSTAL_CODE = re.compile(r"\d{5}-\d{4}")
"""A ZIP+4, as in the address of every GNU license."""
_VERSION = re.compile(r"\.\d\.|(?<!\d)\d\.\d|  ")


def phone_numbers(text: str) -> Iterator[tuple[int, int]]:
    """Yield the start and end of every phone number; some are found by several patterns."""
    for pattern, tail in ((_INTERNATIONAL, _TAIL), (_NATIONAL, _NATIONAL_TAIL)):
        for match in pattern.finditer(text):
            if end := _phone_end(text, match, tail):
                yield match.start(), end
    yield from (match.span() for match in _GROUPED.finditer(text))
    for match in _AFTER_WORD.finditer(text):
        if _is_called_phone(match["number"], is_weak=(match[1] or "").lower() in _WEAK_WORDS):
            yield match.start("number"), match.end()


def _phone_end(text: str, run: re.Match[str], tail: re.Pattern[str]) -> int | None:
    """Return the end of the phone number that begins a run of groups of digits: whole groups."""
    for group in reversed(list(_DIGITS.finditer(text, run.start(), run.end()))):
        number = text[run.start() : group.end()]
        rest = tail.match(text, group.end())
        if rest and _is_phone(number):
            return rest.end()
        if _GLUED.match(text, group.end()):
            return None
    return None


def _is_phone(number: str) -> bool:
    digits = re.sub(r"\D", "", number)
    if number.startswith("+1"):
        return 7 <= len(digits) <= 11
    if number.startswith("+"):
        # A country's code stands alone before a point; a decimal number has more before it.
        is_decimal = "." in number and len(number[1:].split(".", maxsplit=1)[0]) > 3
        return 7 <= len(digits) <= 15 and not is_decimal and not _TIMESTAMP.fullmatch(number)
    if number.startswith("00"):
        is_binary = set(digits) <= {"0", "1"} or "00000" in digits
        return 10 <= len(digits) <= 17 and not is_binary
    if _POSTAL_CODE.fullmatch(number):
        return False
    return (9 if number.startswith("0") else 6) <= len(digits) <= 15  # shorter: an ISSN or a year


def _is_called_phone(number: str, *, is_weak: bool) -> bool:
    if _DATE.match(number) or _VERSION.search(number):
        return False
    is_written_as_one = number.startswith(("+", "(", "0")) or len(re.sub(r"\D", "", number)) >= 9
    return is_written_as_one or not is_weak
