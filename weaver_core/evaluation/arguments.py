"""The options that several commands of `weaver eval` share, and how their values are read."""

from __future__ import annotations

import argparse

from .records import DIMENSIONS

DEFAULT_DATASET = "weaver-style"
_OPENAI_KEY = ", else (api.openai.com and OPENAI_BASE_URL only) from OPENAI_API_KEY"


def run_folder_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="DIR", required=True, help="the run folder")


def retry_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--retry", choices=("failed",), help="failed: try again what failed in an earlier go")


def prompt_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("prompts")
    group.add_argument("--dataset", metavar="NAME", help=f"a prompt set by name, or a JSONL file of prompts (default: {DEFAULT_DATASET}; for "
                       "a run that is there, its own prompts)")
    group.add_argument("--limit", type=count, metavar="N", help="the first N prompts only")
    group.add_argument("--ids", metavar="IDS", help="these prompts only, separated by commas")
    group.add_argument("--category", metavar="NAME", help="prompts of this category only")
    group.add_argument("--shard", metavar="I/N", type=_shard, help="part I of N, from 1")


def generation_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("system")
    group.add_argument("--system", metavar="NAME", help="what the system is called in reports (default: by back end)")
    group.add_argument("--seed", type=int, default=0, help="the base seed; each document's and image's seed is a hash of it (default: 0)")
    group.add_argument("--backend", choices=("library", "comfy", "openai", "imported"), default="library",
                       help="library: a native model (default); comfy: a ComfyUI workflow; openai: chat and images over HTTP; imported: "
                       "documents in a file")
    group.add_argument("--num-images", choices=("explicit", "always", "never"), default="explicit",
                       help="whether the system is told the wanted number: where the prompt says it (default), always, never")
    group.add_argument("--timeout", type=float, default=900.0, metavar="S", help="seconds for one answer, from when it begins to run "
                       "(comfy), or one request (openai)")
    native = parser.add_argument_group("back end: library")
    native.add_argument("--model", metavar="FOLDER", help="a native model folder (default: the embedded picture-book model)")
    native.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    native.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="number format (default: by device)")
    native.add_argument("--mode", choices=("plan-first", "closed-loop"), default="plan-first", help="as in weaver story")
    native.add_argument("--references", choices=("auto", "user", "none"), default="auto", help="as in weaver story")
    native.add_argument("--size", metavar="WxH", type=_size, help="size of the images (default: the model's own)")
    native.add_argument("--steps", type=int, help="denoising steps per image")
    native.add_argument("--guidance", type=float, help="how strongly the dense prompt is followed")
    comfy = parser.add_argument_group("back end: comfy")
    comfy.add_argument("--comfy-url", metavar="URL", default="http://127.0.0.1:8188", help="default: http://127.0.0.1:8188")
    comfy.add_argument("--workflow", metavar="FILE", help="a workflow in API format; nodes titled prompt, seed, num_images, image1 ... get values")
    comfy.add_argument("--set", metavar="NAME=NODE.INPUT", action="append", type=_mapping, help="where a value goes, such as prompt=6.text")
    comfy.add_argument("--collect", metavar="NODES", help="ids of the output nodes in the order of the document (default: all, by number)")
    api = parser.add_argument_group("back end: openai", f"key from WEAVER_GENERATE_API_KEY{_OPENAI_KEY}")
    api.add_argument("--api-url", metavar="URL", help="the server's address, up to /v1")
    api.add_argument("--chat-model", metavar="NAME", help="writes the text and the dense prompts")
    api.add_argument("--image-model", metavar="NAME", help="draws")
    api.add_argument("--images-url", metavar="URL", help="the images' server, where it is another one")
    imported = parser.add_argument_group("back end: imported")
    imported.add_argument("--documents", metavar="FILE", help="a JSONL file of documents, image paths relative to it")


