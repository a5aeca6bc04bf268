"""Runs, Run and Compare on a store that no cluster works on; and that names are data on every page."""

from __future__ import annotations

import base64
import re
from io import BytesIO

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from chimeralab import Lab, LabError, RunSpec
from chimeralab.events import Event, Metrics, Sample
from small_runs import small_spec

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=\"document.title='owned'\"> <a href=//x>{{7*7}}</a> %{x} ${8*8} '; DROP"


def record(lab: Lab, run: int, *events: Event) -> None:
    """What a worker would write of a run that it has begun."""
    attempt = lab.store.claim(run, 0)
    assert attempt is not None
    lab.store.begin(run, attempt, {})
    lab.store.append(run, attempt, list(events))


def test_selected_run_is_cancelled_and_retried(page: Page, quiet_dashboard: str, quiet_lab: Lab) -> None:
    run = quiet_lab.submit(small_spec(quiet_lab, name="To cancel"))
    page.goto(f"{quiet_dashboard}/ui/runs?text=To cancel")
    row = page.locator(f'#runs tr[data-id="{run}"]')
    expect(row.locator(".cl-status")).to_have_text("queued")
    page.get_by_label(f"Select run {run}", exact=True).check()
    page.locator("[data-action=cancel]").click()
    expect(row.locator(".cl-status")).to_have_text("cancelled")
    page.locator("[data-action=retry]").click()
    expect(row.locator(".cl-status")).to_have_text("queued")


def test_action_that_cannot_be_done_says_why(page: Page, quiet_dashboard: str, quiet_lab: Lab) -> None:
    run = quiet_lab.submit(small_spec(quiet_lab, name="Not to retry"))
    page.goto(f"{quiet_dashboard}/ui/runs?text=Not to retry")
    page.get_by_label(f"Select run {run}", exact=True).check()
    page.locator("[data-action=retry]").click()
    said = "Only a failed, cancelled or pruned run can be tried again"
    message = page.locator("#runs .cl-message")
    expect(message).to_contain_text(said)
    for _ in range(2):  # ticks of the live page
        with page.expect_response("**/gradio_api/**"):
            pass
    expect(message).to_contain_text(said)
    expect(message).to_have_class("cl-message bad")


def test_archived_run_leaves_the_list_and_comes_back(page: Page, quiet_dashboard: str, quiet_lab: Lab) -> None:
    run = quiet_lab.submit(small_spec(quiet_lab, name="To archive"))
    page.goto(f"{quiet_dashboard}/ui/runs?text=To archive")
    page.get_by_label(f"Select run {run}", exact=True).check()
    page.locator("[data-action=archive]").click()
    expect(page.locator("#runs tbody tr")).to_have_count(0)
    expect(page.locator("#runs .cl-count")).to_have_text("")
    page.get_by_label("Archive", exact=True).select_option("true")
    expect(page.locator(f'#runs tr[data-id="{run}"]')).to_be_visible()


def test_selection_ends_with_the_filter_that_showed_it(page: Page, quiet_dashboard: str, quiet_lab: Lab) -> None:
    runs = [quiet_lab.submit(small_spec(quiet_lab, name=f"Chosen {letter}")) for letter in "AB"]
    page.goto(f"{quiet_dashboard}/ui/runs?text=Chosen")
    for run in runs:
        page.get_by_label(f"Select run {run}", exact=True).check()
    page.get_by_role("button", name="Run", exact=True).click()  # another order
    expect(page.locator("#runs .cl-count")).to_have_text("2 selected")
    page.get_by_label("Search").fill("Chosen A")
    expect(page.locator("#runs tbody tr")).to_have_count(1)
    expect(page.locator("#runs .cl-count")).to_have_text("")
    expect(page.locator("[data-action=cancel]")).to_be_hidden()


