"""The command line: `weaver story`, `plan`, `render`, `resume`, `scores`."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import Cancelled, InputError, WeaverError
from .plan import Plan, parse_markup
from .planners import Planner
from .references import POLICIES
from .request import ReferenceImage, RenderSettings, Request
from .segments import check_aspect, check_size
from .spelling import read_size
from .story import StoryFolder, fresh_folder, slug
from .story_files import MODES
from .terminal import Display
from .visualizers import Visualizer
from .weave import PlanReady, weave, weave_plan, write_plan

OK, ERROR, USAGE, INCOMPLETE, INTERRUPTED = 0, 1, 2, 3, 130
STORIES = Path("stories")
MAX_PLAN_BYTES = 256 * 2**20

_EPILOG = """\
examples:
  weaver story "A small orange fox finds a red kite on the beach" --images 4
  weaver story "This is Robin. He goes to the castle." --image robin.png --seed 7 --out robins-day
  weaver plan "A blue rabbit in the snow" --images 3 > plan.md     write the plan, edit it, then
  weaver render plan.md --out rabbit                               draw it
  weaver resume rabbit                                             go on after Ctrl-C or a crash

exit codes: 0 everything done, 1 error, 2 wrong usage, 3 done but some images are missing, 130 interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. Errors for the user go to standard error, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a story must not fail on a terminal that cannot show a letter
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (KeyboardInterrupt, Cancelled) as stop:
        print(f"\nstopped{_where_to_go_on(stop)}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Who read our output is gone; without this, Python complains once more on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ERROR
    except (WeaverError, ValueError, OSError, ImportError) as error:
        if options.debug:
            raise
        print(f"weaver: {error}", file=sys.stderr)
        return ERROR


# ---- commands


def _story(options: argparse.Namespace) -> int:
    request, notes = _request(options, options.prompt)
    display = _display(options, notes)
    if options.model is None:
        _warn_of_unknown_words(request, display)
    planner, visualizer = _load_pair(options)
    path = Path(options.out) if options.out else fresh_folder(STORIES, slug(request.prompt))
    folder = StoryFolder.create(
        path,
        request,
        mode=options.mode,
        settings=_settings(options),
        policy=options.references,
        made_with=_model_name(options),
    )
    display.note(f"seed {request.seed}, story folder {path}")
    with folder:
        return _finish(folder, display, weave(request, planner, visualizer, story=folder))


def _plan(options: argparse.Namespace) -> int:
    request, notes = _request(options, options.prompt)
    display = _display(options, notes)
    if options.model is None:
        _warn_of_unknown_words(request, display)
    planner, _ = _load_pair(options)
    plan = None
    for event in write_plan(request, planner):
        if isinstance(event, PlanReady):
            plan = event.plan
        elif not hasattr(event, "kind"):  # the text itself comes at the end, as markup
            display.show(event)
    text = plan.dumps() if options.json else plan.to_markup()
    if options.out:
        from .durable import write_whole

        write_whole(Path(options.out), text.encode())
        print(options.out)
    else:
        print(text, end="")
    return OK


def _render(options: argparse.Namespace) -> int:
    plan, warnings = _read_plan(options.plan)
    display = _display(options, ())
    for warning in warnings:
        display.warn(warning.message, warning.line, warning.column)
    if not plan.images:
        raise InputError(f"{options.plan} holds no images; put <imagine>what it shows</imagine> where they belong")
    planner, visualizer = _load_pair(options)
    path = Path(options.out) if options.out else fresh_folder(STORIES, slug(plan.title or "story"))
    folder = _open_or_create(options, plan, path, display)
    with folder:
        _check_model(folder, options)
        events = weave_plan(
            plan,
            visualizer,
            planner=planner,
            story=folder,
            settings=_settings(options, folder.settings),
            only=options.only.split(",") if options.only else None,
            redraw_stale=options.redraw_stale,
        )
        return _finish(folder, display, events)


def _resume(options: argparse.Namespace) -> int:
    with StoryFolder.open(options.folder) as folder:
        display = _display(options, folder.warnings)
        _check_model(folder, options)
        request = folder.request
        planner, visualizer = _load_pair(options)
        if folder.plan is not None:
            events = weave_plan(
                folder.plan, visualizer, planner=planner, request=request, story=folder,
                redraw_stale=options.redraw_stale,
            )  # fmt: skip
        else:
            events = weave(request, planner, visualizer, story=folder)
        return _finish(folder, display, events)


def _scores(options: argparse.Namespace) -> int:
    from .picturebook.scores import measure, table

    model = _load_model(options)
    bars = _ScoreBars()
    show = (lambda what, done, total: None) if options.quiet or options.json else bars
    scores = measure(model, quick=options.quick, on_progress=show)
    bars.close()
    print(json.dumps(scores, indent=1) if options.json else table(scores))
    return OK


# ---- parts of commands


def _finish(folder: StoryFolder, display: Display, events) -> int:
    """Follows the events to the end (also to a bad one) and writes the page of what there is."""
    from .export.html import write_html

    page = folder.folder / "story.html"
    try:
        try:
            display.follow(events)
        finally:
            events.close()  # waits for the step in work, so that nothing is written after this
    except (KeyboardInterrupt, Cancelled) as stop:
        stop.story_folder = folder.folder
        raise
    write_html(folder, page)
    missing = display.finished.missing
    if missing:
        display.note(
            f"{len(missing)} of {len(folder.plan.images)} images are missing ({', '.join(missing)}); "
            f"'weaver resume {folder.folder}' tries again"
        )
    display.result(folder.folder, page)
    return INCOMPLETE if missing else OK


def _where_to_go_on(stop: BaseException) -> str:
    folder = getattr(stop, "story_folder", None)
    return f"; go on with: weaver resume {folder}" if folder else "; nothing was begun"


def _request(options: argparse.Namespace, prompt: str) -> tuple[Request, list[str]]:
    """The request that the options make, checked, and notes about it for the user."""
    if prompt == "-":
        prompt = sys.stdin.read()
    images, notes = [], []
    for path in options.image or ():
        picture, more = ReferenceImage.read(path)
        images.append(picture)
        notes += more
    request, more = Request(
        prompt=prompt,
        images=tuple(images),
        num_images=getattr(options, "images", None),
        size=getattr(options, "size", None),
        aspect=getattr(options, "aspect", None),
        language=getattr(options, "language", "en"),
        seed=secrets.randbelow(2**32) if options.seed is None else options.seed,
    ).validated()
    return request, [*notes, *more]


def _settings(options: argparse.Namespace, otherwise: RenderSettings | None = None) -> RenderSettings:
    """The options given; what is not given as it was before."""
    otherwise = otherwise or RenderSettings()

    def given(name):
        value = getattr(options, name)
        return getattr(otherwise, name) if value is None else value

    return RenderSettings(
        steps=given("steps"), guidance=given("guidance"), reference_guidance=given("reference_guidance")
    )


def _open_or_create(options: argparse.Namespace, plan: Plan, path: Path, display: Display) -> StoryFolder:
    """The folder to draw a plan in: a story that is there goes on with its own request."""
    if (path / "story.jsonl").exists():
        for name in ("seed", "image", "size", "aspect"):
            if getattr(options, name) is not None:
                raise InputError(
                    f"{path} holds a story already, with its own {name}; leave --{name} out, or choose another folder"
                )
        folder = StoryFolder.open(path)
        for warning in folder.warnings:
            display.warn(warning)
        return folder
    options.seed = 0 if options.seed is None else options.seed  # a plan drawn twice comes out the same
    options.images = min(len(plan.images), 64)
    request, notes = _request(options, plan.title or "a story")
    for note in notes:
        display.warn(note)
    return StoryFolder.create(
        path, request, settings=_settings(options), policy=options.references, made_with=_model_name(options)
    )


def _read_plan(name: str):
    """The plan in a file ('-' = standard input), and warnings; JSON by the name's ending or the first character."""
    try:
        if name == "-":
            data = sys.stdin.buffer.read(MAX_PLAN_BYTES + 1)
        else:
            with open(name, "rb") as file:
                data = file.read(MAX_PLAN_BYTES + 1)
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror or error}") from None
    if len(data) > MAX_PLAN_BYTES:
        raise InputError(f"{name} is larger than {MAX_PLAN_BYTES >> 20} MB; no plan is")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not text in UTF-8 (byte {error.start}); save it as UTF-8") from None
    is_json = name.lower().endswith(".json") or (name == "-" and text.lstrip()[:1] in ("{", "["))
    return (Plan.loads(text), []) if is_json else parse_markup(text)


