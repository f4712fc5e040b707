"""Records in parquet and tar shards are those of the .jsonl file, with the same errors at their rows."""

import io
import json
import tarfile

import pytest
from PIL import Image

from training.picture_records import read_picture_folder
from training.records import read_records
from weaver_core.errors import InputError

pyarrow = pytest.importorskip("pyarrow")
PLAN = "# Robin\nHe wakes. <imagine>A fox wakes up</imagine>\n"


def picture(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (48, 32), colour).save(buffer, format="PNG")
    return buffer.getvalue()


def write_parquet(path, rows):
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def write_tar(path, members: dict[str, bytes]):
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def test_stories_of_parquet_and_tar_are_those_of_lines(tmp_path):
    (tmp_path / "red.png").write_bytes(picture("red"))
    record = {"request": "A story", "plan": PLAN, "images": ["red.png"]}
    (tmp_path / "s.jsonl").write_text(json.dumps(record), encoding="utf-8")
    (line,) = read_records(tmp_path / "s.jsonl")
    hugging = write_parquet(tmp_path / "s.parquet", [record | {"images": [{"bytes": picture("red"), "path": "x.png"}], "answer": None}])
    tar = write_tar(tmp_path / "s.tar", {"7.json": json.dumps({"request": "A story", "plan": PLAN}).encode(), "7.image0.png": picture("red")})
    for shard in (hugging, tar):
        (found,) = read_records(shard)
        assert (found.request, found.plan, found.where) == (line.request, line.plan, f"{shard}:1")
        assert found.images[0].read_bytes() == line.images[0].read_bytes()
        assert read_records(shard)[0] == found


def test_pictures_with_references_come_from_shards_of_a_folder_or_pattern(tmp_path):
    rows = [{"image": picture("red"), "prompt": "a red field", "references": [picture("blue")]},
            {"image": picture("green"), "prompt": "a green field", "references": None}]
    write_parquet(tmp_path / "0.parquet", rows)
    write_tar(tmp_path / "1.tar", {"a.json": b'{"prompt": "a blue field"}', "a.jpg": picture("blue"), "a.ref1.jpg": picture("red"),
                                   "a.ref0.jpg": picture("green")})
    records = read_picture_folder(tmp_path)
    assert [(record.prompt, record.size, len(record.references)) for record in records] == [
        ("a red field", (48, 32), 1), ("a green field", (48, 32), 0), ("a blue field", (48, 32), 2)]
    assert records[2].references[0].read_bytes() == picture("green")
    assert [record.where for record in read_picture_folder(tmp_path / "*.parquet")] == [f"{tmp_path / '0.parquet'}:{row}" for row in (1, 2)]


def test_what_is_wrong_in_a_shard_is_told_with_its_row(tmp_path):
    path = write_parquet(tmp_path / "s.parquet", [{"request": "A story", "plan": PLAN}, {"request": " ", "plan": PLAN}])
    with pytest.raises(InputError, match=r"s\.parquet:2: 'request' must be a text"):
        read_records(path)
    path.write_bytes(b"no parquet at all")
    with pytest.raises(InputError, match="s.parquet cannot be read.*write or download it again"):
        read_records(path)
    write_tar(tmp_path / "s.tar", {"7.png": picture("red")})
    with pytest.raises(InputError, match="7.json is missing"):
        read_records(tmp_path / "s.tar")


def test_the_picture_of_a_sample_is_told_by_its_ending_and_there_is_one(tmp_path):
    path = write_tar(tmp_path / "s.tar", {
        "a.json": b'{"prompt": "a red field"}', "a.txt": b"a caption", "a.cls": b"7", "a.JPG": picture("red"),
        "b.json": b'{"prompt": "a blue field"}', "b.png": picture("blue"), "b.seg.png": picture("green"),
        "c.json": b'{"prompt": "a green field"}', "c.npy": b"numbers", "c.ref0.png": picture("green")})
    with pytest.raises(InputError) as told:
        read_picture_folder(path)
    assert str(told.value).splitlines() == [
        f"{path}: b has 2 pictures, b.png, b.seg.png; leave one, and call others b.ref0, b.image0 or b.drawn0",
        f"{path}: c has no picture; put one beside c.json, such as c.jpg"]
    members = {"a.json": b'{"prompt": "a red field"}', "a.jpg": picture("red"),
               **{f"a.{ending}": f"not a picture, {ending}".encode() for ending in ("txt", "cls", "npy", "mask", "xml")}, "readme.md": b"# Fields"}
    (record,) = read_picture_folder(write_tar(tmp_path / "s.tar", members))
    assert record.path.read_bytes() == picture("red") and record.where == f"{path}:1"


def test_stories_need_no_picture_and_the_folder_of_a_data_set_is_read_without_what_was_dropped(tmp_path):
    record = {"request": "A story", "plan": PLAN}
    write_tar(tmp_path / "s.tar", {"7.json": json.dumps(record).encode()})
    (tmp_path / "dropped.jsonl").write_text('{"step": "01-write_plan", "id": "x", "reason": "no image"}\n', encoding="utf-8")
    assert [found.where for found in read_records(tmp_path)] == [f"{tmp_path / 's.tar'}:1"]
    (tmp_path / "stories.jsonl").write_text(json.dumps(record), encoding="utf-8")
    assert [found.where for found in read_records(tmp_path)] == [f"{tmp_path / 'stories.jsonl'}:1"]
