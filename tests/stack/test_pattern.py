"""The pattern language: what text means, what is said of text that means nothing, and the way back."""

from __future__ import annotations

import contextlib
import random
import re
import sys
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chimeralab.errors import PatternError
from chimeralab.stack import LayerSpec, parse, to_text

MEANS = {
    "attention": ["attention"],
    "attention, mamba2": ["attention", "mamba2"],
    "attention,mamba2,": ["attention", "mamba2"],
    "attention x3": ["attention"] * 3,
    "attention*3": ["attention"] * 3,
    "attention × 3": ["attention"] * 3,
    "(mamba2 x2, attention) x2": ["mamba2", "mamba2", "attention"] * 2,
    "((a, b) x2, c) x2": ["a", "b", "a", "b", "c"] * 2,
    "every(3, attention, offset=2, base=mamba2) x6": ["mamba2", "mamba2", "attention"] * 2,
    "every(3, attention, base=mamba2) x6": ["mamba2", "mamba2", "attention"] * 2,
    "every(3, attention, offset=0, base=mamba2) x6": ["attention", "mamba2", "mamba2"] * 2,
    "every(2, a, base=b, truncate=true) x3": ["b", "a", "b"],
    "(every(2, a, base=b) x2, c) x2": ["b", "a", "c"] * 2,
    "first=attention, last=gla, hyena x2": ["attention", "hyena", "hyena", "gla"],
    "hyena, first=(a, b) x2": ["a", "b", "a", "b", "hyena"],
    "every x2, first": ["every", "every", "first"],
    "\n  attention \t x 2 \n": ["attention"] * 2,
}


@pytest.mark.parametrize(("text", "mixers"), MEANS.items())
def test_text_expands_to_its_layers(text: str, mixers: list[str]) -> None:
    assert [layer.mixer for layer in parse(text)] == mixers


def test_every_third_of_twelve_stands_at_2_5_8_and_11() -> None:
    layers = parse("every(3, attention, offset=2, base=mamba2) x12")
    assert [i for i, layer in enumerate(layers) if layer.mixer == "attention"] == [2, 5, 8, 11]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("512", 512),
        ("-3", -3),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1e-3", 1e-3),
        ("2.", 2.0),
        ("true", True),
        ("False", False),
        ("none", None),
        ("null", None),
        ("silu", "silu"),
        ('"a, b]"', "a, b]"),
        ('"\\u00e9\\n"', "é\n"),
        ('"true"', "true"),
    ],
)
def test_an_option_has_the_value_and_the_type_that_was_written(text: str, value: Any) -> None:
    (layer,) = parse(f"attention[window={text}]")
    assert repr(layer.options) == repr({"window": value})


def test_options_belong_to_every_repeat_of_their_layer() -> None:
    windowed, full = parse("attention[window=512, kv_heads=1] x5, attention")[4:]
    assert windowed.options == {"window": 512, "kv_heads": 1}
    assert full.options == {}


def test_a_combinator_holds_its_branches_in_order() -> None:
    (layer,) = parse("parallel(attention[window=8], mamba2, fuse=mean_norm)")
    assert layer.mixer == "parallel"
    assert layer.options == {
        "branches": [{"mixer": "attention", "options": {"window": 8}}, {"mixer": "mamba2", "options": {}}],
        "fuse": "mean_norm",
    }


def test_heads_are_counted_by_branch() -> None:
    (layer,) = parse("heads(attention:4, mamba2[head_dim=16]:12)")
    assert [(branch["mixer"], branch["heads"]) for branch in layer.options["branches"]] == [
        ("attention", 4),
        ("mamba2", 12),
    ]


def test_combinators_nest_repeat_and_are_shared() -> None:
    layers = parse("(parallel(heads(a:1, b:3), c)@s + lora(2) x2, d) x2")
    assert [layer.mixer for layer in layers] == ["parallel", "parallel", "d"] * 2
    assert layers[0].options["branches"][0]["options"]["branches"][1] == {"mixer": "b", "options": {}, "heads": 3}
    assert layers[0].lora == 2


def test_a_label_and_an_adapter_belong_to_one_use() -> None:
    layers = parse("(mamba2 x2, attention[window=8]@a + lora(4)) x2, attention@b")
    uses = [(layer.share, layer.lora) for layer in layers]
    assert uses == [(None, 0), (None, 0), ("a", 4), (None, 0), (None, 0), ("a", 4), ("b", 0)]


