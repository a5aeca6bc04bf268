"""What a widget draws of the answers to its questions: neither an older one's, nor the same again."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from chimeralab_webui import assets

pytestmark = pytest.mark.browser

ANSWERS = """async ([module, again]) => {
  const { Asking } = await import(module);
  const sent = [], drawn = [];
  let answer;
  const widget = { send: (event, value) => sent.push([event, value]), onReply: (run) => { answer = run; } };
  const asking = new Asking(widget, { text: 'a' }, (reply) => drawn.push(reply.rows), { again });
  asking.ask('query', { text: 'b' });
  answer({ rev: 0, rows: 'before the question' });
  answer({ rev: 1, rows: 'first' });
  answer({ rev: 1, rows: 'first' });
  asking.ask('act', {}, { act: 'cancel' });
  answer({ rev: 1, rows: 'of the older question' });
  answer({ rev: 2, rows: 'second' });
  asking.ask('query');
  return { sent, drawn };
}"""


@pytest.mark.parametrize(("again", "times"), [(False, 1), (True, 2)])
def test_stale_answers_are_passed_over_and_equal_ones_unless_wanted(
    page: Page, quiet_dashboard: str, again: bool, times: int
) -> None:
    page.goto(f"{quiet_dashboard}/ui/plugins")
    said = page.evaluate(ANSWERS, [f"{assets.base()}/asking.js", again])
    assert said["drawn"] == ["first"] * times + ["second"]
    assert said["sent"] == [
        ["query", {"rev": 1, "text": "b"}],
        ["act", {"rev": 2, "text": "b", "act": "cancel"}],
        ["query", {"rev": 3, "text": "b"}],
    ]
