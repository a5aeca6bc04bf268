"""The page of sweeps: points with means over seeds, the figure, and cancelling; names are text."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from chimeralab import Lab, SweepSpec
from chimeralab.events import Metrics

pytestmark = pytest.mark.browser
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"


def test_a_sweep_is_shown_with_its_points_and_cancelled(page: Page, quiet_dashboard: str, quiet_lab: Lab) -> None:
    base = {"stack": {"pattern": "attention[heads=2]", "d_model": 16}, "task": {"name": "mqar"}}
    points = {HOSTILE: {"train.steps": 5}, "longer": {"train.steps": 9}}
    axes = {"train.lr": [0.01, 0.1], "length": points}
    sweep = quiet_lab.sweep(SweepSpec.read({"name": "shown", "base": base, "axes": axes, "seeds": [0, 1]}))
    for number, member in enumerate(quiet_lab.store.sweep_members(sweep)[:6], 1):
        attempt = quiet_lab.store.claim(member.run_id, 0)
        quiet_lab.store.begin(member.run_id, attempt, {})
        values = {"validation/accuracy": number / 10}
        quiet_lab.store.append(member.run_id, attempt, [Metrics(seq=1, step=1, tokens=1, seconds=1.0, values=values)])
        quiet_lab.store.finish(member.run_id, attempt, "completed")
    page.goto(f"{quiet_dashboard}/ui/sweeps?sweep=none")
    expect(page.locator("#sweeps .cl-message")).to_have_text("There is no sweep none")
    expect(page.locator("#sweeps .cl-table")).to_have_count(0)
    page.goto(f"{quiet_dashboard}/ui/sweeps?sweep=shown")
    rows = page.locator("#sweeps tbody tr")
    expect(rows).to_have_count(4)
    expect(rows.nth(0)).to_contain_text("0.15")
    expect(rows.nth(0)).to_contain_text(HOSTILE)
    expect(rows.nth(2).locator(".cl-best")).to_contain_text("0.55 [0.5, 0.6] n=2")
    expect(page.locator("#sweep-figure .cl-plot-area")).to_have_attribute("data-drawn", "1")
    expect(page.locator("#sweeps .cl-hint")).to_contain_text("active: 6 completed, 2 queued of 8 runs")
    page.locator("[data-control=axis]").select_option("length")
    expect(page).to_have_url(f"{quiet_dashboard}/ui/sweeps?sweep=shown&axis=length")
    page.evaluate("document.querySelectorAll('#sweeps tr, #sweeps option').forEach((node) => { node.kept = true; })")
    page.locator("[data-action=cancel-sweep]").click()
    expect(page.locator("#sweeps .cl-hint")).to_contain_text("cancelled: 2 cancelled, 6 completed of 8 runs")
    kept = "all => all.every((node) => node.kept)"
    assert page.locator("#sweeps tr").evaluate_all(kept)  # so that what is focused or open stays so
    assert page.locator("#sweeps option").evaluate_all(kept)
    assert quiet_lab.sweep_table("shown").status == "cancelled"
    assert page.locator("img[src=x]").count() == 0
    assert page.title() != "owned"
    page.goto(f"{quiet_dashboard}/ui/compare?runs={','.join(map(str, quiet_lab.sweep_table('shown').run_ids))}")
    over = page.locator("#compare-seeds tbody").first.locator("tr")
    expect(over).to_have_count(4)
    expect(over.nth(0)).to_contain_text("0.15 [0.1, 0.2] n=2")