def test_list_is_paged_and_sorted_by_the_server(page: Page, quiet_dashboard: str, quiet_lab: Lab) -> None:
    for number in range(27):
        quiet_lab.submit(small_spec(quiet_lab, name=f"Many {number:02d}"))
    page.goto(f"{quiet_dashboard}/ui/runs?text=Many")
    rows = page.locator("#runs tbody tr")
    expect(rows).to_have_count(25)
    page.get_by_role("button", name="Run", exact=True).click()
    expect(rows.first.locator(".name a")).to_have_text("Many 00")
    page.get_by_role("button", name="Next").click()
    expect(rows).to_have_count(2)
    expect(rows.last.locator(".name a")).to_have_text("Many 26")


def test_new_run_appears_without_reloading(page: Page, quiet_dashboard: str, quiet_lab: Lab) -> None:
    page.goto(f"{quiet_dashboard}/ui/runs?text=Appears")
    expect(page.locator("#runs .cl-empty")).to_be_visible()
    quiet_lab.submit(small_spec(quiet_lab, name="Appears"))
    expect(page.locator("#runs tbody tr")).to_have_count(1, timeout=10_000)


def test_names_are_text_on_every_page(page: Page, quiet_dashboard: str, quiet_lab: Lab) -> None:
    run, other = (quiet_lab.submit(small_spec(quiet_lab, name=HOSTILE, tags=(HOSTILE[:40],))) for _ in range(2))
    for each in (run, other):
        record(quiet_lab, each, Metrics(seq=1, step=1, tokens=64, seconds=1.0, values={"train/loss": 2.0}))
    for path in ("runs", f"run?id={run}", f"compare?runs={run},{other}"):
        page.goto(f"{quiet_dashboard}/ui/{path}")
        expect(page.get_by_text(HOSTILE).first).to_be_visible()
        assert page.locator("img[src=x]").count() == 0
        assert page.title() != "owned"
    legend = page.locator("#compare-curves .legendtext")
    expect(legend.first).to_have_text(f"{HOSTILE} #{run}")
    assert page.locator("#compare-curves svg a").count() == 0


def test_run_is_forked_into_compose(page: Page, quiet_dashboard: str, quiet_lab: Lab) -> None:
    run = quiet_lab.submit(small_spec(quiet_lab, "gla x2, attention[heads=2]", name="To fork", seed=7))
    page.goto(f"{quiet_dashboard}/ui/run?id={run}")
    page.locator("[data-action=fork]").click()
    expect(page.locator("#pattern-text")).to_have_value("gla x2, attention[heads=2]")
    expect(page.locator('[data-place="stack.d_model"] input')).to_have_value("32")
    expect(page.locator('#launch [data-place="seed"] input')).to_have_value("7")
    expect(page.locator('#launch [data-place="train.steps"] input')).to_have_value("60")


def test_launch_error_stands_beside_its_field_and_queues_nothing(
    page: Page, quiet_dashboard: str, quiet_lab: Lab
) -> None:
    before = quiet_lab.runs().total
    page.goto(f"{quiet_dashboard}/ui/?pattern=attention&d_model=32")
    field = page.locator('#launch [data-place="train.steps"]')
    field.locator("input").fill("0")
    page.locator("[data-action=launch]").click()
    expect(field.locator(".cl-field-error")).to_contain_text("greater than or equal to 1")
    seeds = page.locator('#launch [data-place="seed"]')
    field.locator("input").fill("5")
    seeds.locator("input").fill("1, two")
    page.locator("[data-action=launch]").click()
    expect(seeds.locator(".cl-field-error")).to_contain_text("cannot read 'two'")
    assert quiet_lab.runs().total == before


