"""A planner on this machine: any chat model that transformers can load, with pictures where the model can see.

`generate` runs with a streamer on a thread: so every family's caches and positions stay transformers' own business. It does
not wait for whoever listens: taking turns at every token (turns.py) made a small model half as slow again on a busy machine.
Closing stops it before the next token, and waits until it has. What a token is (grammar, temperature, seed) is decided
in one logits processor with a generator of its own: the same seed gives the same story, whatever else draws random numbers
meanwhile.
"""

from __future__ import annotations

import contextvars
import gc
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from ..errors import InputError, WeaverError, first_line
from ..out_of_memory import give_back, is_out_of_memory
from .instruction import VERSION, build_messages, count_images
from .stream_cleaning import ImageGate, StreamCleaner

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from ..request import Request
    from . import HistoryItem, PlannerOptions

LEAST_LIKELY = 0.05  # tokens below this share of the likeliest one are never drawn: the tail of a small model is noise
NOT_QUANTIZED = ["visual", "vision_tower", "vision_model", "multi_modal_projector", "lm_head"]  # small, and they suffer
CPU_BLOCK = (64, 32)  # bitsandbytes packs 4-bit weights on a CPU in blocks of so many inputs and outputs (0.50)
MARKUP_TOKENS = ("<imagine>", "</imagine>")
THOUGHT_OPEN = "<think>"
ON_CPU = "{}: the memory is full; the planner works on the CPU, which is slow. 4-bit weights or a smaller model may fit"

_POLL_S = 0.2  # a wait without a limit cannot be interrupted by Ctrl-C everywhere