def _display(options: argparse.Namespace, notes: Sequence[str]) -> Display:
    display = Display(quiet=options.quiet, as_json=options.json)
    for note in notes:
        display.warn(note)
    return display


class _ScoreBars:
    """A bar per measurement."""

    def __init__(self):
        self._what, self._bar = "", None

    def __call__(self, what: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if what != self._what:
            self.close()
            self._what, self._bar = what, tqdm(total=total, desc=what, disable=None)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _warn_of_unknown_words(request: Request, display: Display) -> None:
    from .picturebook.vocabulary import known_words

    if warning := known_words(request.prompt).warning():
        display.warn(warning)


# ---- models


def _load_pair(options: argparse.Namespace) -> tuple[Planner, Visualizer]:
    """Planner and visualizer of a native model folder; the embedded picture-book pair without one."""
    from .planners.native import NativePlanner
    from .visualizers.native import NativeVisualizer

    model = _load_model(options)
    return NativePlanner(model), NativeVisualizer(model)


def _load_model(options: argparse.Namespace):
    import torch

    from .model.checkpoint import WeaverModel

    _silence_libraries()
    dtype = getattr(torch, options.dtype) if options.dtype else None
    try:
        device = torch.device(options.device) if options.device else None
        if device is not None:
            torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {options.device!r} cannot be used here: {reason}. Try --device cpu") from None
    return WeaverModel.from_pretrained(options.model, device=device, dtype=dtype)


def _silence_libraries() -> None:
    """Their bars and advice would run through the story's text."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _model_name(options: argparse.Namespace) -> str:
    return str(Path(options.model).resolve()) if options.model else ""


def _check_model(folder: StoryFolder, options: argparse.Namespace) -> None:
    """The folder says which model it was made with; it is named, never loaded without being asked for."""
    if folder.made_with and not options.model:
        raise InputError(
            f"{folder.folder} was made with the model in {folder.made_with}; give --model with that folder (or with "
            "another one, which draws every image anew)"
        )


# ---- arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="weaver",
        description="One prompt becomes an illustrated story: text and pictures that belong together.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"weaver {_version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    story = _command(commands, "story", _story, "weave a story from a prompt")
    _prompt_arguments(story)
    story.add_argument("--out", metavar="DIR", help="the story folder (default: stories/<the prompt's words>)")
    story.add_argument("--mode", choices=MODES, default=MODES[0],
                       help="plan-first writes the whole plan, then draws (default); closed-loop shows every image to the "
                       "planner before it writes on")
    _drawing_arguments(story)
    _size_arguments(story)
    _model_arguments(story)

    plan = _command(commands, "plan", _plan, "write a plan only; prints it as markup (--json: as JSON)")
    _prompt_arguments(plan)
    plan.add_argument("--out", metavar="FILE", help="write it to a file instead")
    _model_arguments(plan)

    render = _command(commands, "render", _render, "draw the images of a plan")
    render.add_argument("plan", metavar="PLAN", help="a file of markup (.md) or JSON (.json); - = standard input")
    render.add_argument("--out", metavar="DIR", help="the story folder; one that is there keeps the images that still fit "
                        "(default: stories/<the title>)")
    render.add_argument("--image", metavar="FILE", action="append", help="a picture to be consistent with (repeat it)")
    render.add_argument("--seed", type=int, help="decides everything left to chance (default: 0)")
    render.add_argument("--only", metavar="IDS", help="draw these images only, such as p2,p3")
    render.add_argument("--redraw-stale", action="store_true", help="draw anew what was drawn from older references")
    _drawing_arguments(render)
    _size_arguments(render)
    _model_arguments(render)

    resume = _command(commands, "resume", _resume, "go on with a story that was interrupted")
    resume.add_argument("folder", metavar="DIR", help="the story folder")
    resume.add_argument("--redraw-stale", action="store_true", help="draw anew what was drawn from older references")
    _model_arguments(resume)

    scores = _command(commands, "scores", _scores, "measure the picture-book model on held-out data")
    scores.add_argument("--quick", action="store_true", help="less data: a rough look")
    _model_arguments(scores)
    return parser


def _command(commands, name: str, run, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(run=run)
    parser.add_argument("--quiet", action="store_true", help="print nothing but the result and errors")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _prompt_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", metavar="PROMPT", help="what the story is about; - = standard input")
    parser.add_argument("--images", metavar="N", type=int, help="number of images (default: the planner decides)")
    parser.add_argument("--image", metavar="FILE", action="append", help="a picture to be consistent with (repeat it)")
    parser.add_argument("--seed", type=int, help="decides everything left to chance (default: another one each time)")
    parser.add_argument("--language", metavar="CODE", default="en", help="language of the story (default: en)")


def _drawing_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("drawing")
    group.add_argument("--steps", type=int, help="denoising steps per image")
    group.add_argument("--guidance", type=float, help="how strongly the dense prompt is followed; 1 = no guidance")
    group.add_argument("--reference-guidance", type=float, help="how strongly references are followed; 1 = no guidance")
    group.add_argument("--references", choices=POLICIES, default="auto",
                       help="auto: the cast's own pictures, the user's, or first appearances (default); user: the user's "
                       "only; none")


def _size_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", metavar="WxH", type=_size_argument, help="size of the images in pixels, such as 128x128")
    parser.add_argument("--aspect", metavar="W:H", type=_aspect_argument, help="aspect ratio of the images, such as 4:3")


def _model_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--model", "--planner", metavar="FOLDER", dest="model",
                       help="a model folder (default: the embedded picture-book model)")
    group.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    group.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="number format (default: by device)")


def _size_argument(text: str) -> tuple[int, int]:
    try:
        return check_size("size", read_size(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _aspect_argument(text: str) -> str:
    try:
        return check_aspect("aspect", text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("wan-weaver")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