@pytest.mark.parametrize(
    ("axis", "ffns"),
    [
        ("mlp", ["mlp"] * 4),
        ("(mlp, none)", ["mlp", "none", "mlp", "none"]),
        ("none x2", ["none"] * 4),
        ("(none, mlp x3)", ["none", "mlp", "mlp", "mlp"]),
        ("every(2, moe, offset=1, base=swiglu)", ["swiglu", "moe", "swiglu", "moe"]),
    ],
)
def test_feed_forwards_are_an_axis_of_their_own(axis: str, ffns: list[str]) -> None:
    assert [layer.ffn for layer in parse(f"(a, b) x2, ffn={axis}")] == ffns


def test_a_feed_forward_has_options_too() -> None:
    layers = parse("a x2, ffn=every(2, moe[experts=8, top_k=2], offset=1, base=swiglu)")
    assert [layer.ffn_options for layer in layers] == [{}, {"experts": 8, "top_k": 2}]


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("parallel(attention, mamba2", 27, "missing ')'"),
        ("parallel()", 9, "an empty group"),
        ("parallel(fuse=sum)", 9, "an empty group"),
        ("parallel(a, fuse=sum, b)", 23, "a branch after a setting. Write the mixers first"),
        ("parallel(a, b, fuse=sum, fuse=mean)", 26, "'fuse' is given twice"),
        ("parallel(a, branches=b)", 13, "'branches' is given twice"),
        ("parallel(a@s, b)", 10, "a branch cannot be shared by itself"),
        ("parallel(a x2, b)", 12, "expected ',' between entries or ')'"),
        ("heads(a:, b:2)", 9, "expected a number of heads, not ','"),
        ("heads(a:1.5, b:2)", 9, "expected a number of heads, not '1.5'"),
        ("p(" * 5000, 130, "groups nested more than 64 deep"),
        ("attention@", 11, "expected the label of the shared layer, but the text ends"),
        ("attention@3", 11, "expected the label of the shared layer, not '3'"),
        ("attention + lora(8)", 11, "an adapter needs a shared layer. Write attention@name + lora(8)"),
        ("attention@a + laura(8)", 15, "unknown adapter 'laura'"),
        ("attention@a + lora", 19, "expected '(', but the text ends"),
        ("attention@a + lora(0)", 20, "the adapter's rank lies between 1 and 4096"),
        ("attention@a + lora(x)", 20, "expected the adapter's rank, not 'x'"),
        ("attention, ffn=mlp@a", 16, "a label on a feed-forward. Put it on the mixer: attention@a"),
        ("", 1, "the stack has no layers. Write a mixer"),
        ("ffn=mlp", 1, "the stack has no layers"),
        (" , ", 2, "expected a mixer, not ','"),
        ("attention,, mamba2", 11, "expected a mixer, not ','"),
        ("attention mamba2", 11, "expected ',' between entries"),
        ("attention $", 11, "unexpected '$'"),
        ("attention x0", 11, "a count of 0 leaves nothing"),
        ("x3", 1, "a count that repeats nothing"),
        ("attention x2 x3", 14, "expected ','"),
        ("attention x1025", 1, "more than 1024 layers"),
        ("(a x1000, b x1000)", 1, "more than 1024 layers"),
        ("a x1000, b x1000", 1, "more than 1024 layers"),
        ("every(1, a, base=b) x999999999", 1, "more than 1024 layers"),
        ("attention x" + "9" * 5000, 11, "this number is too large"),
        ("a[b=1e999]", 5, "this number is too large"),
        ("(attention", 11, "missing ')'"),
        ("()", 1, "an empty group"),
        ("attention)", 10, "expected ','"),
        ("(" * 5000, 65, "groups nested more than 64 deep"),
        ("attention[window", 17, "expected '=', but the text ends"),
        ("attention[window=]", 18, "'window' needs a value, not ']'"),
        ("attention[window=", 18, "'window' needs a value, but the text ends"),
        ("attention[window=1, window=2]", 21, "'window' is given twice"),
        ("attention[3=1]", 11, "expected an option's name, not '3'"),
        ('a[b="\\q"]', 5, "is not a string as JSON writes them"),
        ('a[b="open]', 5, "unexpected"),
        ("ffm=mlp, attention", 1, "unknown axis 'ffm'. Known: ffn, first, last"),
        ("attention, ffn=mlp, ffn=none", 25, "ffn= is given twice"),
        ("attention x3, ffn=(mlp, none)", 19, "2 entries, which do not go evenly into 3 layers"),
        ("every(3, attention, base=mamba2)", 1, "say how many layers 'every' is spread over. Write every(...) x12"),
        ("every(3, attention, base=mamba2) x4", 1, "4 layers are not a whole number of cycles of 3. Change the count"),
        ("every(3, attention, offset=3, base=mamba2) x6", 1, "offset must lie between 0 and 2"),
        ("every(3, attention, offset=2, base=b, truncate=true) x2", 10, "'attention' is never reached"),
        ("every(3, attention) x6", 1, "'every' needs base="),
        ("every(3, attention, base=b, start=1) x6", 1, "'every' has no setting 'start'. Known: offset, base, truncate"),
        ("every(3, attention, base=b, truncate=no) x4", 1, "truncate is true or false"),
        ("every(0, attention, base=b) x6", 1, "a cycle has at least one layer"),
        ("every(k, attention, base=b) x6", 7, "expected how many layers make a cycle, not 'k'"),
        ("every(-3, attention, base=b) x6", 7, "expected how many layers make a cycle, not '-3'"),
    ],
)
def test_text_that_means_nothing_is_refused_with_its_column(text: str, column: int, message: str) -> None:
    with pytest.raises(PatternError, match=re.escape(f"column {column}: ") + ".*" + re.escape(message)) as caught:
        parse(text)
    assert caught.value.column == column