class TransformersPlanner:
    """Writes plans with a chat model in this process. See `planners.Planner`.

    source         a folder, a .gguf file, or a name on the Hugging Face hub (fetched by transformers, safetensors only,
                   and no code of the model's own is ever run)
    device, dtype  None = CUDA where there is one, and bfloat16 there, float32 on a CPU
    quantization   None or "nf4" (bitsandbytes)
    lora           a PEFT adapter's folder
    uses_grammar   force well-formed markup with the wanted number of images (plan_grammar.py). Where the tokenizer is of a
                   kind that cannot be forced, the text is cleaned instead, and a note says so
    name           what messages call it, "" = the source (a host may have reasons not to show its folders)

    The model is loaded with the first plan, or by `load`; `unload` gives its memory back, and the next plan loads it again.
    `notes` are sentences about the last `write` for the user.

    Raises   InputError for a source or a LoRA that is not there, before anything is loaded
    """

    max_images = None

    def __init__(
        self,
        source: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        quantization: str | None = None,
        lora: str | Path | None = None,
        uses_grammar: bool = True,
        instruction: str = VERSION,
        name: str = "",
    ):
        if quantization not in (None, "nf4"):
            raise InputError(f"quantization is {quantization!r}; it must be 'nf4' or None")
        self.source, self.lora = str(source), None if lora is None else Path(lora)
        self.name = name or self.source
        self.device, self.dtype, self.quantization = device, dtype, quantization
        self.uses_grammar, self.instruction = uses_grammar, instruction
        self.notes: list[str] = []
        self._loaded: _Loaded | None = None
        self._told: list[str] = []  # notes of `load`, for the next `write`
        _located(self.source, self.name)
        if self.lora is not None:
            _check_lora(self.lora)

    def __repr__(self) -> str:
        return f"TransformersPlanner({self.name!r})"

    @property
    def model(self):
        """The transformers model (loaded now, if it is not yet), for hosts that move models themselves."""
        return self.load()._loaded.model

    def load(self) -> TransformersPlanner:
        """Loads the model. InputError when the source is none that can plan."""
        import torch

        if self._loaded is None:
            # Hosts run in inference mode; what is made in it cannot be changed on the thread that generates.
            with torch.inference_mode(False):
                try:
                    self._loaded = _load(self.source, self.name, self.device, self.dtype, self.quantization, self.lora)
                except Exception as error:
                    if not is_out_of_memory(error) or self.quantization:
                        raise
                if self._loaded is None:  # tried again after the handler, because the error holds what was loaded
                    give_back()
                    self._loaded = _load(self.source, self.name, "cpu", self.dtype, None, self.lora)
                    self._told.append(ON_CPU.format(self.name))
        return self

    def unload(self) -> None:
        """Gives the model's memory back."""
        import torch

        self._loaded = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def write(
        self, request: Request, history: tuple[HistoryItem, ...], *, options: PlannerOptions, cancel: Callable[[], bool]
    ) -> Iterator[str]:
        """Pieces of markup as they come. See `planners.Planner.write`."""
        loaded = self.load()._loaded
        self.notes[:] = self._told
        self._told.clear()
        part = _picture_part if loaded.sees_images else None
        messages = build_messages(request, history, options, version=self.instruction, picture_part=part)
        inputs, max_tokens = self._read(messages, options)
        uses_grammar = self.uses_grammar and loaded.vocabulary(self.notes) is not None

        def chooser() -> _Chooser:
            return _Chooser(self._grammar(request, history, options, max_tokens) if uses_grammar else None, options)

        tokens = self._tokens(inputs, chooser, max_tokens)
        pieces = _until(cancel, _Detokenizer(loaded.tokenizer).pieces(tokens))
        try:
            if uses_grammar:
                yield from pieces
            else:
                yield from self._cleaned(pieces, history, options)
        finally:
            tokens.close()

    def answer(
        self,
        question: str,
        images: Sequence[Image],
        *,
        options: PlannerOptions,
        cancel: Callable[[], bool],
        schema: dict | None = None,
    ) -> str:
        """See `planners.SeeingPlanner`. The schema is not forced."""
        loaded = self.load()._loaded
        if images and not loaded.sees_images:
            raise InputError(f"{self.name} cannot look at pictures; take a model that sees, such as Qwen3-VL")
        content = [*map(_picture_part, images), {"type": "text", "text": question}] if images else question
        inputs, max_tokens = self._read([{"role": "user", "content": content}], options)
        tokens, cleaner = self._tokens(inputs, lambda: _Chooser(None, options), max_tokens), StreamCleaner()
        with closing(tokens):
            text = "".join(map(cleaner.feed, _until(cancel, _Detokenizer(loaded.tokenizer).pieces(tokens))))
        return text + cleaner.close() + cleaner.refusal

    def _read(self, messages: list[dict], options: PlannerOptions) -> tuple[dict, int]:
        """The model's inputs for a conversation, and how many tokens may follow. InputError when it does not fit."""
        import torch

        loaded = self._loaded
        with torch.inference_mode(False):
            inputs = loaded.read(messages)
        room = loaded.room - inputs["input_ids"].shape[1]
        if room < 1:
            raise InputError(f"the planner would have to read {loaded.room - room:,} tokens, and {self.name} can hold "
                             f"{loaded.room:,}; shorten the prompt, or take a model with a longer context")
        return inputs, min(options.max_tokens, room)

    def _tokens(self, inputs: dict, chooser: Callable[[], _Chooser], max_tokens: int) -> Iterator[int]:
        """The answer's tokens; where the device has no room for the first one, they come from the CPU."""
        loaded, num_tokens = self._loaded, 0
        with closing(_generate(loaded, inputs, chooser(), max_tokens)) as tokens:
            try:
                for token in tokens:
                    num_tokens += 1
                    yield token
                return
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
        if num_tokens or self.quantization:
            raise WeaverError(f"{self.name}: the memory is full after {num_tokens} tokens; load it in 4 bits, ask for fewer "
                              "images, or take a smaller model")  # fmt: skip
        give_back()
        loaded.model.to("cpu")
        self.notes.append(ON_CPU.format(self.name))
        yield from _generate(loaded, {name: value.to("cpu") for name, value in inputs.items()}, chooser(), max_tokens)

    def _grammar(self, request: Request, history, options: PlannerOptions, max_tokens: int):
        from .plan_grammar import Machine, PlanGrammar, languages_for

        machine = Machine(
            pictures=[picture.name for picture in request.images],
            languages=languages_for(request),
            **({"aspects": ()} if request.size or request.wanted_aspect else {}),
        )
        return PlanGrammar(self._loaded.vocabulary([]), machine, num_images=options.num_images, max_tokens=max_tokens,
                           num_written=count_images(history), continued=bool(history))  # fmt: skip

    def _cleaned(self, pieces: Iterator[str], history, options: PlannerOptions) -> Iterator[str]:
        """Without the grammar: what is no plan is taken away, and what comes after the last wanted image."""
        cleaner, gate = StreamCleaner(continued=bool(history)), ImageGate(options.num_images)
        for piece in pieces:
            if text := gate.feed(cleaner.feed(piece)):
                yield text
            if gate.cut:
                self.notes.append(f"the planner went on after {gate.num_images} images; the rest is left out")
                return
        if text := gate.feed(cleaner.close()) + gate.close():
            yield text
        if cleaner.refusal and options.num_images != 0:
            raise WeaverError(f"{self.name} refused: \"{cleaner.refusal[:300]}\" Say it in other words, or take another model")