def judge_arguments(parser: argparse.ArgumentParser, *, required: bool, alias: str = "", only_server: bool = False) -> None:
    group = parser.add_argument_group("judge", f"key from WEAVER_JUDGE_API_KEY{_OPENAI_KEY}")
    group.add_argument("--judge-url", metavar="URL", required=required, help="an OpenAI-compatible server, up to /v1")
    group.add_argument("--judge-model", metavar="NAME", required=required, help="a model of that server that sees images")
    group.add_argument("--image-profile", choices=("long768", "squash512"), default="long768",
                       help="how images are sent: long side 768 (default), or squashed to 512 x 512 as OpenING does")
    group.add_argument("--temperature", type=_temperature, default=0.0, help="default: 0; none = leave it to the server")
    group.add_argument("--max-tokens", type=count, default=2048, help="of one answer, thinking included (default: 2048)")
    group.add_argument("--judge-timeout", type=float, default=180.0, metavar="S", help="seconds for one call (default: 180)")
    group.add_argument("--prices", metavar="FILE", help='JSON: {"model": {"input_per_million": .., "output_per_million": .., "image_tokens": ..}}')
    group.add_argument("--max-usd", type=float, metavar="X", help=f"stop before judging {'these pairs' if only_server else 'this run'} "
                       "has cost more (needs --prices)")
    if only_server:
        parser.set_defaults(judge_mode="split", rubric="weaver", dims=DIMENSIONS, reps=1, oracle=False)
        return
    group.add_argument("--oracle", action="store_true", help="instead of a server: read the scores off the pixels (picture-book prompts only)")
    names = ["--judge-mode", alias] if alias else ["--judge-mode"]
    group.add_argument(*names, dest="judge_mode", choices=("split", "joint"), default="split",
                       help="split: one dimension a call (default); joint: all in one call, cheaper, but scores run together")
    group.add_argument("--rubric", choices=("weaver", "opening"), default="weaver", help="weaver: PA, NC, CC, IC, CP; opening: its seven criteria")
    group.add_argument("--dims", type=_dims, default=DIMENSIONS, metavar="DIMS", help="some of PA,NC,CC,IC,CP (default: all)")
    group.add_argument("--reps", type=count, default=1, metavar="N", help="how often every score is asked for (default: 1)")
    group.add_argument("--workers", type=count, default=4, metavar="N", help="calls at a time (default: 4)")
    group.add_argument("--dry-run", action="store_true", help="say how much it would be, and send nothing")
    parser.set_defaults(retry=None)  # for commands without it


def metric_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("metrics")
    group.add_argument("--embedder", metavar="FOLDER", help="a CLIP, SigLIP or DINO folder for metrics that compare meaning (default: metrics that "
                       "need no weights)")


def compare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--judge", metavar="NAME", help="whose scores (default: the latest judge of each run)")
    parser.add_argument("--force", action="store_true", help="compare also what is not comparable; the output is marked")


def count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 1 or more")
    return int(text)


def _temperature(text: str) -> float | None:
    try:
        value = None if text == "none" else float(text)
    except ValueError:
        value = -1.0
    if value is not None and not 0 <= value <= 2:
        raise argparse.ArgumentTypeError(f"{text!r}: a number in 0..2 or none was expected")
    return value


def _dims(text: str) -> tuple[str, ...]:
    names = tuple(name.strip().upper() for name in text.split(",") if name.strip())
    if not names or any(name not in DIMENSIONS for name in names):
        raise argparse.ArgumentTypeError(f"{text!r}: some of {','.join(DIMENSIONS)} were expected")
    return tuple(dim for dim in DIMENSIONS if dim in names)


def _shard(text: str) -> str:
    part, _, total = text.partition("/")
    if not (part.isdigit() and total.isdigit() and 1 <= int(part) <= int(total)):
        raise argparse.ArgumentTypeError(f"{text!r}: I/N with I in 1..N was expected, such as 1/4")
    return text


def _mapping(text: str) -> tuple[str, str]:
    name, equals, place = text.partition("=")
    if not equals or "." not in place:
        raise argparse.ArgumentTypeError(f"{text!r}: NAME=NODE.INPUT was expected, such as prompt=6.text")
    return name.strip(), place.strip()


def _size(text: str) -> tuple[int, int]:
    from ..segments import check_size
    from ..spelling import read_size

    try:
        return check_size("size", read_size(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
