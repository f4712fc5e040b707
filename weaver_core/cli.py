"""The command line: `weaver story`, `plan`, `render`, `resume`, `export`, `doctor`, `scores`, `eval`."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .cast import Cast, load_cast
from .critic import Critic
from .errors import Cancelled, InputError, WeaverError
from .plan import Plan, parse_markup
from .planner_arguments import add_planner_arguments, critic_of, own_planner, planner_options, silence_imports, silence_libraries
from .planners import Planner, PlannerOptions
from .references import POLICIES
from .request import ReferenceImage, RenderSettings, Request
from .segments import check_aspect, check_size
from .spelling import read_size
from .story import StoryFolder, fresh_folder, slug
from .story_files import MODES
from .terminal import Display
from .visualizers import Visualizer
from .visualizers.diffusers_command import add_visualizer_arguments, own_visualizer, visualizer_name
from .weave import PlanReady, weave, weave_plan, write_plan

OK, ERROR, USAGE, INCOMPLETE, INTERRUPTED = 0, 1, 2, 3, 130
STORIES = Path("stories")
MAX_PLAN_BYTES = 256 * 2**20

_EPILOG = """\
examples:
  weaver story "A small orange fox finds a kite on the beach" --images 4
  weaver story "This is Robin. He goes to the castle." --image robin.png --seed 7 --out robins-day
  weaver plan "A blue rabbit in the snow" --images 3 > plan.md     write the plan, edit it, then
  weaver render plan.md --out rabbit                               draw it
  weaver resume rabbit                                             go on after Ctrl-C or a crash
  weaver story "..." --planner-url http://localhost:11434 --planner-model qwen3-vl:8b     planned by your own model;
                                                            with --critic it also looks at every image that is drawn
  weaver render plan.md --visualizer ~/models/FLUX.2-klein-4B --quantize nf4               drawn by your own image model
  weaver export rabbit --format pdf,epub                           a book to print and one to read

exit codes: 0 everything done, 1 error, 2 wrong usage, 3 done but some images are missing, 130 interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. Errors for the user go to standard error, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a story must not fail on a terminal that cannot show a letter
    silence_imports()
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
    if options.model is None and not (options.visualizer and (options.planner or options.planner_url)):
        _warn_of_unknown_words(request, display)
    how = planner_options(options)
    writer = own_planner(options)
    critic = critic_of(options, writer)
    if options.mode == "closed-loop" and writer is not None and options.visualizer is None:
        if critic is None:
            raise InputError("in the closed loop the visualizer's own planner writes; leave --planner or --mode out")
        writer = None
    planner, visualizer = _load_pair(options, writer)
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
        return _finish(folder, display, _woven(request, writer, planner, visualizer, folder, critic, how))


def _plan(options: argparse.Namespace) -> int:
    request, notes = _request(options, options.prompt)
    display = _display(options, notes)
    how = planner_options(options)
    planner = own_planner(options)
    if planner is None:
        if options.model is None:
            _warn_of_unknown_words(request, display)
        planner, _ = _load_native_pair(options)
    plan = None
    for event in write_plan(request, planner, options=how):
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
    judge = own_planner(options)
    critic = critic_of(options, judge)
    if judge is not None and critic is None:
        raise InputError("the plan is there already, so a planner has nothing to write; add --critic to have it look at the images")
    planner, visualizer = _load_pair(options, None, has_plan=True)
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
            critic=critic,
        )
        return _finish(folder, display, events)


def _resume(options: argparse.Namespace) -> int:
    with StoryFolder.open(options.folder) as folder:
        display = _display(options, folder.warnings)
        _check_model(folder, options)
        request = folder.request
        writer = own_planner(options)
        critic = critic_of(options, writer)
        planner, visualizer = _load_pair(options, writer, has_plan=folder.plan is not None)
        if folder.plan is not None:
            events = weave_plan(
                folder.plan, visualizer, planner=planner, request=request, story=folder,
                redraw_stale=options.redraw_stale, critic=critic,
            )  # fmt: skip
        else:
            events = _woven(request, writer, planner, visualizer, folder, critic, planner_options(options))
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


