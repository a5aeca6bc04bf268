"""The line of words on a page: how long what an action came to is to be read."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from chimeralab_webui import assets

pytestmark = pytest.mark.browser

SAID = """async ([module, shown]) => {
  const { Message } = await import(module);
  const message = new Message();
  return shown.map((values) => {
    message.show(...values);
    const { hidden, textContent, className } = message.node;
    return hidden ? null : `${className.split(' ').pop()}: ${textContent}`;
  });
}"""


def said(page: Page, address: str, *shown: list) -> list[str | None]:
    page.goto(f"{address}/ui/plugins")
    return page.evaluate(SAID, [f"{assets.base()}/message.js", list(shown)])


def test_what_an_action_came_to_stands_until_the_next_question(page: Page, quiet_dashboard: str) -> None:
    shown = said(page, quiet_dashboard, [1], [2, "refused"], [2, ""], [3, ""], [4, "done", {"bad": False}], [4])
    assert shown == [None, "bad: refused", "bad: refused", None, "good: done", "good: done"]


def test_what_is_wrong_with_the_page_stands_while_it_is_so(page: Page, quiet_dashboard: str) -> None:
    shown = said(page, quiet_dashboard, [1, "", {"state": "there is no sweep"}], [1])
    assert shown == ["bad: there is no sweep", None]