# ---- loading


class ChatText:
    """How a chat model reads conversations: by its tokenizer and, where it sees, its processor. The trainer reads through it too."""

    def __init__(self, tokenizer, processor):
        self.tokenizer, self.processor = tokenizer, processor
        self.sees_images = processor is not None

    @classmethod
    def open(cls, source: str | Path) -> ChatText:
        """Without loading the model. InputError when the source is no chat model."""
        name = str(source)
        where, from_gguf = _located(name, name)
        sees_images = _config_of(name, where, from_gguf).model_type in _seeing_kinds()
        return cls(*_read_text_parts(name, where, from_gguf, sees_images))

    def inputs(self, messages: list[dict]) -> dict:
        """The model's inputs for a conversation that it is to answer, on the CPU."""
        text = self._spelled(messages)
        # Models that always think are told that they have: a thought before every plan would be the longer part.
        if text.rstrip().endswith(THOUGHT_OPEN):
            text = text.rstrip() + "\n\n</think>\n\n"
        begins = self.tokenizer.bos_token is not None and text.startswith(self.tokenizer.bos_token)
        how = {"return_tensors": "pt", **({"add_special_tokens": False} if begins or not self.sees_images else {})}
        if self.processor is None:
            return dict(self.tokenizer(text, return_token_type_ids=False, **how))
        pictures = _pictures(messages)
        return dict(self.processor(text=[text], images=[pictures] if pictures else None, **how))

    def _spelled(self, messages: list[dict]) -> str:
        from jinja2 import TemplateError

        speaker = self.processor or self.tokenizer
        if self.sees_images:  # templates of seeing models want parts everywhere
            messages = [{**message, "content": _parts(message["content"])} for message in messages]
        how = {"tokenize": False, "add_generation_prompt": True}
        if "enable_thinking" in str(speaker.chat_template or self.tokenizer.chat_template):
            how["enable_thinking"] = False
        try:
            return speaker.apply_chat_template(messages, **how)
        except TemplateError:
            # Some families have no system role; what it says then stands before the first request.
            system, first, *rest = messages
            merged = {"role": "user", "content": _joined(system["content"], first["content"])}
            try:
                return speaker.apply_chat_template([merged, *rest], **how)
            except TemplateError as error:
                raise InputError(f"the model's chat template cannot spell the conversation: {error}; take another model") from None


class _Loaded(ChatText):
    """A model with what it reads by. `room` = the longest text that it can hold."""

    def __init__(self, model, tokenizer, processor, room: int):
        super().__init__(tokenizer, processor)
        self.model, self.room = model, room
        eos = model.generation_config.eos_token_id
        ids = eos if isinstance(eos, list) else [] if eos is None else [eos]
        self.eos = sorted({*ids, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])})
        self._vocabulary = None
        self._why_not = ""

    def vocabulary(self, notes: list[str]):
        """The vocabulary for the grammar, made once; None (and a note) where markup cannot be forced."""
        from .plan_grammar import Vocabulary

        if self._vocabulary is None and not self._why_not:
            try:
                size = self.model.get_output_embeddings().weight.shape[0]
                self._vocabulary = Vocabulary.of(self.tokenizer, eos=self.eos, size=size)
            except InputError as error:
                self._why_not = str(error)
        if self._why_not:
            notes.append(self._why_not)
        return self._vocabulary

    def read(self, messages: list[dict]) -> dict:
        """The model's inputs for a conversation, on its device."""
        device, dtype = self.model.device, self.model.dtype
        return {name: value.to(device, dtype if value.is_floating_point() else None) for name, value in self.inputs(messages).items()}


def _load(source: str, name: str, device, dtype, quantization: str | None, lora: Path | None) -> _Loaded:
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    if quantization:
        _need("4-bit weights", "bitsandbytes", "bnb")
        _need("4-bit weights", "accelerate", "bnb")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    where, from_gguf = _located(source, name)
    config = _config_of(name, where, from_gguf)
    sees_images = config.model_type in _seeing_kinds()
    kind = AutoModelForImageTextToText if sees_images else AutoModelForCausalLM
    how = {"dtype": dtype, "device_map": {"": device}} if quantization else {"dtype": dtype}
    if quantization:
        how["quantization_config"] = _nf4(dtype, _unpackable(kind, config) if device.type == "cpu" else ())
    if not from_gguf:
        how["use_safetensors"] = True
    tokenizer, processor = _read_text_parts(name, where, from_gguf, sees_images)
    try:
        model = kind.from_pretrained(where, trust_remote_code=False, **how, **from_gguf)
    except (OSError, ValueError) as error:
        raise InputError(f"{name} is not complete: {first_line(error).replace(where, name)}") from None
    if lora is not None:
        _add_lora(model, lora)
    model = (model if quantization else model.to(device)).eval()
    room = getattr(config.get_text_config(), "max_position_embeddings", None) or 1_000_000
    return _Loaded(model, tokenizer, processor, room)


