"""What chat models put around a plan, taken away while it streams: thoughts, greetings, code fences, farewells.

Only what surely is no story goes; when in doubt it stays. Where a decision needs more text than has come, the text waits;
so where the stream is cut makes no difference, and nothing that was handed on is ever wanted back. The work grows with the
length of the answer only: text is looked at in chunks, and what waits is looked at again when it has grown by a quarter.
"""

from __future__ import annotations

import re
from collections import deque

THOUGHTS = "think|thinking|thought|reasoning|reflection"
MAX_LINE_END = 400  # greetings, fences and rules are short lines
MAX_FAREWELL = 600  # characters; also the most that waits to see whether the answer ends there
MAX_TOKEN_NAME = 40
CHUNK = 4096  # characters

_OPEN_THOUGHT = re.compile(rf"<({THOUGHTS})>", re.IGNORECASE)
_CLOSE_THOUGHT = re.compile(rf"</({THOUGHTS})>", re.IGNORECASE)
_MARKUP = re.compile(r"<(?:imagine|cast|story|text)(?=[\s/>])", re.IGNORECASE)
_FENCE = re.compile(r"(?:```+|~~~+)[ \t]*(?:[\w.+-]+[ \t]*)?\Z")
_RULE = re.compile(r"(?:-{3,}|\*{3,}|_{3,}|={3,})[ \t]*\Z")
_CONTROL_TOKEN = re.compile(rf"<\|[A-Za-z0-9_ -]{{1,{MAX_TOKEN_NAME}}}\|>|</s>|<(?:end_of_turn|eos)>")
_MAYBE_TAG = re.compile(rf"<(?:\|[A-Za-z0-9_ -]{{0,{MAX_TOKEN_NAME}}}\|?|/?[A-Za-z_]{{0,11}})\Z")

# First words of what is said before a story. They only make a line suspicious; what follows it decides.
_GREETING = re.compile(
    r"(?:sure|certainly|of course|absolutely|okay|ok|great|here is|here's|here’s|here are|below is|i'd be happy|i'll|"
    r"好的|当然|没问题|以下是|下面是|这是|gerne|natürlich|klar|hier ist|hier kommt|selbstverständlich|"
    r"bien sûr|voici|d'accord|claro|por supuesto|aquí)(?=\W|[\u4e00-\u9fff])", re.IGNORECASE)  # fmt: skip
_THINKING_ALOUD = re.compile(
    r"(?:okay, (?:so|the user|let|i need)|ok, (?:so|the user|let|i need)|alright, (?:so|the user|let|i need)|hmm|the user |"
    r"let me think|let's think|thinking process|we need to|we are asked|first, i need|嗯|好的，用户|用户)", re.IGNORECASE)  # fmt: skip
_REFUSAL = re.compile(
    r"(?:i(?:['’]m| am) (?:so |very |really )?(?:sorry|unable|not able)|(?:i )?apologi[sz]e|my apologies|sorry, (?:but|i)|"
    r"i (?:can(?:no|['’])t|can not|won['’]t|must decline|have to decline)|as an ai|unfortunately, i|"
    r"抱歉|对不起|很抱歉|非常抱歉|我无法|我不能|作为(?:一个)?人工智能|(?:es )?tut mir leid|ich kann (?:das|diese|dir|ihnen)|"
    r"je suis désolé|désolé|lo siento|no puedo)", re.IGNORECASE)  # fmt: skip