def _woven(
    request: Request, writer: Planner | None, planner: Planner, visualizer: Visualizer, folder: StoryFolder, critic: Critic | None,
    options: PlannerOptions,
):  # fmt: skip
    """The events of a story that `writer` plans, if there is one; the visualizer's own planner then only reads the plan."""
    if writer is None or folder.mode == "closed-loop":
        yield from weave(request, planner, visualizer, story=folder, critic=critic, options=options)
        return
    plan = None
    for event in write_plan(request, writer, story=folder, options=options):
        if isinstance(event, PlanReady):
            plan = event.plan  # weave_plan tells it
        else:
            yield event
    if critic is None and hasattr(writer, "unload"):
        writer.unload()
    yield from weave_plan(plan, visualizer, planner=planner, request=request, story=folder, critic=critic)


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
    known = Cast()
    for folder in getattr(options, "cast", None) or ():
        known = known.joined(load_cast(folder))
    request, more = Request(
        prompt=prompt,
        images=known.pictures + tuple(images),
        cast=known.members,
        style=getattr(options, "style", ""),
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

    names = ("steps", "guidance", "reference_guidance", "check_images", "max_references")
    return replace(otherwise, **{name: given(name) for name in names})


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


def _load_pair(options: argparse.Namespace, writer: Planner | None, *, has_plan: bool = False) -> tuple[Planner | None, Visualizer]:
    """What draws, and the planner that belongs to it or, for an image model of the user's own, writes for it.

    Such a model needs no planner beside a plan; without `writer` the embedded one writes.
    """
    visualizer = own_visualizer(options)
    if visualizer is None:
        return _load_native_pair(options)
    return (writer if writer is not None or has_plan else _load_native_pair(options)[0]), visualizer


def _load_native_pair(options: argparse.Namespace) -> tuple[Planner, Visualizer]:
    """Planner and visualizer of a native model folder; the embedded picture-book pair without one."""
    from .planners.native import NativePlanner
    from .visualizers.native import NativeVisualizer

    model = _load_model(options)
    if getattr(options, "lora", None) and options.visualizer is None:
        from .model.lora import with_loras
        from .visualizers.diffusers_folder import Lora

        loras = [Lora.read(text) for text in options.lora]
        model = with_loras(model, [(lora.path, lora.strength) for lora in loras])
    return NativePlanner(model), NativeVisualizer(model)


def _load_model(options: argparse.Namespace):
    import torch

    from .model.checkpoint import WeaverModel

    silence_libraries()
    dtype = getattr(torch, options.dtype) if options.dtype else None
    try:
        device = torch.device(options.device) if options.device else None
        if device is not None:
            torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {options.device!r} cannot be used here: {reason}. Try --device cpu") from None
    return WeaverModel.from_pretrained(options.model, device=device, dtype=dtype)


def _model_name(options: argparse.Namespace) -> str:
    """What a story folder keeps of the model and its LoRAs; nothing for the embedded pair as it is."""
    if options.visualizer is not None:
        model = f"the image model {visualizer_name(options)}"
    else:
        model = f"the model in {Path(options.model).resolve()}" if options.model else ""
    return f"{model or 'the embedded model'} and the LoRA {', '.join(options.lora)}" if options.lora else model


def _check_model(folder: StoryFolder, options: argparse.Namespace) -> None:
    """The folder says which model it was made with; it is named, never loaded without being asked for."""
    if folder.made_with and not (options.model or options.visualizer or options.lora):
        raise InputError(
            f"{folder.folder} was made with {folder.made_with}; give it again (--model for a Weaver model, --visualizer for an image "
            "model of your own, --lora), or another one, which draws every image anew"
        )


# ---- arguments


def _parser() -> argparse.ArgumentParser:
    from .doctor_command import HELP as DOCTOR_HELP
    from .doctor_command import add_doctor_arguments, run_doctor
    from .evaluation.cli import add_eval_parser
    from .export.command import HELP, add_export_arguments, run_export

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
    add_visualizer_arguments(story)
    add_planner_arguments(story, draws=True)

    plan = _command(commands, "plan", _plan, "write a plan only; prints it as markup (--json: as JSON)")
    _prompt_arguments(plan)
    plan.add_argument("--out", metavar="FILE", help="write it to a file instead")
    _model_arguments(plan)
    add_planner_arguments(plan, draws=False)

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
    add_visualizer_arguments(render)
    add_planner_arguments(render, draws=True, writes=False)

    resume = _command(commands, "resume", _resume, "go on with a story that was interrupted")
    resume.add_argument("folder", metavar="DIR", help="the story folder")
    resume.add_argument("--redraw-stale", action="store_true", help="draw anew what was drawn from older references")
    _model_arguments(resume)
    add_visualizer_arguments(resume)
    add_planner_arguments(resume, draws=True)

    scores = _command(commands, "scores", _scores, "measure the picture-book model on held-out data")
    scores.add_argument("--quick", action="store_true", help="less data: a rough look")
    _model_arguments(scores)

    add_export_arguments(_command(commands, "export", run_export, HELP))
    add_eval_parser(commands)
    add_doctor_arguments(_command(commands, "doctor", run_doctor, DOCTOR_HELP))
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
    parser.add_argument("--style", metavar="TEXT", default="", help='how all images shall look, such as "watercolour, soft light"')
    parser.add_argument("--cast", metavar="DIR", action="append", help="a saved cast, whose characters the story knows (repeat it)")


def _drawing_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("drawing")
    group.add_argument("--steps", type=int, help="denoising steps per image")
    group.add_argument("--guidance", type=float, help="how strongly the dense prompt is followed; 1 = no guidance")
    group.add_argument("--reference-guidance", type=float, help="how strongly references are followed; 1 = no guidance")
    group.add_argument("--references", choices=POLICIES, default="auto",
                       help="what images are drawn from where the plan does not say. "
                       + "; ".join(f"{name}: {what}" for name, what in POLICIES.items()))
    group.add_argument("--max-references", metavar="N", type=int, help="references per image (default: as many as the model takes)")
    group.add_argument("--check-images", action=argparse.BooleanOptionalAction, default=None,
                       help="draw an image that is blank, a grid of panels or a copy once more (default: do)")


def _size_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", metavar="WxH", type=_size_argument, help="size of the images in pixels, such as 128x128")
    parser.add_argument("--aspect", metavar="W:H", type=_aspect_argument,
                        help="aspect ratio of the images, such as 4:3; else as the prompt says ('three wide pictures')")


def _model_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--model", metavar="FOLDER",
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
