"""The strip editor: text and tiles follow each other, by mouse, by keyboard, under errors and under haste."""

from __future__ import annotations

import pytest
from composer import Composer
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser

START = "?pattern=mamba2 x2, attention"


@pytest.fixture
def composer(page: Page, quiet_dashboard: str) -> Composer:
    return Composer(page, quiet_dashboard, START)


def test_address_opens_the_stack_that_it_names(composer: Composer) -> None:
    assert composer.mixers() == ["mamba2", "mamba2", "attention"]


def test_pattern_is_not_checked_for_spelling(composer: Composer) -> None:
    expect(composer.text).to_have_attribute("spellcheck", "false")


def test_text_is_drawn_as_tiles(composer: Composer) -> None:
    composer.text.fill("every(3, attention, offset=1, base=gla) x6")
    expect(composer.tiles).to_have_count(6)
    assert composer.mixers() == ["gla", "attention", "gla", "gla", "attention", "gla"]


def test_unreadable_text_is_marked_at_its_column(composer: Composer) -> None:
    composer.text.fill("mamba2 x2, )")
    expect(composer.problem).to_contain_text("expected a mixer")
    expect(composer.problem.locator("mark")).to_have_text(")")
    assert composer.mixers() == ["mamba2", "mamba2", "attention"]


def test_unknown_mixer_is_named_with_a_suggestion(composer: Composer) -> None:
    composer.text.fill("atention x2")
    expect(composer.problem).to_contain_text("did you mean 'attention'?")


def test_dragging_a_tile_moves_its_layer(composer: Composer) -> None:
    composer.tiles.nth(2).drag_to(composer.tiles.nth(0), target_position={"x": 4, "y": 30})
    expect(composer.text).to_have_value("attention, mamba2 x2")


def test_dragging_from_the_palette_inserts_where_it_is_dropped(composer: Composer) -> None:
    composer.chip("gla").drag_to(composer.tiles.nth(1), target_position={"x": 4, "y": 30})
    expect(composer.text).to_have_value("mamba2, gla, mamba2, attention")


def test_feed_forward_is_dropped_on_one_layer(composer: Composer) -> None:
    composer.chip("mlp").drag_to(composer.tiles.nth(1))
    expect(composer.text).to_have_value("mamba2 x2, attention, ffn=(swiglu, mlp, swiglu)")


def test_keys_move_set_duplicate_delete_and_undo(composer: Composer) -> None:
    keys = composer.page.keyboard
    composer.tiles.nth(2).click()
    keys.press("Alt+ArrowLeft")
    expect(composer.text).to_have_value("mamba2, attention, mamba2")
    keys.press("Control+d")
    expect(composer.text).to_have_value("mamba2, attention x2, mamba2")
    keys.press("Delete")
    expect(composer.text).to_have_value("mamba2, attention, mamba2")
    keys.press("1")
    first = composer.page.locator(".cl-chip").first.get_attribute("data-name")
    expect(composer.tiles.nth(2)).to_have_attribute("data-mixer", first or "")
    for _ in range(4):
        keys.press("Control+z")
    expect(composer.text).to_have_value("mamba2 x2, attention")
    keys.press("Control+Shift+z")
    expect(composer.text).to_have_value("mamba2, attention, mamba2")


def test_focus_moves_without_the_selection(composer: Composer) -> None:
    keys = composer.page.keyboard
    composer.tiles.nth(0).click()
    keys.press("Control+ArrowRight")
    keys.press("Control+ArrowRight")
    expect(composer.tiles.nth(2)).to_be_focused()
    expect(composer.tiles.nth(2)).to_have_css("outline-style", "solid")
    expect(composer.chosen).to_have_count(1)
    keys.press(" ")
    expect(composer.tiles.nth(2)).to_be_focused()
    expect(composer.chosen).to_have_count(2)
    keys.press("Control+1")
    keys.press("Alt+1")
    assert composer.mixers() == ["mamba2", "mamba2", "attention"]


def test_escape_clears_the_selection_from_the_palette_too(composer: Composer) -> None:
    composer.tiles.nth(2).click()
    composer.chip("gla").click()
    expect(composer.text).to_have_value("mamba2 x2, gla")
    composer.page.keyboard.press("Escape")
    expect(composer.chosen).to_have_count(0)


