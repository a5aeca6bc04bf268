"""Puts scripts and styles into the head of Gradio's pages as they are sent.

Gradio's own `head=` arrives when its scripts already run: too late for styles, which would be seen to load, and for
the choice between light and dark.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MARK = b"<head>"


class InsertHead:
    """ASGI middleware: HTML answers under `path` get `markup` at the start of their head."""

    def __init__(self, app: ASGIApp, path: str, markup: str) -> None:
        self.app, self.path, self.markup = app, path, markup.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not (scope["type"] == "http" and scope["path"].startswith(self.path) and _wants_html(scope)):
            await self.app(scope, receive, send)
            return
        plain = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
        await self.app({**scope, "headers": plain}, receive, _Inserting(send, self.markup))


class _Inserting:
    """Holds an HTML answer until it is whole; passes any other on."""

    def __init__(self, send: Send, markup: bytes) -> None:
        self.send, self.markup = send, markup
        self.start: Message | None = None
        self.body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _is_html(message):
            self.start = message
        elif message["type"] == "http.response.body" and self.start is not None:
            self.body += message.get("body", b"")
            if not message.get("more_body"):
                await self.finish(self.start)
        else:
            await self.send(message)

    async def finish(self, start: Message) -> None:
        body = self.body.replace(MARK, MARK + self.markup, 1)
        kept = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
        length = (b"content-length", str(len(body)).encode())
        await self.send({**start, "headers": [*kept, length]})
        await self.send({"type": "http.response.body", "body": body})


def _wants_html(scope: Scope) -> bool:
    return scope["method"] == "GET" and b"text/html" in dict(scope["headers"]).get(b"accept", b"")


def _is_html(message: Message) -> bool:
    return dict(message["headers"]).get(b"content-type", b"").startswith(b"text/html")