# First words to the user about the answer; what a character may as well say to another ("I hope you", "if you'd like") is none.
_FAREWELLS = (
    "let me know if", "is there anything else", "would you like me to", "if you'd like me to", "if you would like me to",
    "if you'd like any changes", "feel free to ask for", "feel free to ask if", "feel free to let me know", "enjoy your story",
    *(f"{hope} you {like} {what} story" for hope in ("hope", "i hope") for like in ("enjoy", "enjoyed", "like", "liked")
      for what in ("the", "this", "your")),
    "i hope you enjoy it", "hope you enjoy it", "i hope this story", "i hope this helps", "希望你喜欢这个故事", "希望您喜欢这个故事",
    "希望你喜欢这篇", "希望您喜欢这篇", "希望这个故事", "希望这篇", "如果你需要我", "如果您需要我", "sag mir bescheid, wenn",
    "sag mir bescheid, falls", "lass es mich wissen, wenn", "lass es mich wissen, falls", "ich hoffe, die geschichte gefällt",
    "ich hoffe, dir gefällt die geschichte",
    "n'hésite pas à me", "n'hésitez pas à me", "j'espère que l'histoire", "j'espère que cette histoire",
    "espero que te guste la historia", "espero que te guste el cuento", "espero que te guste esta historia",
)  # fmt: skip
LONGEST_OPENER = 40  # characters after which no pattern above can begin to match any more