def test_thirty_quick_edits_all_arrive(composer: Composer) -> None:
    for _ in range(30):
        composer.chip("gla").click()
    expect(composer.tiles).to_have_count(33)
    expect(composer.text).to_have_value("mamba2 x2, attention, gla x30")


def test_rule_is_applied_through_its_form(composer: Composer) -> None:
    composer.page.locator("[data-action=rule]").click()
    composer.page.get_by_label("Layers in a cycle").fill("4")
    composer.page.get_by_label("Number of layers").fill("8")
    composer.page.locator("[data-action=apply-rule]").click()
    expect(composer.text).to_have_value("(mamba2 x3, attention) x2")


def test_partial_cycle_is_refused_until_it_is_allowed(composer: Composer) -> None:
    composer.page.locator("[data-action=rule]").click()
    composer.page.get_by_label("Number of layers").fill("8")
    composer.page.locator("[data-action=apply-rule]").click()
    expect(composer.problem).to_contain_text("not a whole number of cycles")
    composer.page.get_by_label("Allow a partial cycle").check()
    composer.page.locator("[data-action=apply-rule]").click()
    expect(composer.tiles).to_have_count(8)


def test_option_is_written_into_the_text(composer: Composer) -> None:
    composer.tiles.nth(2).click()
    composer.option(0, "window").locator("input").fill("64")
    expect(composer.text).to_have_value("mamba2 x2, attention[window=64]")


def test_wrong_option_is_explained_beside_its_field(composer: Composer) -> None:
    composer.tiles.nth(2).click()
    composer.option(0, "window").locator("input").fill("0")
    expect(composer.option(0, "window").locator(".cl-field-error")).to_contain_text("greater than or equal to 1")
    expect(composer.tiles.nth(2)).to_have_class("cl-tile chosen bad")


def test_options_spread_to_all_layers_of_the_mixer(composer: Composer) -> None:
    composer.text.fill("(mamba2, attention) x2")
    composer.tiles.nth(1).click()
    composer.option(0, "window").locator("input").fill("64")
    composer.page.locator("[data-action=spread-mixer]").click()
    expect(composer.text).to_have_value("(mamba2, attention[window=64]) x2")


def test_setting_of_the_stack_is_kept_in_the_address(composer: Composer) -> None:
    composer.page.locator('[data-place="stack.d_model"] input').fill("64")
    composer.page.wait_for_url("**d_model=64**")
    again = Composer(composer.page, composer.page.url.split("/ui/")[0], "?" + composer.page.url.split("?")[1])
    expect(again.page.locator('[data-place="stack.d_model"] input')).to_have_value("64")
    assert again.mixers() == ["mamba2", "mamba2", "attention"]


def test_impossible_setting_is_explained_beside_its_field(composer: Composer) -> None:
    composer.page.locator('[data-place="stack.d_model"] input').fill("7")
    expect(composer.page.locator('[data-place="stack.d_model"] .cl-field-error')).to_be_visible()


def test_pinned_stack_is_compared_with_the_next(composer: Composer) -> None:
    expect(composer.card("params")).to_be_visible()
    composer.page.locator("[data-action=pin]").click()
    expect(composer.page.locator(".cl-pinned code")).to_have_text("mamba2 x2, attention")
    composer.text.fill("mamba2 x4, attention x2")
    expect(composer.page.locator('.cl-card[data-card="params"] .cl-delta')).to_contain_text("+")
    composer.page.locator("[data-action=unpin]").click()
    expect(composer.page.locator(".cl-pinned")).to_be_hidden()


def test_preset_replaces_the_stack_and_can_be_undone(composer: Composer) -> None:
    composer.page.get_by_label("Preset").select_option(label="Llama-style transformer")
    expect(composer.text).to_have_value("attention x6")
    composer.tool("Undo").click()
    expect(composer.text).to_have_value("mamba2 x2, attention")


def test_a_size_gives_the_preset_its_published_shapes(composer: Composer) -> None:
    composer.page.get_by_label("Preset").select_option(label="Mamba, no feed-forward")
    expect(composer.text).to_have_value("mamba x12, ffn=none")
    composer.page.get_by_label("Size", exact=True).select_option(label="130m")
    expect(composer.text).to_have_value("mamba x24, ffn=none")
    expect(composer.page.locator('[data-place="stack.d_model"] input')).to_have_value("768")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_is_cut_off_on_a_phone(page: Page, quiet_dashboard: str, theme: str) -> None:
    page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": 390, "height": 844})
    Composer(page, quiet_dashboard, START)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
