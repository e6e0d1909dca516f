"""Personal data: precision and recall on a labelled set, check digits, masks."""

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.cleaning.personal_data import (
    find_personal_data,
    mask_personal_data,
    passes_luhn,
    passes_mod97,
)

LABELLED = Path(__file__).with_name("personal_labelled.txt")
MARK = re.compile(r"\[(email|phone|ip|card|iban):(.*?)(>?)\]")

Spans = set[tuple[str, int, int]]


def labelled() -> list[tuple[str, Spans]]:
    """Each snippet of the set without its marks, and what must be found."""
    snippets = []
    for line in LABELLED.read_text().splitlines():
        if line.startswith("#"):
            continue
        text, spans, position = "", set(), 0
        for mark in MARK.finditer(line):
            text += line[position : mark.start()]
            spans.add((mark[1], len(text), len(text) + len(mark[2])))
            text += mark[2] + mark[3]
            position = mark.end()
        snippets.append((text + line[position:], spans))
    return snippets


def scores() -> dict[str, tuple[float, float, int]]:
    """(precision, recall, marked) of each kind; right is only what agrees in kind and place."""
    right: Counter[str] = Counter()
    found: Counter[str] = Counter()
    marked: Counter[str] = Counter()
    for text, spans in labelled():
        here = {(f.kind, f.start, f.end) for f in find_personal_data(text)}
        found.update(kind for kind, _, _ in here)
        marked.update(kind for kind, _, _ in spans)
        right.update(kind for kind, _, _ in here & spans)
    return {k: (right[k] / max(found[k], 1), right[k] / marked[k], marked[k]) for k in marked}


@pytest.mark.parametrize(
    ("kind", "precision", "recall"),
    [
        ("email", 0.98, 0.98),
        ("phone", 0.95, 0.93),
        ("ip", 0.95, 0.95),
        ("card", 0.98, 0.98),
        ("iban", 0.98, 0.98),
    ],
)
def test_precision_and_recall(kind: str, precision: float, recall: float) -> None:
    reached = scores()[kind]
    assert reached[2] >= 15
    assert reached[0] >= precision and reached[1] >= recall, reached


