"""The main journey: compose by mouse, see the cost, launch two runs, watch one learn, compare both."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from composer import Composer
from playwright.sync_api import Page, expect

from chimeralab import Lab

pytestmark = [pytest.mark.browser, pytest.mark.cluster, pytest.mark.either_store]

POINTS = """() => {
    const curve = document.querySelector('#run-curve .cl-plot-area')?.data?.[0];
    return curve ? curve.x.length : 0;
}"""
MINUTE = 60_000


def test_compose_launch_watch_and_compare(page: Page, dashboard: str, lab: Lab, pictures: Path) -> None:
    composer = Composer(page, dashboard)

    # Attention at every third layer, by clicks and drags.
    composer.clear()
    composer.chip("mamba2").click()
    composer.chip("mamba2").click()
    composer.chip("attention").drag_to(composer.page.locator(".cl-tile-add"))
    composer.select_all()
    composer.tool("Duplicate").click()
    expect(composer.text).to_have_value("(mamba2 x2, attention) x2")
    assert composer.mixers() == ["mamba2", "mamba2", "attention"] * 2
    large = composer.card("params").inner_text()
    composer.page.locator('[data-place="stack.d_model"] input').fill("64")
    expect(composer.card("params")).not_to_have_text(large)
    expect(page.locator("#state-curve .main-svg").first).to_be_visible()
    hybrid = _launch(composer, "Hybrid")

    # The same depth of attention alone; pinned, the hybrid's cost is shown against it.
    composer.select_all()
    composer.chip("attention").click()
    expect(composer.text).to_have_value("attention x6")
    attention = _launch(composer, "Transformer")
    page.locator("[data-action=pin]").click()
    composer.tool("Undo").click()
    expect(composer.text).to_have_value("(mamba2 x2, attention) x2")
    expect(page.locator('.cl-card[data-card="params"] .cl-delta')).to_be_visible()
    expect(page.locator("#state-curve .scatterlayer .trace")).to_have_count(2)
    composer.tiles.nth(2).click()
    page.evaluate("window.scrollTo(0, 0)")
    page.screenshot(path=pictures / "compose.png")

    # The live curve moves.
    page.goto(f"{dashboard}/ui/run?id={hybrid}")
    expect(page.locator("#run-head h1")).to_have_text("Hybrid")
    page.wait_for_function(f"({POINTS})() > 1", timeout=2 * MINUTE)
    before = page.evaluate(POINTS)
    page.wait_for_function(f"({POINTS})() > {before}", timeout=MINUTE)
    lab.wait([hybrid, attention], timeout=240)
    expect(page.locator("#run-head .cl-status")).to_have_text("completed", timeout=MINUTE)

    # Both, side by side.
    page.goto(f"{dashboard}/ui/runs?text=r")
    for run in (hybrid, attention):
        page.get_by_label(f"Select run {run}", exact=True).check()
    page.locator("[data-action=compare]").click()
    page.wait_for_url("**/ui/compare?runs=*")
    rows = page.locator("#compare tbody tr")
    expect(rows).to_have_count(2)
    for run in (hybrid, attention):
        measured = _measured(page, run)
        assert all(value != "–" for value in measured.values()), measured
    expect(page.locator("#compare-curves .scatterlayer .trace")).to_have_count(4)
    expect(page.locator("#compare-pareto .scatterlayer .trace").first).to_be_visible()
    expect(page.locator("#compare-profile .scatterlayer .trace")).to_have_count(2)
    page.screenshot(path=pictures / "compare.png", full_page=True)


def _launch(composer: Composer, name: str) -> int:
    """Fill in the form, launch, and return the id of the run that the link leads to."""
    form = {
        "name": name,
        "task.options.sequence_length": "64",
        "train.steps": "100",
        "train.batch_size": "4",
        "train.lr": "0.003",
    }
    folded = {
        "task.options.max_bytes": "300000",
        "task.options.validation_tokens": "4096",
        "train.log_every": "2",
        "train.eval_every": "20",
        "train.eval_batches": "4",
        "train.sample_tokens": "24",
    }
    folds = composer.page.locator("#launch details > summary").all()[:2]
    for fold in folds:
        fold.click()
    for place, value in (form | folded).items():
        composer.field(place).locator("input").fill(value)
    for fold in folds:
        fold.click()
    composer.page.locator("[data-action=launch]").click()
    link = composer.page.locator("#launch .cl-message a").first
    expect(link).to_contain_text(name, timeout=MINUTE)
    return int((link.get_attribute("href") or "").split("id=")[1])


def _measured(page: Page, run: int) -> dict[str, str]:
    """What the table of Compare shows of a run: quality, speed and memory by column title."""
    titles = page.locator("#compare thead th").all_inner_texts()
    deadline = time.monotonic() + 30
    while True:
        cells = page.locator(f'#compare tbody tr[data-id="{run}"] td').all_inner_texts()
        shown = dict(zip(titles, cells, strict=True))
        wanted = {title: shown[title] for title in titles[2:-1]}
        if "–" not in wanted.values() or time.monotonic() > deadline:
            return wanted
        time.sleep(0.5)
