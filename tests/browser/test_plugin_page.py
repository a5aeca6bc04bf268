"""Plugins: what each provides, with its options and where it comes from."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser


def test_plugins_show_what_they_provide_with_options_and_source(page: Page, quiet_dashboard: str) -> None:
    page.goto(f"{quiet_dashboard}/ui/plugins")
    mixers = page.locator('[data-plugin="mixers"]')
    expect(mixers).to_contain_text("active")
    mixers.locator(".cl-parts > summary").click()
    mamba = mixers.locator('[data-name="mamba2"]')
    expect(mamba.get_by_role("link")).to_have_attribute("href", "https://arxiv.org/abs/2405.21060")
    mamba.locator("summary").click()
    expect(mamba.locator(".cl-options")).to_contain_text("head_dim = ")
    expect(page.locator('[data-plugin="kernels"] li[data-name="attention"]')).to_contain_text("reference, torch")


def test_a_study_says_what_it_asks(page: Page, quiet_dashboard: str) -> None:
    page.goto(f"{quiet_dashboard}/ui/plugins")
    study = page.locator('[data-plugin="studies"] li[data-name="mad"]')
    expect(study).to_contain_text("Which mixers recall, copy, compress and memorise")
    expect(study).to_contain_text("arXiv 2403.17844")


def test_long_names_and_defaults_leave_room_for_what_is_said_of_them(page: Page, quiet_dashboard: str) -> None:
    page.goto(f"{quiet_dashboard}/ui/plugins")
    tasks = page.locator('[data-plugin="tasks"]')
    tasks.locator(".cl-parts > summary").click()
    task = tasks.locator('[data-name="mqar_mixed"]')
    task.locator("summary").click()
    places = "all => all.map((node) => node.getBoundingClientRect().toJSON())"
    options = task.locator(".cl-options").evaluate_all(places)[0]
    for told in task.locator("dd").evaluate_all(places):
        assert told["width"] > options["width"] / 2
    title, name = (task.locator(f".cl-provided-name {part}").evaluate_all(places)[0] for part in ("strong", "code"))
    assert name["top"] - title["bottom"] < 10


def test_an_option_whose_description_tells_its_default_is_not_called_null(page: Page, quiet_dashboard: str) -> None:
    page.goto(f"{quiet_dashboard}/ui/plugins")
    options = page.locator('[data-plugin="mixers"] [data-name="attention"] .cl-options')
    expect(options.locator("dt").first).to_have_text("heads")
    expect(options).not_to_contain_text("null")