def test_the_set_has_as_many_look_alikes() -> None:
    snippets = labelled()
    assert sum(not spans for _, spans in snippets) >= 80
    assert sum(bool(spans) for _, spans in snippets) >= 120


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "DE89370400440532013000 GB29NWBK60161331926819",
            ["DE89370400440532013000", "GB29NWBK60161331926819"],
        ),
        ("iban de89370400440532013000", ["de89370400440532013000"]),
        ("DE89\u00a03704\u202f0044 0532 0130 00", ["DE89\u00a03704\u202f0044 0532 0130 00"]),
        ("4111 1111 1111 1111 123", ["4111 1111 1111 1111"]),
        ("4111 1111 1111 1111 12/29", ["4111 1111 1111 1111"]),
        ("1234 4111\u20111111\u20111111\u20111111", ["4111\u20111111\u20111111\u20111111"]),
        ("４１１１ １１１１ １１１１ １１１１", ["４１１１ １１１１ １１１１ １１１１"]),
        ("joe.o\u2019neil@example.com", ["joe.o\u2019neil@example.com"]),
        ("élise@müller.example.de", ["élise@müller.example.de"]),
        ("ruf +49\u00a030\u00a0901820", ["+49\u00a030\u00a0901820"]),
        ("le 01 23 45 67 89 de 9h", ["01 23 45 67 89"]),
        (
            "+1 212 555 0143 x12, or 212-555-0143 ext. 7",
            ["+1 212 555 0143 x12", "212-555-0143 ext. 7"],
        ),
        ("+49 30 901820 2023-10-22", ["+49 30 901820"]),
        ("+49 30 901820 192.0.2.17", ["+49 30 901820", "192.0.2.17"]),
        ("+1 212 555 0143 2024", ["+1 212 555 0143"]),
        ("Tel. (030) / 901820, 212-555-0143,12", ["(030) / 901820", "212-555-0143"]),
        ("IBANDE89370400440532013000danke", ["DE89370400440532013000"]),
        ("DE 89 3704 0044 0532 0130 00", ["DE 89 3704 0044 0532 0130 00"]),
        ("joe@[192.0.2.1]", ["joe@[192.0.2.1]"]),
        ("j@example.com\u200bbob@example.org", ["j@example.com\u200bbob", "@example.org"]),
        ("4111111111111111,4012888888881881", ["4111111111111111", "4012888888881881"]),
        ("4111111111111111,4111111111111112,4111111111111111", []),
        ("tel:+1-212-555-0143;ext=12", ["+1-212-555-0143;ext=12"]),
        ("用户@例子.广告", ["用户@例子.广告"]),
        ("请联系123@example.com谢谢", ["123@example.com"]),
        ("2001:db8::1: unreachable", ["2001:db8::1"]),
        ("from ::ffff:192.0.2.1", ["::ffff:192.0.2.1"]),
        ("ping fe80::1%eth0", ["fe80::1%eth0"]),
        ("DNS (8.8.8.8)", ["8.8.8.8"]),
        ("<192.0.2.17>", ["192.0.2.17"]),
        ("ping 1.2.3.4", ["1.2.3.4"]),
        ("http://8.8.8.8/dns", ["8.8.8.8"]),
        ('destination.ip == "203.0.113.7"', ["203.0.113.7"]),
        ("no12 cats and dogs run", []),
        ("addx6240 add 6543210123456788 6543210123456789", []),
        ("電話：03-1234-5678", ["03-1234-5678"]),
        ("東京 03-1234-5678、大阪06-6123-4567", ["03-1234-5678", "06-6123-4567"]),
        ("전화 02-123-4567, 02-1234-5678", ["02-123-4567", "02-1234-5678"]),
        ("手机：13812345678", ["13812345678"]),
        ("手机号码13812345678。", ["13812345678"]),
        ("打138 1234 5678或139-1234-5678", ["138 1234 5678", "139-1234-5678"]),
        ("전화번호: 1588-1234", ["1588-1234"]),
        ("тел. 8 (495) 123-45-67", ["8 (495) 123-45-67"]),
        ("โทร 02 123 4567", ["02 123 4567"]),
        ("订单号13812345678, 手机2022年", []),
        ("01-2022-03-15, 03-1234-56789, ISBN 978-03-1234-5678", []),
        ("97 138 1234 5678 12, 0.138 1234 5678", []),
        ("foo@2x.png pkg@latest.tgz logo@site.example.PNG图", []),
        ("joe@example.com.", ["joe@example.com"]),
        ("Boston, MA 02110-1301 USA", []),
        ("Boston, MA\n 02110-1301, USA", []),
        ("See the help text.\n\n2022-07-25  Jane", []),
        ("replace the call. 20001007 is no number", []),
        ("ISSN 0378-5955", []),
        ("llvm (1:10~+20191229111838+69)", []),
        ("ld: 0711-317 ERROR", []),
        ("inspect bytes 1a 01 10 00 02 00 03", []),
        ("toSci '+345678.5432'", []),
        ("character 0x2260 = 0010 0010 0110 0000", []),
        ('"version": "1.2.3.4"', []),
        ("foo==1.2.3.4", []),
        ("dpkg (1.15.5.3) unstable", []),
        ("network (1.15.5.3) unstable; urgency=low", []),
        ("+1 212 555 0143abc", []),
        ("sha de89370400440532013000fc1c149afbf4c8", []),
        ("locale sd_IN@devanagari.UTF-8", []),
        ("binutils (2.10.0.27-0.cvs20001011) unstable", []),
        ("2.1.2.3. Stream Flags", []),
        ("svg 1.52-.87 2.83-2.12 3.51.98.32 2.03.5", []),
        ("00:11:22:33:44:55:66:77", []),
        ("Serial Number: cb:2d:80:99:5a:69:52:5d", []),
    ],
)
def test_what_real_text_is_full_of(text: str, found: list[str]) -> None:
    assert [text[f.start : f.end] for f in find_personal_data(text)] == found