class StreamCleaner:
    """`feed(piece)` and `close()` return the text that surely belongs to the plan; joined they are the cleaned answer.

    thinking    the model has begun to think before its first word (its template opened the tag)
    continued   the answer goes on with a story, so a refusal is no more expected than any other sentence

    `refusal` holds the answer, after `close`, when it was a refusal (nothing of it is returned then). `has_thought` tells
    that thoughts were taken away.
    """

    def __init__(self, *, thinking: bool = False, continued: bool = False):
        self.refusal = ""
        self.has_thought = False
        self._continued = continued
        self._buffer = ""
        self._unread: deque[str] = deque()  # what comes behind the buffer
        self._num_unread = 0
        self._state = "thought" if thinking else "start"  # start -> body <-> farewell, body -> after; thought comes between any
        self._return_to = "start"
        self._fenced = False  # the whole answer stands in a fence
        self._line_start = True

    def feed(self, piece: str) -> str:
        for start in range(0, len(piece), CHUNK):
            self._unread.append(piece[start : start + CHUNK])
        self._num_unread += len(piece)
        return self._run(final=False)

    def close(self) -> str:
        return self._run(final=True)

    def _run(self, *, final: bool) -> str:
        out: list[str] = []
        while self._read_on(final):
            out += self._steps(final=False)
        return "".join(out + self._steps(final=True) if final else out)

    def _steps(self, *, final: bool) -> list[str]:
        """What of the buffer is plan for sure."""
        steps = {"start": self._start, "thought": self._thought, "body": self._body, "farewell": self._farewell,
                 "after": self._after}  # fmt: skip
        out = []
        while (text := steps[self._state](final and not self._unread)) is not None or (final and self._read_on(final)):
            out.append(text or "")
        return out

    def _read_on(self, final: bool) -> bool:
        """Puts more text into the buffer; False when there is none, or too little to look at a long one again."""
        wanted = len(self._buffer) // 4 if len(self._buffer) >= CHUNK else 1
        if not self._unread or (self._num_unread < wanted and not final):
            return False
        taken, length = [], 0
        while self._unread and length < wanted:
            taken.append(self._unread.popleft())
            length += len(taken[-1])
        self._num_unread -= length
        self._buffer += "".join(taken)
        return True

    def _go_on_with(self, text: str) -> None:
        """Makes this the text to look at, the first chunk of it at first."""
        self._buffer, rest = text[:CHUNK], range(CHUNK, len(text), CHUNK)
        self._unread.extendleft(text[start : start + CHUNK] for start in reversed(rest))
        self._num_unread += max(0, len(text) - CHUNK)

    # Each step takes something from the buffer and returns what of it is plan, or returns None: more text is needed.

    def _thought(self, final: bool) -> str | None:
        self.has_thought = True
        if found := _CLOSE_THOUGHT.search(self._buffer):
            self._go_on_with(self._buffer[found.end():])
            self._state = self._return_to
            return ""
        if len(self._buffer) > 16:
            self._buffer = self._buffer[-16:]  # a closing tag may have begun
        return self._end() if final else None

    def _start(self, final: bool) -> str | None:
        text = self._buffer.lstrip()
        if not text:
            return self._end()
        if found := _OPEN_THOUGHT.match(text):
            self._think(text[found.end():])
            return ""
        if token := _CONTROL_TOKEN.match(text):
            self._go_on_with(text[token.end():])
            return ""
        if not final and _MAYBE_TAG.match(text):
            return None
        if text[0] == "#" or _MARKUP.match(text):
            return self._begin(text)
        line, newline, rest = text.partition("\n")
        complete = bool(newline) or final
        is_short = len(line) <= MAX_LINE_END
        if is_short and text[0] in "`~-*_=" and (_FENCE.match(line) or _RULE.match(line) or (not complete and len(line) < LONGEST_OPENER)):
            if not complete:
                return None
            self._fenced = self._fenced or bool(_FENCE.match(line))
            self._buffer = rest
            return ""
        if not complete and len(line) < LONGEST_OPENER:
            return None
        if _THINKING_ALOUD.match(text) and not self._continued:
            return self._wait_for_thought(text, final)
        if _REFUSAL.match(text) and not self._continued:
            return self._wait_for_refusal(text, final)
        if _GREETING.match(text):
            return self._wait_for_greeting(text, final)
        return self._begin(text)

    def _begin(self, text: str) -> str:
        self._state = "body"
        self._go_on_with(text)
        return ""

    def _think(self, rest: str) -> None:
        self._return_to, self._state = self._state, "thought"
        self._go_on_with(rest)

    def _wait_for_thought(self, text: str, final: bool) -> str | None:
        """Thoughts without their opening tag; they are thoughts only if they are closed."""
        if found := _CLOSE_THOUGHT.search(text):
            self.has_thought = True
            self._go_on_with(text[found.end():])
            return ""
        if not final:
            return None
        return self._wait_for_greeting(text, final) if _GREETING.match(text) else self._begin(text)

    def _wait_for_refusal(self, text: str, final: bool) -> str | None:
        if _MARKUP.search(text) or re.search(r"^#", text, re.MULTILINE):
            return self._begin(text)
        if final:
            self.refusal, self._buffer = text.strip(), ""
            return self._end()
        return None

    def _wait_for_greeting(self, text: str, final: bool) -> str | None:
        """A greeting goes if it ends with a colon, or if the plan begins after it."""
        line, newline, rest = text.partition("\n")
        if len(line) > MAX_LINE_END:
            return self._begin(text)
        if not newline and not final:
            return None
        following = rest.lstrip()
        if line.rstrip().endswith((":", "：")):
            self._go_on_with(rest)
            return ""
        if not following and not final:
            return None
        if not final and (_MAYBE_TAG.match(following) or set(following) <= set("`~-*_=")):
            return None
        if following[:1] == "#" or following[:3] in ("```", "~~~", "---") or _MARKUP.match(following):
            self._go_on_with(following)
            return ""
        return self._begin(text)

    def _body(self, final: bool) -> str | None:
        if not self._buffer:
            return None
        if self._line_start and (done := self._whole_line(final)) is not _NOTHING_SPECIAL:
            return done
        found = re.search(r"[<\n]", self._buffer)
        if found is None:
            return self._take(len(self._buffer))
        if found.start():
            return self._take(found.start())
        if self._buffer[0] == "\n":
            self._line_start = True
            return self._take(1, line_start=True)
        return self._angle(final)

    def _take(self, length: int, *, line_start: bool = False) -> str:
        text, self._buffer = self._buffer[:length], self._buffer[length:]
        self._line_start = line_start
        return text

    def _angle(self, final: bool) -> str | None:
        """At a '<': a thought, a token that should not be seen, or anything else."""
        if token := _CONTROL_TOKEN.match(self._buffer) or _CLOSE_THOUGHT.match(self._buffer):
            self._buffer = self._buffer[token.end():]
            return ""
        if thought := _OPEN_THOUGHT.match(self._buffer):
            self._think(self._buffer[thought.end():])
            return ""
        if not final and _MAYBE_TAG.match(self._buffer):
            return None
        return self._take(1)

    def _whole_line(self, final: bool):
        """Lines that go as a whole: fences and rules; a farewell may. None = more text is needed."""
        line, newline, rest = self._buffer.partition("\n")
        text = line.lstrip(" \t")
        complete = bool(newline) or final
        if not text:
            return _NOTHING_SPECIAL if complete else None
        if text[0] in "`~-*_=" and len(text) <= MAX_LINE_END:
            if not complete and (_FENCE.match(text) or _RULE.match(text) or set(text) <= set("`~-*_=")):
                return None
            if _FENCE.match(text):
                self._buffer = rest
                if self._fenced and not text.rstrip().strip("`~"):
                    self._state = "after"
                return ""
            if _RULE.match(text):
                self._buffer = rest
                return ""
        if _is_farewell(text):
            self._state = "farewell"
            return ""
        return None if not complete and _may_be_farewell(text) else _NOTHING_SPECIAL

    def _farewell(self, final: bool) -> str | None:
        """From a farewell on: dropped when the answer ends there; where a story goes on after it, it was part of the story."""
        if len(self._buffer) <= MAX_FAREWELL and not _MARKUP.search(self._buffer):
            text = _CONTROL_TOKEN.sub("", self._buffer)
            if not final:
                text = _MAYBE_TAG.sub("", text)
            *lines, last = [line.lstrip() for line in text.split("\n")]
            if not (last and not final and _may_be_farewell(last)):
                lines.append(last)
            if all(_is_farewell(line) for line in lines if line):
                return self._end() if final else None
        self._state = "body"
        return self._take(1)

    def _after(self, final: bool) -> str | None:
        """Behind the closing fence: dropped at the end, unless the plan goes on."""
        if _MARKUP.search(self._buffer):
            self._state, self._fenced = "body", False
            self._go_on_with(self._buffer)
            return self._take(1)
        return self._end() if final else None

    def _end(self) -> None:
        self._buffer = ""
        return None


