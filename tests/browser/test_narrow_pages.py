"""Pages on a phone: nothing reaches past its panel but what scrolls, and the page's own name is in sight."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from chimeralab import Lab, SweepSpec
from chimeralab.events import Metrics

pytestmark = pytest.mark.browser
PHONE = {"width": 390, "height": 844}
SCROLLS = ".cl-table-scroll, .cl-nav, .cl-tabs, .cl-strip, .cl-plot-area, pre"

CUT = f"""(right = (node) => node.getBoundingClientRect().right) =>
    [...document.querySelectorAll('.cl-header *, .cl-panel *')]
    .filter((node) => node.checkVisibility() && !node.closest('{SCROLLS}'))
    .filter((node) => right(node) > (node.closest('.cl-panel') ? right(node.closest('.cl-panel')) - 8 : innerWidth))
    .map((node) => `${{node.className || node.tagName}}: ${{node.textContent.slice(0, 60)}}`)"""

HEARD = """() => {
    const place = document.querySelector('.cl-nav-link[aria-current]').getBoundingClientRect();
    return place.left >= 0 && place.right <= innerWidth;
}"""

PLACES = "all => all.map((node) => node.getBoundingClientRect().toJSON())"


def measured(lab: Lab) -> list[int]:
    """Members of a sweep whose names are long and whose tests make a heat map each."""
    base = {"stack": {"pattern": "attention[heads=2]", "d_model": 16}, "task": {"name": "mqar"}}
    axes = {"train.lr": [0.001, 0.01], "train.weight_decay": [0.05, 0.1]}
    sweep = lab.sweep(SweepSpec.read({"name": "narrow", "base": base, "axes": axes, "seeds": [0, 1]}))
    runs = [member.run_id for member in lab.store.sweep_members(sweep)]
    names = [f"test/accuracy@length={length},pairs={pairs}" for length in (64, 128) for pairs in (4, 8)]
    values = dict.fromkeys([*names, "validation/accuracy", "test/accuracy"], 0.5)
    for run in runs:
        attempt = lab.store.claim(run, 0)
        lab.store.begin(run, attempt, {})
        lab.store.append(run, attempt, [Metrics(seq=1, step=1, tokens=1, seconds=1.0, values=values)])
        lab.store.finish(run, attempt, "completed")
    return runs


def test_nothing_is_cut_off_on_a_phone(page: Page, quiet_dashboard: str, quiet_lab: Lab) -> None:
    runs = measured(quiet_lab)
    page.set_viewport_size(PHONE)
    for address, drawn in (
        ("", "#cost .cl-card"),
        ("runs", "#runs tbody tr"),
        ("sweeps?sweep=narrow", "#sweeps tbody tr"),
        ("studies?study=state-tracking", "#studies h2"),
        ("kernels", "#kernels tbody tr"),
        ("plugins", ".cl-plugin"),
        (f"compare?runs={runs[0]},{runs[1]}", "#compare-test .main-svg"),
    ):
        page.goto(f"{quiet_dashboard}/ui/{address}")
        expect(page.locator(drawn).first).to_be_visible()
        assert page.evaluate(f"({CUT})()") == [], address
        assert page.evaluate(HEARD), address
    titles = page.locator("#compare-test .annotation").evaluate_all(PLACES)
    assert len(titles) == 2
    assert titles[0]["right"] <= titles[1]["left"]