# A name such as x4 is a count wherever a layer could stand, so no mixer can have it.
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: not re.fullmatch(r"x\d+", name)
)
values = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=12)
    | st.sampled_from(["true", "None", "NULL", "x4", "inf", "1", "", "a b", '"', "\\", "]", "é", "\u2028"])
)
options = st.dictionaries(names, values, max_size=3)


def combinators(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Options of a mixer that holds mixers with `inner` options."""
    branch = st.builds(
        lambda mixer, options, heads: {"mixer": mixer, "options": options, **({"heads": heads} if heads else {})},
        names,
        inner,
        st.integers(0, 99),
    )
    held = st.lists(branch, min_size=1, max_size=2)
    return st.builds(lambda branches, settings: {"branches": branches, **settings}, held, options)


mixer_options = options | combinators(options | combinators(options))
sharing = st.just({}) | st.fixed_dictionaries({"share": names}, optional={"lora": st.integers(0, 4096)})
units = st.builds(
    lambda shared, **parts: LayerSpec(**parts, **shared),
    sharing,
    mixer=names,
    options=mixer_options,
    ffn=names | st.just("swiglu"),
    ffn_options=options,
)
stacks = st.lists(st.sampled_from(["a", "b"]).map(lambda name: LayerSpec(mixer=name)), min_size=1, max_size=24)
mixed = st.lists(units, min_size=1, max_size=3).flatmap(
    lambda few: st.lists(st.sampled_from(few), min_size=1, max_size=12)
)


@settings(deadline=None)
@given(stacks | mixed)
@example([LayerSpec(mixer="a", options={"b": "x4"})])
@example([LayerSpec(mixer="a", ffn_options={"bias": True})])
def test_text_made_from_layers_reads_back_as_those_layers(layers: list[LayerSpec]) -> None:
    assert repr(parse(to_text(layers))) == repr(tuple(layers))  # repr tells 1, 1.0 and True apart


@settings(deadline=None)
@given(st.text(max_size=60) | st.text('ax3(),[]="\\.-e every ffn=first*\n@+lora:', max_size=60))
@example('a[b="\\q"]')
@example('a[b="\t"]')
@example("x" + "9" * 5000)
def test_no_text_raises_anything_but_a_pattern_error(text: str) -> None:
    with contextlib.suppress(PatternError):
        assert parse(text)


@pytest.mark.parametrize(
    ("mixers", "text"),
    [
        (["a"] * 1024, "a x1024"),
        (["a", "b", "b"] * 4, "(a, b x2) x4"),
        (["a", "a", "b"], "a x2, b"),
        (["c", "a", "b", "a", "b"], "c, (a, b) x2"),
    ],
)
def test_text_is_as_short_as_repeats_make_it(mixers: list[str], text: str) -> None:
    assert to_text([LayerSpec(mixer=name) for name in mixers]) == text


@pytest.mark.parametrize("kinds", [2, 3, 1024])
def test_the_calls_to_write_and_read_a_stack_grow_as_its_layers_do(kinds: int) -> None:
    def calls(count: int) -> int:
        draws = random.Random(0)
        layers = [LayerSpec(mixer=f"m_{draws.randrange(kinds)}") for _ in range(count)]
        made = 0

        def note(frame: object, event: str, argument: object) -> None:
            nonlocal made
            made += event in ("call", "c_call")

        before = sys.getprofile()
        sys.setprofile(note)
        try:
            read = parse(to_text(layers))
        finally:
            sys.setprofile(before)
        assert list(read) == layers
        return made

    assert calls(1024) < 2.5 * calls(512)
