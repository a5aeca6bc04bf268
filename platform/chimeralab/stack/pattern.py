"""The pattern language: text → the expanded list of layers.

    entries  = entry {"," entry}
    entry    = item | ("ffn" | "first" | "last") "=" item
    item     = unit [("x" | "*") count]
    unit     = layer | "(" item {"," item} ")"
             | "every" "(" n "," layer {"," key "=" value} ")"        keys: offset, base, truncate
    layer    = mixer ["@" label ["+" "lora" "(" rank ")"]]
    mixer    = name ["[" option {"," option} "]"] | name "(" branch {"," branch} {"," option} ")"
    branch   = mixer [":" heads]
    option   = name "=" (number | "string" | true | false | none | name)

`every(3, attention, offset=2, base=mamba2) x12` is twelve layers with attention at 2, 5, 8 and 11, counted from 0.
The parser knows grammar only; whether a mixer exists and takes an option is `chimeralab.stack.resolve`'s to say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from chimeralab.stack.spec import MAX_LAYERS, MAX_LORA, LayerSpec
from chimeralab.stack.tokens import Token, instead, number, refusal, string, tokenise

DEFAULT_FFN = "swiglu"
AXES = ("ffn", "first", "last")
MAX_DEPTH = 64  # of groups in groups

_WORDS = {"true": True, "false": False, "none": None, "null": None}
T = TypeVar("T")


@dataclass(frozen=True)
class _Unit:
    """A named mixer or feed-forward with its options, and for a mixer the label of the layer that it shares."""

    name: str
    options: dict[str, Any]
    column: int
    share: str | None = None
    lora: int = 0

    def expand(self, length: int | None) -> list[_Unit]:
        return [self]


@dataclass(frozen=True)
class _Group:
    items: list[_Item]

    def expand(self, length: int | None) -> list[_Unit]:
        return [unit for item in self.items for unit in item.expand(None)]


@dataclass(frozen=True)
class _Every:
    period: int
    unit: _Unit
    base: _Unit
    offset: int
    truncate: bool
    column: int

    def expand(self, length: int | None) -> list[_Unit]:
        if length is None:
            raise refusal("say how many layers 'every' is spread over", self.column, "Write every(...) x12")
        if length > MAX_LAYERS:
            raise refusal(f"more than {MAX_LAYERS} layers", self.column)
        if length % self.period and not self.truncate:
            raise refusal(
                f"{length} layers are not a whole number of cycles of {self.period}",
                self.column,
                "Change the count, or allow a partial cycle with truncate=true",
            )
        if length <= self.offset:
            raise refusal(
                f"{self.unit.name!r} is never reached: it would first stand at layer {self.offset},"
                f" and there are {length} layers (from 0)",
                self.unit.column,
            )
        return [self.unit if i % self.period == self.offset else self.base for i in range(length)]


@dataclass(frozen=True)
class _Item:
    """A unit, group or rule, repeated; for a rule the count is the number of layers."""

    body: _Unit | _Group | _Every
    count: int | None
    column: int

    def expand(self, length: int | None) -> list[_Unit]:
        if isinstance(self.body, _Every):
            return self.body.expand(self.count if self.count is not None else length)
        units = self.body.expand(None)
        if len(units) * (self.count or 1) > MAX_LAYERS:
            raise refusal(f"more than {MAX_LAYERS} layers", self.column)
        return units * (self.count or 1)


def parse(text: str) -> tuple[LayerSpec, ...]:
    """The layers that `text` means.

    Raises:
        PatternError: with the column, and the layer where one is known.

    >>> [layer.mixer for layer in parse("(mamba2 x2, attention) x2")]
    ['mamba2', 'mamba2', 'attention', 'mamba2', 'mamba2', 'attention']
    """
    return _Parser(text).stack()


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens = tokenise(text)
        self.at = 0
        self.depth = 0
        self.end = len(text.rstrip()) + 1

    def stack(self) -> tuple[LayerSpec, ...]:
        items: list[_Item] = []
        axes: dict[str, _Item] = {}
        for entry in self.separated(self.entry, until=None):
            if isinstance(entry, tuple):
                axis, item = entry
                if axis in axes:
                    raise refusal(f"{axis}= is given twice", item.column)
                axes[axis] = item
            else:
                items.append(entry)
        before = axes["first"].expand(None) if "first" in axes else []
        after = axes["last"].expand(None) if "last" in axes else []
        mixers = before + [unit for item in items for unit in item.expand(None)] + after
        if not mixers:
            raise refusal("the stack has no layers", 1, "Write a mixer, for instance: attention x6")
        if len(mixers) > MAX_LAYERS:
            raise refusal(f"more than {MAX_LAYERS} layers", 1)
        ffns = _cycle(axes["ffn"], len(mixers)) if "ffn" in axes else [None] * len(mixers)
        return tuple(_layer(mixer, ffn) for mixer, ffn in zip(mixers, ffns, strict=True))

    def entry(self) -> _Item | tuple[str, _Item]:
        token = self.peek()
        if token.kind == "name" and self.peek(1).text == "=":
            if token.text not in AXES:
                raise refusal(f"unknown axis {token.text!r}", token.column, f"Known: {', '.join(AXES)}")
            self.at += 2
            return token.text, self.item()
        return self.item()

    def item(self) -> _Item:
        column = self.peek().column
        body = self.body()
        count: int | None = None
        token = self.peek()
        if token.kind == "repeat":
            self.at += 1
            count = int(number(token))
            if count == 0:
                raise refusal("a count of 0 leaves nothing", token.column)
        return _Item(body, count, column)

    def body(self) -> _Unit | _Group | _Every:
        token = self.peek()
        if token.text == "(" and token.kind == "mark":
            self.at += 1
            self.deeper(token.column)
            items = self.separated(self.item, until=")")
            self.depth -= 1
            if not items:
                raise refusal("an empty group", token.column)
            return _Group(items)
        if token.kind == "name" and token.text == "every" and self.peek(1).text == "(":
            return self.every()
        return self.unit()

    def unit(self) -> _Unit:
        token = self.peek()
        if token.kind == "repeat":
            raise refusal("a count that repeats nothing", token.column, "Put a mixer or a group before it")
        name = self.take("name", "a mixer")
        options = self.branches() if self.peek().text == "(" else self.options()
        return _Unit(name.text, options, name.column, *self.sharing())

    def sharing(self) -> tuple[str | None, int]:
        """`@label + lora(8)`, where it is written."""
        if self.peek().text == "+" and self.peek().kind == "mark":
            raise refusal("an adapter needs a shared layer", self.peek().column, "Write attention@name + lora(8)")
        if self.peek().text != "@" or self.peek().kind != "mark":
            return None, 0
        self.at += 1
        label = self.take("name", "the label of the shared layer").text
        if self.peek().text != "+" or self.peek().kind != "mark":
            return label, 0
        self.at += 1
        adapter = self.take("name", "lora(rank)")
        if adapter.text != "lora":
            raise refusal(f"unknown adapter {adapter.text!r}", adapter.column, "Write + lora(8)")
        self.mark("(")
        column = self.peek().column
        rank = self.whole("the adapter's rank")
        if not 1 <= rank <= MAX_LORA:
            raise refusal(f"the adapter's rank lies between 1 and {MAX_LORA}", column)
        self.mark(")")
        return label, rank

    def options(self) -> dict[str, Any]:
        if self.peek().text != "[":
            return {}
        self.at += 1
        return self.pairs(until="]", value=self.value)

    def branches(self) -> dict[str, Any]:
        """The options of a combinator: mixers in brackets, then settings."""
        column = self.peek().column
        self.at += 1
        self.deeper(column)
        branches: list[dict[str, Any]] = []
        settings: dict[str, Any] = {}

        def argument() -> None:
            name = self.peek()
            if name.kind == "name" and self.peek(1).text == "=":
                if name.text in settings or name.text == "branches":
                    raise refusal(f"{name.text!r} is given twice", name.column)
                self.at += 2
                settings[name.text] = self.value(name.text)
            elif settings:
                raise refusal("a branch after a setting", name.column, "Write the mixers first")
            else:
                branches.append(self.branch())

        self.separated(argument, until=")")
        self.depth -= 1
        if not branches:
            raise refusal("an empty group", column)
        return {"branches": branches, **settings}

    def branch(self) -> dict[str, Any]:
        unit = self.unit()
        if unit.share is not None:
            raise refusal("a branch cannot be shared by itself", unit.column, "Put the label after the closing bracket")
        branch: dict[str, Any] = {"mixer": unit.name, "options": unit.options}
        if self.peek().text == ":" and self.peek().kind == "mark":
            self.at += 1
            branch["heads"] = self.whole("a number of heads")
        return branch

    def deeper(self, column: int) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise refusal(f"groups nested more than {MAX_DEPTH} deep", column)

    def every(self) -> _Every:
        start = self.take("name", "every")
        self.at += 1  # (
        period = self.whole("how many layers make a cycle")
        if period < 1:
            raise refusal("a cycle has at least one layer", start.column)
        self.mark(",")
        unit = self.unit()
        settings: dict[str, Any] = {}
        if self.peek().text == ",":
            self.at += 1
            settings = self.pairs(until=")", value=self.rule_value)
        else:
            self.mark(")")
        unknown = settings.keys() - {"offset", "base", "truncate"}
        if unknown:
            known = "Known: offset, base, truncate"
            raise refusal(f"'every' has no setting {min(unknown)!r}", start.column, known)
        base = settings.get("base")
        if not isinstance(base, _Unit):
            raise refusal("'every' needs base=, the mixer of the other layers", start.column)
        offset = settings.get("offset", period - 1)
        if not isinstance(offset, int) or isinstance(offset, bool) or not 0 <= offset < period:
            raise refusal(f"offset must lie between 0 and {period - 1}", start.column)
        truncate = settings.get("truncate", False)
        if not isinstance(truncate, bool):
            raise refusal("truncate is true or false", start.column)
        return _Every(period, unit, base, offset, truncate, start.column)

    def rule_value(self, key: str) -> Any:
        return self.unit() if key == "base" else self.value(key)

    def pairs(self, until: str, value: Callable[[str], Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def pair() -> None:
            name = self.take("name", "an option's name")
            if name.text in found:
                raise refusal(f"{name.text!r} is given twice", name.column)
            self.mark("=")
            found[name.text] = value(name.text)

        self.separated(pair, until)
        return found

    def value(self, key: str) -> Any:
        token = self.peek()
        self.at += 1
        if token.kind == "number":
            return number(token)
        if token.kind == "name":
            return _WORDS.get(token.text.lower(), token.text)
        if token.kind == "string":
            return string(token)
        raise refusal(f"{key!r} needs a value, {instead(token)}", token.column)

    def whole(self, what: str) -> int:
        token = self.take("number", what)
        if not token.text.isdigit():
            raise refusal(f"expected {what}, {instead(token)}", token.column)
        return int(number(token))

    def separated(self, read: Callable[[], T], until: str | None) -> list[T]:
        """What `read` finds between commas, up to and with the mark `until` (None: the end of the text)."""
        found: list[T] = []
        while not self.closes(until):
            if found:
                self.mark(",", after=f"between entries or {until or 'the end'!r}")
                if self.closes(until):
                    break  # a trailing comma
            found.append(read())
        self.at += 1
        return found

    def closes(self, until: str | None) -> bool:
        token = self.peek()
        if token.kind == "end" and until is not None:
            raise refusal(f"missing {until!r}", token.column)
        return token.kind == "end" if until is None else token.kind == "mark" and token.text == until

    def peek(self, ahead: int = 0) -> Token:
        index = self.at + ahead
        return self.tokens[index] if index < len(self.tokens) else Token("end", "", self.end)

    def take(self, kind: str, what: str) -> Token:
        token = self.peek()
        if token.kind != kind:
            raise refusal(f"expected {what}, {instead(token)}", token.column)
        self.at += 1
        return token

    def mark(self, text: str, after: str = "") -> None:
        token = self.peek()
        if token.kind != "mark" or token.text != text:
            raise refusal(f"expected {text!r}{' ' + after if after else ''}, {instead(token)}", token.column)
        self.at += 1


def _cycle(item: _Item, layers: int) -> list[_Unit | None]:
    units = item.expand(layers)
    if layers % len(units):
        raise refusal(f"ffn= has {len(units)} entries, which do not go evenly into {layers} layers", item.column)
    return [*(units * (layers // len(units)))]


def _layer(mixer: _Unit, ffn: _Unit | None) -> LayerSpec:
    if ffn is not None and ffn.share is not None:
        raise refusal(
            "a label on a feed-forward", ffn.column, f"Put it on the mixer: {mixer.name}@{ffn.share} shares the layer"
        )
    name, options = (ffn.name, ffn.options) if ffn else (DEFAULT_FFN, {})
    return LayerSpec(
        mixer=mixer.name,
        options=mixer.options,
        ffn=name,
        ffn_options=options,
        share=mixer.share,
        lora=mixer.lora,
    )
