"""E-mail addresses in text: RFC 5322's, quoted or not, and RFC 6531's in any script."""

from collections.abc import Iterator

import regex

from data.cleaning.word_hashes import UNSPACED, has_unspaced_letters

_SIGNS = r".%+'!#$&*^~\-"
"""Of RFC 5322's atoms without what more often stands before an address: = ? / | ` { }."""
_LOCAL_LENGTH = 64
_QUOTED = r'"(?:[^"\\\r\n]|\\.){1,62}"'
_ANY_LOCAL = regex.compile(rf"(?:{_QUOTED}|(?:\w(?:[\w{_SIGNS}](?<!\.\.\.))*))\Z", regex.V1)
_SPACED = rf"[\w--{UNSPACED}]"
_LOCAL = regex.compile(
    rf"(?:{_QUOTED}|(?:[{_SPACED}--\p{{M}}](?:[{_SPACED}{_SIGNS}](?<!\.\.\.))*))\Z", regex.V1
)
_DOMAIN = regex.compile(r"[\w.-]{1,255}")
_LABEL = regex.compile(r"[^\W_](?:[\w-]{0,61}[^\W_])?")
_TOP_LEVEL = regex.compile(
    rf"(?:xn--[a-z0-9-]{{2,59}}|[[\p{{L}}\p{{M}}]--{UNSPACED}]{{2,24}}|[{UNSPACED}\p{{M}}]{{2,24}})"
    rf"(?![{_SPACED}--_]|-\d)",
    regex.V1,
)
_SUFFIXES = (
    "png jpg jpeg gif svg webp bmp ico tif tiff psd pdf css scss less js mjs jsx tsx json html htm"
    " xml yaml yml toml txt csv tsv log lock gz tgz xz tar rar jar whl deb rpm apk dmg msi iso exe"
    " dll ttf otf woff"
)
_FILE_SUFFIXES = frozenset(_SUFFIXES.split())
"""Of files such as icon@2x.png and package@latest.tgz; none is a top-level domain."""
_ADDRESS_LITERAL = regex.compile(r"\[(?:IPv6:)?[0-9A-Fa-f.:]{3,45}\]")


def email_addresses(text: str) -> Iterator[tuple[int, int]]:
    """Yield the start and end of every address with a domain of two names or more."""
    position, at = 0, text.find("@")
    while at >= 0:
        end = _domain_end(text, at + 1)
        start = None if end is None else _local_start(text, position, at, text[at:end])
        if 0 < position == at:  # the part before it was taken for the end of another's domain
            start = at
        if start is not None and end is not None:
            yield start, end
            position = end
        at = text.find("@", at + 1)


def _local_start(text: str, position: int, at: int, domain: str) -> int | None:
    """Return where the part before the @ starts, at or after `position`.

    Words of scripts without spaces may stand right before an address: they belong to it where the
    domain, or the letter before the @, is of such a script.
    """
    is_international = has_unspaced_letters(text[at - 1 : at] + domain)
    pattern = _ANY_LOCAL if is_international else _LOCAL
    local = pattern.search(text, max(position, at - _LOCAL_LENGTH - 2), at)
    return local.start() if local and at - local.start() <= _LOCAL_LENGTH else None


def _domain_end(text: str, start: int) -> int | None:
    literal = _ADDRESS_LITERAL.match(text, start)
    if literal:
        return int(literal.end())
    run = _DOMAIN.match(text, start)
    if run is None:
        return None
    best, position = None, start
    for label in run.group().split("."):
        top_level = _TOP_LEVEL.match(label) if position > start else None
        if top_level and top_level.group().lower() in _FILE_SUFFIXES:
            return None
        if top_level:
            best = position + top_level.end()
        if top_level and top_level.end() < len(label) and text.startswith("@", run.end()):
            break  # what follows begins another address
        if not _LABEL.fullmatch(label):
            break
        position += len(label) + 1
    return best