def _config_of(name: str, where: str, from_gguf: dict):
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    try:
        config = AutoConfig.from_pretrained(where, trust_remote_code=False, **from_gguf)
    except (OSError, ValueError) as error:
        raise InputError(f"{name} holds no model that transformers can load: {first_line(error).replace(where, name)}") from None
    if config.model_type not in _seeing_kinds() and config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise InputError(f"{name} is a {config.model_type} model, which writes no text; take a chat model such as Qwen3-VL")
    return config


def _seeing_kinds():
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    return MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


def _read_text_parts(name: str, where: str, from_gguf: dict, sees_images: bool):
    """Tokenizer, and the processor of a model that sees."""
    from transformers import AutoProcessor, AutoTokenizer

    try:
        processor = AutoProcessor.from_pretrained(where, trust_remote_code=False) if sees_images else None
        tokenizer = processor.tokenizer if sees_images else AutoTokenizer.from_pretrained(where, trust_remote_code=False, **from_gguf)
    except (OSError, ValueError) as error:
        raise InputError(f"{name} is not complete: {first_line(error).replace(where, name)}") from None
    if (processor or tokenizer).chat_template is None and tokenizer.chat_template is None:
        raise InputError(f"{name} has no chat template, so it is no chat model; take its instruct or chat version")
    return tokenizer, processor


def _located(source: str, name: str) -> tuple[str, dict]:
    """What `from_pretrained` takes: a folder or a hub name, and the file in it where it is a .gguf."""
    path = Path(source).expanduser()
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise InputError(f"{name} is a file; give the model's folder, or a .gguf file")
        _need("a .gguf file", "gguf", "gguf")
        return str(path.parent), {"gguf_file": path.name}
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f"{name} holds no config.json; give the folder of a transformers model")
        return str(path), {}
    if source.count("/") == 1 and not source.startswith((".", "/", "~")):
        return source, {}
    raise InputError(f"{name} is neither a folder nor a name on the Hugging Face hub (such as Qwen/Qwen3-VL-4B-Instruct)")


def _nf4(dtype: torch.dtype, unpackable: Sequence[str] = ()):
    from transformers import BitsAndBytesConfig

    # Names are matched from the start of a module's full name ("model.visual.blocks..."), so each is given with any beginning too.
    names = [*NOT_QUANTIZED, *unpackable]
    whole = [*names, *(rf"(?:.*\.)?{name}" for name in names)]
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                              bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=whole)  # fmt: skip


def _unpackable(kind, config) -> list[str]:
    """Names of linear layers that do not fit bitsandbytes' blocks on a CPU, such as the narrow gates of Qwen3.5; they stay whole."""
    import torch
    from accelerate import init_empty_weights

    with init_empty_weights():
        model = kind.from_config(config, trust_remote_code=False)
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)]
    odd = {name.rpartition(".")[2] for name, layer in layers if layer.in_features % CPU_BLOCK[0] or layer.out_features % CPU_BLOCK[1]}
    return sorted(odd - set(NOT_QUANTIZED))


def _check_lora(folder: Path) -> None:
    if not (folder / "adapter_config.json").is_file() or not (folder / "adapter_model.safetensors").is_file():
        raise InputError(f"{folder} is no LoRA folder; it must hold adapter_config.json and adapter_model.safetensors")


def _add_lora(model, folder: Path) -> None:
    _need("a LoRA", "peft", "lora")
    _check_lora(folder)
    try:
        json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        model.load_adapter(str(folder))
    except (ValueError, RuntimeError, KeyError) as error:
        raise InputError(f"the LoRA in {folder} does not fit the model: {first_line(error)}") from None


def _need(what: str, library: str, extra: str) -> None:
    from importlib.util import find_spec

    if find_spec(library) is None:
        raise ImportError(f'{what} needs {library}: pip install "wan-weaver[{extra}]"')


def _picture_part(image: Image) -> dict:
    return {"type": "image", "image": image}


def _parts(content: str | list) -> list[dict]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _joined(system: str | list, first: str | list) -> str | list:
    if isinstance(system, str) and isinstance(first, str):
        return f"{system}\n\n{first}"
    return [*_parts(system), *_parts(first)]


