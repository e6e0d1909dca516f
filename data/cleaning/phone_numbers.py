"""Phone numbers in text, told from dates, versions, postal codes, ISSNs and counts."""

import re
from collections.abc import Iterator

_NUMBER = re.compile(
    r"(?<![\w.,/#$€£=+~-])(?:"
    r"(?:\+|(?<!\d )00)[1-9]\d{0,2}[ .-]?(?:\(0?\d{1,4}\)[ .-]?)?"  # +49 ...
    r"\d{1,5}(?:[ ./-]?\d{2,5}){1,4}"
    r"|(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d([ .-]))[2-9]\d\d(?(1)\1|[ .-])\d{4}"  # (212) 555-...
    r"|\(0\d{1,4}\)[ /-]?\d{2,5}(?:[ -]?\d{2,5}){1,3}"  # (030) 1234 567
    r"|(?<!\d )0[1-9]\d{1,4}[ /-]\d{2,8}(?:[ -]\d{2,6}){0,3}"  # 030 123456, 020 7946 0018
    r"|(?<!\b\d[\dA-Fa-f] )0[1-9](?:[ .]\d\d){4}(?! \d[\dA-Fa-f]\b)"  # 01 23 45 67 89, not bytes
    r")(?![\w+~]|[.,/-]\d)"
)
_AFTER_WORD = re.compile(
    r"\b(tele?(?:phone|fon)?|phone|fax|whatsapp|tél|móvil|mobile?|handy|cell|call|text|sms|ph)\b"
    r"(?:[.: \t]|\bno\b|\bnumber\b|\bnr\b|\bat\b|\bus\b|\bme\b|\bon\b|\bis\b|\bor\b){1,12}"
    r"(\+?\(?\d(?:[ ().-]{0,2}\d){6,14})(?![\w+~]|[.,-]\d)",
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
    """Yield the start and end of every phone number; some are found by both patterns."""
    for match in _NUMBER.finditer(text):
        if _is_phone(match.group()):
            yield match.span()
    for match in _AFTER_WORD.finditer(text):
        number = match.group(2)
        if _is_called_phone(number, is_weak=match.group(1).lower() in _WEAK_WORDS):
            yield match.span(2)


def _is_phone(number: str) -> bool:
    digits = re.sub(r"\D", "", number)
    if number.startswith("+"):
        # A country's code stands alone before a point; a decimal number has more before it.
        is_decimal = "." in number and len(number[1:].split(".", maxsplit=1)[0]) > 3
        return 7 <= len(digits) <= 15 and not is_decimal and not _TIMESTAMP.fullmatch(number)
    if number.startswith("00"):
        is_binary = set(digits) <= {"0", "1"} or "00000" in digits
        return 10 <= len(digits) <= 17 and not is_binary
    if number.startswith("0") and (len(digits) < 9 or _POSTAL_CODE.fullmatch(number)):
        return False  # short ones as those of an ISSN: only after a word for phones
    return len(digits) <= 15


def _is_called_phone(number: str, *, is_weak: bool) -> bool:
    if _DATE.match(number) or _VERSION.search(number):
        return False
    is_written_as_one = number.startswith(("+", "(", "0")) or len(re.sub(r"\D", "", number)) >= 9
    return is_written_as_one or not is_weak
