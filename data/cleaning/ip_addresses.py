"""IP addresses in text, told from version numbers, revisions, sections and hardware addresses."""

import ipaddress
import re
from collections.abc import Iterator

_QUAD = r"(?:\d{1,3}\.){3}\d{1,3}"
# Boundaries are of ASCII: a letter of another script right before or after is no part of it.
_IPV4 = re.compile(rf"(?=\d)(?<!\w)(?<!\w\.){_QUAD}(?!\w|\.\d)", re.ASCII)
_IPV6 = re.compile(
    r"(?=::(?!:)|[0-9A-Fa-f])(?<!\w)(?<!\w\.)(?<![0-9A-Fa-f:]:)(?:[0-9A-Fa-f]{0,4}:){2,7}"
    rf"(?:{_QUAD}|[0-9A-Fa-f]{{0,4}})(?:%\w{{1,15}})?(?![\w:]|\.\d)",
    re.ASCII,
)
_HARDWARE = re.compile(r"(?:[0-9A-Fa-f]{2}:){7}[0-9A-Fa-f]{2}")
"""EUI-64, InfiniBand's node ids, serial numbers: eight bytes, written as eight words would be."""
BEFORE_CHARACTERS = 40
_VERSION_BEFORE = re.compile(
    r"(?:[=<>~!^]=|(?<![-=])[<>~^])\s*$"
    r"|(?:\bv(?:er(?:sions?)?)?|\brel(?:ease)?|\brev(?:ision)?|\bsect(?:ion)?|§|\bfirmware|\bupdate"
    r"|\bpolicy|\bchapter|\bbuild|\bupgraded? to|\bupdated? to)"
    r"[\s\"'.:=($#-]*$",
    re.I,
)
_PACKAGE_BEFORE = re.compile(r"[\w+] ?\($|\w[-_]$")
_PACKAGE_AFTER = re.compile(r"\) [\w-]+;")
"""The head of an entry in Debian's changelogs, where packages may be called bind or network."""
_VERSION_AFTER = re.compile(r"[+~]|-\d|-[a-z]+\d")
_DECIMAL_BEFORE = re.compile(r"(?<![\d.])-?\d*\.\d+[ ,-]$")
_ADDRESS_BEFORE = re.compile(
    r"(?:\b(?:ip(?:v4)?s?|inet|(?:ip)?addr(?:ess(?:es)?)?|hosts?|servers?|gateway|dns|name-?servers?"
    r"|resolvers?|ping|subnet|proxy|clients?|peers?|routers?|remote|source|login|logged in"
    r"|connect(?:ed|ion|ing)?|visitors?|listen(?:ing)?|bind|ssh|from|via|machine|node|network|range)\b"
    r"(?:[\s\"'`:=,\[({-]|\b(?:is|was|are|to|from|at|on|of|in|by|with|the)\b){0,16}|://|[\w]@)$",
    re.I,
)
_ADDRESS_AFTER = re.compile(r":\d{2,5}\b|/(?:[12]?\d|3[0-2])\b(?!/)| ?[-=]> ?\d{1,3}\.\d")
SMALL_OCTET, SMALL_FIRST = 31, 9
"""Numbers up to which an octet might as well be of a version."""


def ip_addresses(text: str) -> Iterator[tuple[int, int]]:
    """Yield the start and end of every address of a host or network, loopback left out."""
    if "::" in text or text.count(":") >= 6:
        for match in _IPV6.finditer(text):
            address = match.group()
            if address.endswith(":") and not address.endswith("::"):
                address = address[:-1]  # what follows is told of it
            # Not a slice such as 1::2, nor a name such as add::bad.
            is_short = len(address) < 7 or not any(map(str.isdigit, address))
            if not is_short and _is_host(address) and not _HARDWARE.fullmatch(address):
                yield match.start(), match.start() + len(address)
    for match in _IPV4.finditer(text):  # after those that may end in one of these
        if _is_host(match.group()) and _is_written_as_address(match, text):
            yield match.span()


def _is_host(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    is_mask = text.startswith(("255.", "0."))
    return not (address.is_loopback or address.is_unspecified or is_mask)


def _is_written_as_address(match: re.Match[str], text: str) -> bool:
    """Weigh what stands before and after: four small numbers are an address only if called so."""
    before = text[max(0, match.start() - BEFORE_CHARACTERS) : match.start()]
    if before.endswith("<") and text.startswith(">", match.end()):
        before = before[:-1]  # a bracket, no comparison
    if _VERSION_BEFORE.search(before) or _DECIMAL_BEFORE.search(before):
        return False
    after = text[match.end() : match.end() + 16]
    octets = [int(octet) for octet in match.group().split(".")]
    is_ambiguous = max(octets) <= SMALL_OCTET or octets[0] <= SMALL_FIRST
    if not is_ambiguous:
        return not (_PACKAGE_BEFORE.search(before) and _VERSION_AFTER.match(after))
    if _VERSION_AFTER.match(after) or _PACKAGE_AFTER.match(after):
        return False
    if _ADDRESS_BEFORE.search(before):
        return not before.endswith(("-", "_"))
    return bool(_ADDRESS_AFTER.match(after)) and not _PACKAGE_BEFORE.search(before)