def _pictures(messages: list[dict]) -> list[Image]:
    return [part["image"].convert("RGB") for message in messages for part in _parts(message["content"]) if part["type"] == "image"]


# ---- writing


class _Chooser:
    """The logits processor that decides the next token: every other one gets minus infinity."""

    def __init__(self, grammar, options: PlannerOptions):
        from .plan_grammar import GrammarLogits

        self._grammar = None if grammar is None else GrammarLogits(grammar)
        self._temperature, self._seed, self._generator = options.temperature, options.seed % 2**63, None

    def __call__(self, input_ids, scores):
        import torch

        if self._grammar is not None:
            scores = self._grammar(input_ids, scores)
        if self._temperature == 0:
            return scores
        if self._generator is None:
            self._generator = torch.Generator(scores.device).manual_seed(self._seed)
        probability_BV = torch.softmax(scores.float() / self._temperature, -1)
        likely_BV = probability_BV >= LEAST_LIKELY * probability_BV.amax(-1, keepdim=True)
        token_B1 = torch.multinomial(probability_BV * likely_BV, 1, generator=self._generator)
        return torch.full_like(scores, float("-inf")).scatter_(1, token_B1, 0.0)


class _Streamer:
    """Hands on every new token of `generate` (which first gives it the prompt)."""

    def __init__(self, told: SimpleQueue, stopped: threading.Event):
        self._told, self._stopped, self._is_prompt = told, stopped, True

    def put(self, ids) -> None:
        if self._stopped.is_set():
            raise _Stopped
        if self._is_prompt:
            self._is_prompt = False
            return
        self._told.put(int(ids.reshape(-1)[0]))

    def end(self) -> None:
        pass


class _Stopped(BaseException):
    """Raised inside of `generate` when nobody listens any more; not an Exception, so that nobody swallows it."""


def _generate(loaded: _Loaded, inputs: dict, chooser: _Chooser, max_tokens: int) -> Iterator[int]:
    """The tokens of the answer, the last one that ends it not among them."""
    from transformers import GenerationConfig, LogitsProcessorList

    config = GenerationConfig(max_new_tokens=max_tokens, do_sample=False, eos_token_id=loaded.eos,
                              pad_token_id=loaded.tokenizer.pad_token_id if loaded.tokenizer.pad_token_id is not None
                              else loaded.eos[0])  # fmt: skip

    told: SimpleQueue[int | BaseException | None] = SimpleQueue()
    stopped = threading.Event()

    def run() -> None:
        end = None
        try:
            loaded.model.generate(**inputs, generation_config=config, logits_processor=LogitsProcessorList([chooser]),
                                  streamer=_Streamer(told, stopped))  # fmt: skip
        except BaseException as error:
            end = error
        told.put(end)

    # The host's context variables (which node is running, for one) hold in the thread too.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name="weaver-planner", daemon=True)
    thread.start()
    try:
        while True:
            try:
                token = told.get(timeout=_POLL_S)
            except Empty:
                continue
            if isinstance(token, BaseException):
                raise token
            if token is None or token in loaded.eos:
                return
            yield token
    finally:
        stopped.set()
        while thread.is_alive():
            thread.join(timeout=_POLL_S)


class _Detokenizer:
    """Tokens as text, piece by piece; a character whose bytes are not all there yet waits.

    A token's text may depend on the one before it (SentencePiece drops the first space), so it is the difference of two
    short texts.
    """

    _MOST_PENDING = 16  # bytes that never become a character do not hold back the rest

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer
        shown = {id for id in tokenizer.all_special_ids if tokenizer.convert_ids_to_tokens(id) in MARKUP_TOKENS}
        self._hidden = set(tokenizer.all_special_ids) - shown

    def pieces(self, tokens: Iterator[int]) -> Iterator[str]:
        before, pending = [], []
        for token in tokens:
            if token in self._hidden:
                yield ""
                continue
            pending.append(token)
            text = self._decode(before, pending)
            if text.endswith("\ufffd") and len(pending) < self._MOST_PENDING:
                yield ""  # so that whoever listens can stop here too
                continue
            before, pending = pending, []
            yield text
        if pending:
            yield self._decode(before, pending)

    def _decode(self, before: list[int], pending: list[int]) -> str:
        def text(ids: list[int]) -> str:
            return self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

        return text(before + pending)[len(text(before)):] if before else text(pending)


def _until(cancel: Callable[[], bool], pieces: Iterator[str]) -> Iterator[str]:
    """Pieces that are not empty; between tokens it is asked whether to stop."""
    for piece in pieces:
        if piece:
            yield piece
        if cancel():
            return