def test_seeds_that_were_queued_before_one_was_refused_are_told(
    page: Page, quiet_dashboard: str, quiet_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = quiet_lab.submit

    def full(spec: RunSpec) -> int:
        if spec.seed > 1:
            raise LabError("the disk is full", place="store")
        return submit(spec)

    monkeypatch.setattr(quiet_lab, "submit", full)
    page.goto(f"{quiet_dashboard}/ui/?pattern=attention&d_model=32")
    page.locator('#launch [data-place="seed"] input').fill("0-2")
    page.locator("[data-action=launch]").click()
    message = page.locator("#launch .cl-message")
    expect(message).to_contain_text("2 runs queued: attention, seed 0")
    expect(message).to_contain_text("The others are not queued. store: the disk is full")
    expect(message).to_have_class("cl-message bad")
    expect(message.locator("a")).to_have_count(3)


def test_tags_and_notes_of_a_run_are_read_and_changed(page: Page, quiet_dashboard: str, quiet_lab: Lab) -> None:
    run = quiet_lab.submit(small_spec(quiet_lab, name="Labelled", tags=("night",), notes="as in the paper"))
    page.goto(f"{quiet_dashboard}/ui/run?id={run}")
    tags, notes = page.locator("#run-head .cl-tag"), page.get_by_label("Notes")
    expect(tags).to_have_text(["night"])
    expect(notes).to_have_value("as in the paper")
    page.get_by_label("Add a tag").fill("h200")
    page.keyboard.press("Enter")
    expect(tags).to_have_text(["h200", "night"])
    page.get_by_label("Remove the tag night").click()
    expect(tags).to_have_text(["h200"])
    notes.fill("better than the paper")
    page.locator("#run-head h1").click()
    expect(page.locator("#run-head .cl-message")).to_have_text("1 run annotated")
    row = quiet_lab.run(run)
    assert (row.tags, row.notes) == (("h200",), "better than the paper")
    page.goto(f"{quiet_dashboard}/ui/runs?text=better than")
    expect(page.locator("#runs .cl-tag")).to_have_text(["h200"])


def test_choices_of_a_plot_are_shared_by_the_address(page: Page, quiet_dashboard: str, quiet_lab: Lab) -> None:
    run = quiet_lab.submit(small_spec(quiet_lab, name="Measured"))
    values = {
        "train/loss": 2.0,
        "train/gradient_norm": 7.0,
        "test/accuracy@length=64": 0.5,
        "test/accuracy@length=8": 1,
    }
    values |= {f"test/exact_match@depth={depth},length={n}": depth for depth in (0.0, 0.5) for n in (8, 16)}
    points = [Metrics(seq=n, step=n, tokens=64 * n, seconds=n / 10, values=values) for n in range(1, 5)]
    record(quiet_lab, run, *points)
    page.goto(f"{quiet_dashboard}/ui/run?id={run}&quantity=gradient_norm&x=tokens&smooth=nonsense")
    expect(page.locator("#run-curve .xtitle")).to_have_text("Tokens")
    page.get_by_label("over").select_option("seconds")
    page.wait_for_url("**x=seconds**")
    expect(page.locator("#run-curve .xtitle")).to_have_text("Training time (s)")
    test = page.locator("#run-test")
    expect(test.locator(".xtitle")).to_have_text("Length")
    test.get_by_label("Show").select_option(label="Exact match by depth and length (test)")
    expect(test.locator(".ytitle")).to_have_text("Depth")
    page.goto(f"{quiet_dashboard}/ui/compare?runs={run}&measured=test/accuracy length")
    expect(page.locator("#compare-test .xtitle")).to_have_text("Length")


def test_newest_run_stays_on_the_page_when_a_newer_one_comes(page: Page, quiet_dashboard: str, quiet_lab: Lab) -> None:
    run = quiet_lab.submit(small_spec(quiet_lab, name="Newest"))
    page.goto(f"{quiet_dashboard}/ui/run")
    expect(page.locator("#run-head h1")).to_have_text("Newest")
    expect(page).to_have_url(f"{quiet_dashboard}/ui/run?id={run}")
    quiet_lab.submit(small_spec(quiet_lab, name="Newer still"))
    for _ in range(2):  # ticks of the live page
        with page.expect_response("**/gradio_api/**"):
            pass
    expect(page.locator("#run-head h1")).to_have_text("Newest")


def test_pictures_that_a_model_drew_are_shown(page: Page, quiet_dashboard: str, quiet_lab: Lab) -> None:
    run = quiet_lab.submit(small_spec(quiet_lab, name="Draws"))
    file = BytesIO()
    Image.new("RGB", (19, 9), "red").save(file, "PNG")
    drawn = Sample(seq=1, step=7, prompt="9 pictures", text="", image=base64.b64encode(file.getvalue()).decode())
    record(quiet_lab, run, drawn)
    page.goto(f"{quiet_dashboard}/ui/run?id={run}#samples")
    picture = page.get_by_alt_text("9 pictures")
    expect(picture).to_be_visible()
    assert picture.evaluate("img => [img.naturalWidth, img.naturalHeight]") == [19, 9]


@pytest.mark.parametrize(
    ("address", "place", "said"),
    [
        ("run?id=987654", "#run-head .cl-message", "there is no such run"),
        (f"run?id={10**20}", "#run-head .cl-message", "less than"),
        ("compare?runs=987654", "#compare .cl-message", "There is no run 987654"),
        (f"?fork={10**20}", "#pattern-error", "there is no such run"),
    ],
)
def test_missing_run_is_said_plainly(page: Page, quiet_dashboard: str, address: str, place: str, said: str) -> None:
    page.goto(f"{quiet_dashboard}/ui/{address}")
    expect(page.locator(place)).to_contain_text(said)


def test_more_runs_than_can_be_compared_are_left_out_aloud(page: Page, quiet_dashboard: str, quiet_lab: Lab) -> None:
    runs = [quiet_lab.submit(small_spec(quiet_lab, name=f"Of many {number}")) for number in range(51)]
    page.goto(f"{quiet_dashboard}/ui/compare?runs={','.join(map(str, runs[:50]))}")
    rows = page.locator("#compare tbody tr")
    expect(rows).to_have_count(50)
    page.locator("[data-action=add-run]").select_option(str(runs[50]))
    expect(page.locator("#compare .cl-message")).to_have_text(
        "50 runs can be compared at once: the last one is left out"
    )
    page.get_by_label(f"Take run {runs[0]} out").click()
    expect(rows).to_have_count(49)
    expect(page.locator("#compare .cl-message")).to_be_hidden()


def test_tabs_are_walked_by_arrow_keys(page: Page, quiet_dashboard: str, quiet_lab: Lab) -> None:
    run = quiet_lab.submit(small_spec(quiet_lab, name="Tabs"))
    page.goto(f"{quiet_dashboard}/ui/run?id={run}")
    page.get_by_role("tab", name="Stack").click()
    walk = [("ArrowRight", "Samples"), ("End", "Checkpoints"), ("ArrowRight", "Stack"), ("ArrowLeft", "Checkpoints")]
    for key, tab in walk:
        page.keyboard.press(key)
        expect(page.get_by_role("tab", name=tab)).to_be_focused()
        expect(page.get_by_role("tabpanel", name=tab)).to_be_visible()
    expect(page.locator("[role=tab][tabindex='0']")).to_have_count(1)


def test_chosen_theme_is_kept(page: Page, quiet_dashboard: str) -> None:
    page.emulate_media(color_scheme="light")
    page.goto(f"{quiet_dashboard}/ui/plugins")
    page.get_by_label("Light or dark").click()
    expect(page.locator("body")).to_have_class("dark")
    page.goto(f"{quiet_dashboard}/ui/kernels")
    expect(page.locator("body")).to_have_class("dark")


def test_times_of_kernels_are_shown(page: Page, quiet_dashboard: str, quiet_lab: Lab) -> None:
    quiet_lab.time_kernels(["swiglu"])
    page.goto(f"{quiet_dashboard}/ui/kernels")
    expect(page.locator("#kernels")).to_contain_text(re.compile(r"[\d.]+ ms at S, [\d.]+ × floor"))
    expect(page.locator("#kernels .cl-hint code")).to_have_text("chimeralab kernels --bench")
    page.set_viewport_size({"width": 390, "height": 844})
    expect(page.locator("#kernels .narrow-only").filter(has_text="ms at S").first).to_be_visible()


@pytest.mark.parametrize("path", ["runs", "run", "compare", "kernels", "plugins"])
def test_page_fits_a_phone(page: Page, quiet_dashboard: str, path: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{quiet_dashboard}/ui/{path}")
    expect(page.locator(".cl-panel").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
