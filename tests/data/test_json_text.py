"""What a bad line of JSON is: the same for documents and for conversations."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.chat.build import build_chat_store
from data.errors import DataError
from data.json_text import BadLineError, check_text, find_lone_surrogate, parse_json_text
from data.store.reader import Store
from tests.support.store_helpers import build, dropped, texts

ANY_TEXT = st.text(st.characters(), max_size=30)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(ANY_JSON, st.booleans())
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_a_line_is_read_where_all_of_it_can_be_encoded(value: object, ascii_only: bool) -> None:
    line = json.dumps(value, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    # Reading joins the halves of a pair, so encode what reading gives.
    again = json.loads(line)
    try:
        json.dumps(again, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        assert find_lone_surrogate(again)
        with pytest.raises(BadLineError, match="bad_utf8: a lone surrogate, U\\+D"):
            parse_json_text(line)
    else:
        assert find_lone_surrogate(again) is None
        assert parse_json_text(line) == again


BAD_LINES = {
    "half": (rb'"half \ud83d emoji"', "bad_utf8"),
    "other half": (rb'"half \ude00 emoji"', "bad_utf8"),
    "half in bytes": (b'"half \xed\xa0\xbd emoji"', "bad_utf8"),
    "latin 1": (b'"caf\xe9"', "bad_utf8"),
    "no JSON": (b'"open', "bad_json"),
    "deep": (b"[" * 5000 + b"]" * 5000, "bad_json"),
    "halves of a pair": (rb'"an \ud83d\ude00 emoji"', None),
    "private use": ('"\uf8ff \ue000 \U000f0000"'.encode(), None),
    "astral": ('"\U0001f600"'.encode(), None),
}


def test_documents_and_conversations_drop_the_same_lines(tmp_path: Path) -> None:
    documents, chats = tmp_path / "docs.jsonl", tmp_path / "chats.jsonl"
    documents.write_bytes(b"".join(b'{"text": %s}\n' % text for text, _ in BAD_LINES.values()))
    row = b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": %s}]}'
    chats.write_bytes(b"".join(row % text + b"\n" for text, _ in BAD_LINES.values()))
    build_chat_store([chats], tmp_path / "chats", tokenizer="bytes", held_out_fraction=0)
    expected = {"bad_utf8": 4, "bad_json": 2}
    for store in (Store.open(tmp_path / "chats"), build(tmp_path / "docs", documents)):
        assert store.manifest.dropped == expected
        assert store.manifest.documents == len(BAD_LINES) - sum(expected.values())


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=3))
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_no_line_of_another_encoding_is_read(encoding: str, words: list[str]) -> None:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in words).encode(encoding)
    for line in lines.split(b"\n"):
        if line.strip(b"\0"):
            with pytest.raises(BadLineError):
                parse_json_text(line)


def test_utf16_files_are_named_and_utf8_may_have_its_mark(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"text": f"line {n}"}) + "\n" for n in range(3))
    (tmp_path / "wide.jsonl").write_text(rows, encoding="utf-16")
    (tmp_path / "wide.txt").write_text("one\ntwo\n", encoding="utf-16")
    (tmp_path / "marked.jsonl").write_text(rows, encoding="utf-8-sig")
    (tmp_path / "marked.txt").write_text("three\nfour", encoding="utf-8-sig")
    store = build(tmp_path / "out", tmp_path, source={"separator": "\n"})
    assert texts(store) == ["line 0", "line 1", "line 2", "three", "four"]
    assert set(dropped(store).values()) == {"bad_utf8"}
    with pytest.raises(DataError, match=r"bad_utf8: [46]\); the first: .*UTF-16: save the file as"):
        build_chat_store([tmp_path / "wide.jsonl"], tmp_path / "chats", tokenizer="bytes")


def test_check_text_names_the_place() -> None:
    assert check_text("\U0001f600 \uf8ff", "it") == "\U0001f600 \uf8ff"
    with pytest.raises(
        DataError, match=r"prompt 2: character 4 is no character \(U\+DCE9, .*UTF-8"
    ):
        check_text(b"caf\xe9".decode(errors="surrogateescape"), "prompt 2")
