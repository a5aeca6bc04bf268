"""The page of studies: a study's question, queueing it, and its tables and figure as its runs end."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from chimeralab import Lab
from chimeralab.events import Metrics

pytestmark = pytest.mark.browser


def test_a_study_is_queued_and_shown_beside_published_values(page: Page, quiet_dashboard: str, quiet_lab: Lab) -> None:
    page.goto(f"{quiet_dashboard}/ui/studies?study=state-tracking")
    expect(page.locator("#studies h2")).to_have_text("State tracking and negative eigenvalues")
    expect(page.locator("#studies [data-part=summary]")).to_have_text("It has not run at this scale.")
    page.locator("[data-action=run-study]").click()
    expect(page.locator("#studies [data-part=summary]")).to_contain_text("12 members: 12 queued")
    expect(page.locator("[data-action=run-study]")).to_be_hidden()
    for member in quiet_lab.store.sweep_members(quiet_lab.store.sweep("state-tracking-tiny").id):
        attempt = quiet_lab.store.claim(member.run_id, 0)
        quiet_lab.store.begin(member.run_id, attempt, {})
        names = ("validation/scaled_accuracy", "test/scaled_accuracy@length=20", "test/scaled_accuracy")
        values = dict.fromkeys(names, {"DeltaNet": 0.25, "DeltaNet [-1, 1]": 0.5}.get(member.point["stack"], 0.0))
        quiet_lab.store.append(member.run_id, attempt, [Metrics(seq=1, step=1, tokens=1, seconds=1.0, values=values)])
        quiet_lab.store.finish(member.run_id, attempt, "completed")
    rows = page.locator("#studies tbody").first.locator("tr")
    expect(rows).to_have_count(4)
    expect(rows.nth(2)).to_contain_text("0.500 [0.500, 0.500]")
    expect(rows.nth(2)).to_contain_text("published 1")
    apart = page.locator("#studies li", has_text="0.02 published")
    expect(apart).to_contain_text("DeltaNet, parity: 0.25 [0.25, 0.25] (n=3) here")
    expect(page.locator("#study-figure .cl-plot-area")).to_have_attribute("data-drawn", "1")
    page.goto(f"{quiet_dashboard}/ui/studies")  # without a name: the study that ran last
    expect(page.locator("#studies h2")).to_have_text("State tracking and negative eigenvalues")
    page.locator("[data-action=choose-study]").select_option("char-shakespeare")
    expect(page.locator("#studies")).to_contain_text("--set task.options.source=…")
    expect(page.locator("[data-action=run-study]")).to_be_hidden()
    expect(page).to_have_url(f"{quiet_dashboard}/ui/studies?study=char-shakespeare")