_NOTHING_SPECIAL = object()


def _is_farewell(line: str) -> bool:
    return _first_words(line).startswith(_FAREWELLS)


def _may_be_farewell(line: str) -> bool:
    """Whether the line may become one, as far as it has come."""
    words = _first_words(line)
    return any(farewell.startswith(words) for farewell in _FAREWELLS)


def _first_words(line: str) -> str:
    return line[:LONGEST_OPENER].lower().replace("’", "'")


class ImageGate:
    """Lets a plan through until it has all its images: what would begin another one, and all after it, stays out.

    `num_images` counts the images that are complete, `inside` tells that one is open, `cut` that something was kept out.
    """

    _TAG = re.compile(r"<(/?)imagine(?=[\s/>])", re.IGNORECASE)
    _MAYBE = re.compile(r"</?i?m?a?g?i?n?e?\Z", re.IGNORECASE)

    def __init__(self, num_images: int | None):
        self._most = num_images
        self._buffer = ""
        self.num_images = 0
        self.inside = False
        self.cut = False

    def feed(self, piece: str) -> str:
        if self.cut:
            return ""
        text, position = self._buffer + piece, 0
        for tag in self._TAG.finditer(text):
            if tag[1] == "/":
                self.num_images += self.inside
                self.inside = False
            else:
                self.num_images += self.inside  # the parser ends a dense prompt where another one begins
                self.inside = True
                if self._most is not None and self.num_images >= self._most:
                    self.cut, self.inside, self._buffer = True, False, ""
                    return text[:tag.start()]
            position = tag.end()
        maybe = self._MAYBE.search(text, position)
        hold = maybe.start() if maybe else len(text)
        self._buffer = text[hold:]
        return text[:hold]

    def close(self) -> str:
        text, self._buffer = self._buffer, ""
        return text
