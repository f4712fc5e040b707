"""A small benchmark in the layout of OpenING, with the quirks of the real one."""

from __future__ import annotations

import json

from PIL import Image

NAMES = {  # ids -> names as they stand in the rows, two of them misspelt
    (1, 1): ("Storybook Creation", "Story Writting"),
    (2, 3): ("Dynamic biography generation", "Dynamic Biography Generation"),
    (16, 2): ("Multimodal Time Series Forecasting", "Visual Traffic Forcasting"),
    (20, 1): ("Cooking Tasks", "Multimodal Recipe Generation"),
}


def picture(path, colour="red", size=(40, 20), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)
    return path


def row(meta, sub, number, asked, answered, **more):
    topic, task = NAMES[meta, sub]
    return {
        "total_uid": f"{meta:02d}{sub:02d}{number:03d}", "meta_task_id": str(meta), "meta_task_name": topic,
        "subtask_id": str(sub), "subtask_name": task, "data_id": str(number),
        "conversations": [
            {"input": [{"image": image, "text": text} for text, image in asked]},
            {"output": [{"image": image, "text": text} for text, image in answered]},
        ],
    } | more  # fmt: skip


def benchmark_in(folder):
    """Three rows: no picture asked with and one answered, two pictures asked with, a misspelt name. The benchmark's folder."""
    root = folder / "copy" / "OpenING-Benchmark"
    story, bike = "./images/Story Writting", "./images/Multimodal Recipe Generation"
    rows = [
        row(1, 1, 7, [("Tell it well. <BEGIN> A hen in a boat <image>", f"{story}/7-i-1.jpg"), ("and a goat <image>", f"{story}/7-i-2.jpg")],
            [("They row. <image>", f"{story}/7-o-1.jpg"), ("They land. <image>", f"{story}/7-o-2.jpg"), ("Home. <image>", f"{story}/7-o-3.jpg")]),
        row(20, 1, 12, [("<BEGIN> How do I bake flat bread?", None)], [("Like this. <image>", f"{bike}/12-o-1.jpg")]),
        row(16, 2, 100, [("<BEGIN> What will the road look like?", None)], [("Full. <image>", f"{bike}/1.jpg"), ("Empty. <image>", f"{bike}/2.jpg")]),
    ]  # fmt: skip
    for name, colour in (("7-i-1", "red"), ("7-i-2", "blue"), ("7-o-1", "white"), ("7-o-2", "grey"), ("7-o-3", "black")):
        picture(root / "images" / "Story Writting" / f"{name}.jpg", colour)
    (root / "test_data.jsonl").write_text("\ufeff" + "".join(json.dumps(item) + "\n" for item in rows), encoding="utf-8")
    return root


def write_output(folder, item, steps, *, ending=".json", uid=True, indent=4):
    """An output file as the generators write them; `steps` are (text, image name or None)."""
    folder.mkdir(parents=True, exist_ok=True)
    copy = json.loads(json.dumps(item))
    name = copy["total_uid"]
    if not uid:
        del copy["total_uid"]
    copy["conversations"][1]["output"] = [{"text": text, "image": image} for text, image in steps]
    (folder / f"{name}{ending}").write_text(json.dumps(copy, indent=indent), encoding="utf-8")
    return name
