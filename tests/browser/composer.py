"""The Compose page as a person uses it: what is on the strip, what is written, what it costs."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect


class Composer:
    def __init__(self, page: Page, address: str, query: str = "") -> None:
        self.page = page
        page.goto(f"{address}/ui/{query}")
        expect(self.tiles.first).to_be_visible()

    @property
    def tiles(self) -> Locator:
        return self.page.locator("#stack .cl-tile")

    @property
    def chosen(self) -> Locator:
        return self.page.get_by_role("listbox", name="Layers").get_by_role("option", selected=True)

    @property
    def text(self) -> Locator:
        return self.page.locator("#pattern-text")

    @property
    def problem(self) -> Locator:
        return self.page.locator("#pattern-error")

    def chip(self, name: str) -> Locator:
        return self.page.locator(f'.cl-chip[data-name="{name}"]')

    def option(self, part: int, name: str) -> Locator:
        """A field of the selected layers' mixer (0) or feed-forward (1)."""
        return self.page.locator(".cl-part").nth(part).locator(f'[data-place="{name}"]')

    def tool(self, title: str) -> Locator:
        return self.page.get_by_role("toolbar").get_by_role("button", name=title)

    def field(self, place: str) -> Locator:
        return self.page.locator(f'#launch [data-place="{place}"]')

    def card(self, name: str) -> Locator:
        return self.page.locator(f'.cl-card[data-card="{name}"] .cl-card-value strong')

    def mixers(self) -> list[str]:
        return self.tiles.evaluate_all("tiles => tiles.map(tile => tile.dataset.mixer)")

    def select_all(self) -> None:
        self.tiles.first.click()
        self.page.keyboard.press("Control+a")

    def clear(self) -> None:
        self.select_all()
        self.page.keyboard.press("Delete")
        expect(self.tiles).to_have_count(0)