PLANTED = {
    "email": [
        *("jane.doe@example.com", '"a b"@example.com', "joe!x@example.com", "joe.@example.com"),
        *("élise@müller.example.de", "संपर्क@डाटामेल.भारत", "почта@пример.рф"),
    ],
    "phone": [
        *("+1 212 555 0143", "+49 30 901820", "+49 (0) 30 / 123456", "+4930901820"),
        *("(212) 555-0187", "212-555-0143 ext. 12", "+49 30 901820 x7", "030 123456"),
        *("03-1234-5678", "02-123-4567", "138 1234 5678"),
    ],
    "ip": ["192.0.2.17", "2001:db8::1", "::ffff:192.0.2.1", "fe80::1%eth0"],
    "card": ["4111 1111 1111 1111", "4111111111111111", "3782-822463-10005"],
    "iban": ["DE89 3704 0044 0532 0130 00", "DE89370400440532013000", "NL91ABNA0417164300"],
}
AROUND = [
    *(("", ""), ("(", ")"), ("[", "]"), ("{", "}"), ("<", ">"), ('"', '"'), ("'", "'"), ("«", "»")),
    *(("`", "`"), ("*", "*"), ("|", "|"), ("—", "—"), ("…", "…"), ("...", "..."), ("：", "，")),
    *(("", "."), ("", ","), ("", ";"), ("", "!"), ("", "?"), ("a,", ",b"), ("nr.: ", "")),
    *(("请联系", "。"), ("请联系", "谢谢"), ("ที่", "ครับ"), ("の", "です"), ("\u202b", "\u202c")),
]
BETWEEN = ["; ", "\n", "、", " | ", "と"]


def in_digits_of(zero: str) -> dict[int, int]:
    return {ord("0") + digit: ord(zero) + digit for digit in range(10)}


WRITTEN = {
    "soft hyphens": "\u00ad".join,
    "zero-width spaces": "\u200b".join,
    "joiners and marks of direction": "\u2060\u200e".join,
    "no-break spaces": lambda value: value.replace(" ", "\u00a0"),
    "no-break hyphens": lambda value: value.replace("-", "\u2011"),
    "Arabic": lambda value: value.translate(in_digits_of("\u0660")),
    "Devanagari": lambda value: value.translate(in_digits_of("\u0966")),
    "wide": lambda value: value.translate(in_digits_of("\uff10")),
    "bold": lambda value: value.translate(in_digits_of("\U0001d7ce")),
    "as it is": str,
}


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize("form", WRITTEN)
def test_nothing_is_masked_by_half(kind: str, form: str) -> None:
    """Whatever stands around a value and however it is written: it goes, the rest stays."""
    mask = f"<{kind.upper()}>"
    for value in map(WRITTEN[form], PLANTED[kind]):
        for before, after in AROUND:
            text = f"See {before}{value}{after} today"
            masked = mask_personal_data(text, find_personal_data(text))
            assert masked == f"See {before}{mask}{after} today", text
        for between in BETWEEN:
            text = f"{value}{between}{value}"
            masked = mask_personal_data(text, find_personal_data(text))
            assert masked == f"{mask}{between}{mask}", text


@given(st.text(alphabet="0123456789 +-().@:abcdefDE\u00a0\u2011\u2019\uff14é\n", max_size=100))
def test_look_alikes_of_ascii_change_nothing(text: str) -> None:
    plain = text.translate({0xA0: " ", 0x2011: "-", 0x2019: "'", 0xFF14: "4"})
    assert find_personal_data(text) == find_personal_data(plain)


def test_masks_keep_the_rest_to_the_letter() -> None:
    text = "Write to jane@example.com or call +49 30 901820, from 192.0.2.17."
    masked = mask_personal_data(text, find_personal_data(text))
    assert masked == "Write to <EMAIL> or call <PHONE>, from <IP>."
    assert find_personal_data(masked) == []


@given(st.text(alphabet="0123456789 +-().@:abcdefDE\n", max_size=200))
def test_findings_are_ordered_and_apart(text: str) -> None:
    position = 0
    for found in find_personal_data(text):
        assert position <= found.start < found.end <= len(text)
        position = found.end


@given(st.integers(min_value=0, max_value=10**14))
def test_luhn_catches_every_single_wrong_digit(number: int) -> None:
    body = f"{number:015d}"
    check = next(d for d in "0123456789" if passes_luhn(body + d))
    assert [d for d in "0123456789" if passes_luhn(body + d)] == [check]
    for place in range(15):
        wrong = body[:place] + str((int(body[place]) + 1) % 10) + body[place + 1 :]
        assert not passes_luhn(wrong + check)


def test_mod97_on_worked_examples() -> None:
    assert passes_mod97("GB82WEST12345698765432")  # ISO 13616's own example
    assert not passes_mod97("GB82WEST12345698765423")


def test_hostile_text_takes_linear_time() -> None:
    pieces = (
        "1 ",
        "a@",
        "(",
        "1.",
        "0-",
        "+1",
        "ab:",
        "DE12 ",
        "tel 1",
        "电话1",
        "138 ",
        "03-1234-",
        "+1 22 ",
        '"a',
        "::1",
        "a\u200b",
    )
    for piece in pieces:
        find_personal_data(piece * 50_000)
