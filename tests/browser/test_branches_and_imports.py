"""Layers made of several mixers, layers used twice, and stacks of other libraries: by mouse and by text."""

from __future__ import annotations

import json

import pytest
from composer import Composer
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser


@pytest.fixture
def composer(page: Page, quiet_dashboard: str) -> Composer:
    return Composer(page, quiet_dashboard, "?pattern=mamba2 x2, attention")


def test_a_combined_layer_is_built_by_clicks_edited_and_undone(composer: Composer) -> None:
    composer.tiles.nth(2).click()
    composer.chip("parallel").click()
    expect(composer.text).to_have_value("mamba2 x2, parallel(attention, mamba2)")
    branches = composer.tiles.nth(2).locator(".cl-tile-branch")
    assert branches.evaluate_all("all => all.map(one => one.dataset.mixer)") == ["attention", "mamba2"]
    composer.page.get_by_label("Mixer of branch 1").select_option("gla")
    expect(composer.text).to_have_value("mamba2 x2, parallel(attention, gla)")
    composer.page.locator("[data-action=add-branch]").click()
    composer.page.get_by_label("Mixer of branch 2").select_option("short_conv")
    expect(composer.text).to_have_value("mamba2 x2, parallel(attention, gla, short_conv)")
    first = composer.page.locator('[data-branch="0"]')
    first.locator("summary").click()
    first.locator('[data-place="window"] input').fill("64")
    expect(composer.text).to_have_value("mamba2 x2, parallel(attention[window=64], gla, short_conv)")
    first.locator('[data-place="window"] input').fill("0")
    expect(first.locator('[data-place="window"] .cl-field-error')).to_contain_text("greater than or equal to 1")
    composer.tool("Undo").click()  # both numbers were typed in one field: one step
    expect(composer.text).to_have_value("mamba2 x2, parallel(attention, gla, short_conv)")
    composer.page.get_by_role("button", name="Remove this branch").nth(1).click()
    expect(composer.text).to_have_value("mamba2 x2, parallel(attention, short_conv)")
    for _ in range(5):
        composer.tool("Undo").click()
    expect(composer.text).to_have_value("mamba2 x2, attention")


def test_a_combined_layer_is_drawn_from_text(composer: Composer) -> None:
    composer.text.fill("parallel(heads(attention:1, gla:3), short_conv) x2")
    expect(composer.tiles).to_have_count(2)
    expect(composer.tiles.first.locator(".cl-tile-heads")).to_have_text(["1/4", "3/4"])
    composer.tiles.first.click()
    composer.page.get_by_label("Heads of branch 1").fill("7")
    expect(composer.text).to_have_value(
        "parallel(heads(attention:1, gla:7), short_conv), parallel(heads(attention:1, gla:3), short_conv)"
    )
    expect(composer.tiles.first.locator(".cl-tile-heads")).to_have_text(["1/8", "7/8"])


def test_a_shared_layer_is_marked_alike_and_edited_at_every_use(composer: Composer) -> None:
    composer.text.fill("attention@a + lora(8), mamba2, attention@a + lora(4)")
    marks = composer.page.locator("#stack .cl-tile-share")
    expect(marks).to_have_text(["a +8", "a +4"])
    colors = marks.evaluate_all("all => all.map(mark => getComputedStyle(mark).backgroundColor)")
    assert colors[0] == colors[1]
    composer.tiles.nth(0).click()
    composer.option(0, "window").locator("input").fill("64")
    expect(composer.text).to_have_value("attention[window=64]@a + lora(8), mamba2, attention[window=64]@a + lora(4)")
    composer.page.get_by_label("Rank of its adapter").fill("16")
    expect(composer.text).to_have_value("attention[window=64]@a + lora(16), mamba2, attention[window=64]@a + lora(4)")


def test_a_layer_is_shared_through_the_inspector(composer: Composer) -> None:
    composer.tiles.nth(0).click()
    composer.tiles.nth(1).click(modifiers=["Shift"])
    label = composer.page.get_by_label("Shared as", exact=True)
    label.fill("my layer")
    expect(composer.page.locator(".cl-use .cl-field-error")).to_contain_text("letters, digits and underscores")
    expect(label).to_have_attribute("aria-invalid", "true")
    label.fill("m")
    expect(composer.page.locator(".cl-use .cl-field-error")).to_be_hidden()
    expect(composer.text).to_have_value("mamba2@m x2, attention")


def test_a_pattern_is_shown_expanded_before_it_is_used(composer: Composer) -> None:
    dialog = composer.page.get_by_role("dialog")
    composer.page.locator("[data-action=import]").click()
    dialog.get_by_label("Pattern or config").fill("M-M*-M-M*-")
    expect(dialog.locator(".cl-tile")).to_have_count(6)
    expect(dialog.locator("code")).to_have_text("(mamba2 x2, attention) x2, ffn=(mlp, none, mlp)")
    expect(composer.text).to_have_value("mamba2 x2, attention")
    dialog.locator("[data-action=use-import]").click()
    expect(composer.text).to_have_value("(mamba2 x2, attention) x2, ffn=(mlp, none, mlp)")
    composer.tool("Undo").click()
    expect(composer.text).to_have_value("mamba2 x2, attention")


def test_a_config_file_brings_its_settings_and_notes(composer: Composer) -> None:
    config = {"model_type": "llama", "hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8}
    config |= {"intermediate_size": 1408}
    dialog = composer.page.get_by_role("dialog")
    composer.page.locator("[data-action=import]").click()
    dialog.get_by_label("Written for").select_option("hf")
    dialog.get_by_label("Open a file").set_input_files(
        [{"name": "config.json", "mimeType": "application/json", "buffer": json.dumps(config).encode()}]
    )
    expect(dialog.locator(".cl-tile")).to_have_count(4)
    expect(dialog).to_contain_text("d_model 512")
    dialog.locator("[data-action=use-import]").click()
    expect(composer.page.locator('[data-place="stack.d_model"] input')).to_have_value("512")
    expect(composer.tiles).to_have_count(4)


def test_an_unreadable_import_names_the_place_and_opens_no_file(composer: Composer) -> None:
    dialog = composer.page.get_by_role("dialog")
    composer.page.locator("[data-action=import]").click()
    text = dialog.get_by_label("Pattern or config")
    text.fill("M-Q*-")
    expect(dialog.locator("mark")).to_have_text("Q")
    expect(dialog.locator("[data-action=use-import]")).to_be_disabled()
    dialog.get_by_label("Written for").select_option("hf")
    text.fill(__file__)
    expect(dialog.get_by_role("alert")).to_contain_text("JSON")
    expect(dialog.locator("[data-action=use-import]")).to_be_disabled()
