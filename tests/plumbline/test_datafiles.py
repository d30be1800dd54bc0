import gzip
import json

import pytest

from plumbline.datafiles import CorpusText, Notices, load_conversations, load_corpus, load_prompts, read_rows
from plumbline.errors import DataError, UserError


def write(path, *rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


GOOD = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}


def test_rows_of_all_kinds_of_files_are_the_same(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = [{"text": "a"}, {"text": "b"}]
    lines = "\n".join(json.dumps(row) for row in rows)
    write(tmp_path / "x.jsonl", *rows)
    (tmp_path / "x.json").write_text(json.dumps(rows))
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    for name in ("x.jsonl", "x.json", "x.jsonl.gz", "x.parquet"):
        assert list(read_rows(tmp_path / name)) == [(1, {"text": "a"}), (2, {"text": "b"})], name


def test_a_byte_order_mark_is_no_fault(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a"}\n')
    assert list(read_rows(tmp_path / "x.jsonl")) == [(1, {"text": "a"})]


def test_faults_name_file_and_line(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": "\xe9"}\n')
    with pytest.raises(DataError, match=r"x\.jsonl:2: not UTF-8"):
        list(read_rows(path))
    with pytest.raises(DataError, match=r"y\.jsonl:2: not valid JSON"):
        list(read_rows(write(tmp_path / "y.jsonl", {"a": 1}, "{'a': 1}")))
    with pytest.raises(DataError, match=r"z\.jsonl:1: expected an object"):
        list(read_rows(write(tmp_path / "z.jsonl", "[1]")))
    with pytest.raises(DataError, match="unknown kind of file"):
        list(read_rows(write(tmp_path / "x.csv", "a,b")))
    (tmp_path / "bad.parquet").write_text("no table")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        list(read_rows(tmp_path / "bad.parquet"))


def test_conversations_are_refused_with_every_fault(tmp_path):
    swapped = {"messages": list(reversed(GOOD["messages"]))}
    path = write(tmp_path / "x.jsonl", GOOD, swapped, {"other": 1})
    with pytest.raises(UserError) as refused:
        load_conversations([path])
    assert "x.jsonl:2: roles out of order" in str(refused.value)
    assert "x.jsonl:3: expected a list of messages" in str(refused.value)
    assert load_conversations([write(tmp_path / "y.jsonl", GOOD)]) == [GOOD["messages"]]


@pytest.mark.parametrize(
    ("load", "good"),
    [
        (load_conversations, GOOD),
        (lambda paths: load_prompts(paths, Notices()), {"prompt": "Hi"}),
        (load_corpus, {"text": "Hi"}),
    ],
)
def test_a_line_that_is_no_json_hides_no_other_fault(tmp_path, load, good):
    path = write(tmp_path / "x.jsonl", good, "{'a': 1}", {"other": 1}, "[1]", good)
    with pytest.raises(UserError) as refused:
        load([path])
    head, *faults = str(refused.value).splitlines()
    assert head.startswith("3 ")
    assert [fault.split(": ")[0] for fault in faults] == [f"  {path}:{line}" for line in (2, 3, 4)]


def test_prompt_and_completion_make_a_conversation(tmp_path):
    path = write(tmp_path / "x.jsonl", {"prompt": "Hi", "completion": "Hello"})
    assert load_conversations([path]) == [GOOD["messages"]]


def test_duplicate_prompts_are_kept_once_and_said(tmp_path):
    path = write(tmp_path / "x.jsonl", {"prompt": "Hi there", "topic": "a"}, {"prompt": "hi THERE!"}, {"prompt": "Bye"})
    notices = Notices()
    rows = load_prompts([path], notices)
    assert [row.prompt[0]["content"] for row in rows] == ["Hi there", "Bye"]
    assert rows[0].meta == {"topic": "a"}
    assert notices.lines == [f"left out: 1 duplicate prompt (the first: {path}:2 repeats {path}:1)."]


def test_prompts_of_conversations_are_what_comes_before_the_last_reply(tmp_path):
    longer = [*GOOD["messages"], {"role": "user", "content": "Bye"}, {"role": "assistant", "content": "Goodbye"}]
    path = write(tmp_path / "x.jsonl", {**GOOD, "topic": "a"}, {"messages": longer}, {"messages": longer[:3]})
    rows = load_prompts([path], Notices())
    assert [row.prompt for row in rows] == [GOOD["messages"][:1], longer[:3]]
    assert [row.meta for row in rows] == [{"topic": "a"}, {}]


def test_rows_that_hold_no_prompt_are_refused(tmp_path):
    path = write(tmp_path / "x.jsonl", {"text": "a"}, {"messages": []})
    with pytest.raises(UserError) as refused:
        load_prompts([path], Notices())
    assert "x.jsonl:1: no `prompt` in this row" in str(refused.value)
    assert "x.jsonl:2: expected a list of messages" in str(refused.value)


def test_empty_prompts_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"x\.jsonl:1: message 1: the user's content is empty"):
        load_prompts([write(tmp_path / "x.jsonl", {"prompt": "  "})], Notices())


def test_an_empty_file_of_demonstrations_is_refused(tmp_path):
    with pytest.raises(UserError, match="no conversation in it"):
        load_conversations([write(tmp_path / "x.jsonl")])


def test_a_corpus_is_of_texts_and_conversations(tmp_path):
    path = write(tmp_path / "x.jsonl", {"text": "a"}, GOOD)
    assert load_corpus([path]) == [CorpusText("a"), CorpusText("Hi\n\nHello", GOOD["messages"])]
    with pytest.raises(UserError, match=r"y\.jsonl:1: no text in this row"):
        load_corpus([write(tmp_path / "y.jsonl", {"text": " "})])
