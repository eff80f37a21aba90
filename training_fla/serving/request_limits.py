"""What a request may be, before Gradio sees it: of limited size, whole, and without a host of the sender's choice."""

import os

# Unstated: multipart headers and the JSON of other requests; far below any video.
ROOM_BYTES = 64 * 1024
# Gradio believes both and writes them into the page, whoever sent them.
FORGED_HEADERS = {b"x-forwarded-host", b"x-gradio-server"}


class RequestLimits:
    """ASGI middleware: a request ends when more than `max_bytes` of it have come, however many files it holds."""

    def __init__(self, app, max_bytes: int):
        self.app, self.max_bytes = app, max_bytes + ROOM_BYTES
        self.behind_hub = "SPACE_ID" in os.environ  # a Space is reached through the Hub's proxy alone

    async def __call__(self, scope, receive, send):
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        if not self.behind_hub:
            headers = [(name, value) for name, value in scope["headers"] if name.lower() not in FORGED_HEADERS]
            scope = {**scope, "headers": headers}
        if scope["type"] == "websocket":
            return await self.app(scope, receive, send)
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.max_bytes:
            return await refuse(send, self.max_bytes)
        return await self.app(scope, self.counted(receive), send)

    def counted(self, receive):
        """`receive` that fails where a request is too large or breaks off; Gradio then deletes what had come of it."""
        from starlette.formparsers import MultiPartException

        received, is_whole = 0, False

        async def receive_counted():
            nonlocal received, is_whole
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise MultiPartException(f"Request exceeded maximum allowed size of {self.max_bytes} bytes.")
            if message["type"] == "http.disconnect" and not is_whole:
                raise MultiPartException("The connection broke off.")
            is_whole = is_whole or not message.get("more_body", False)
            return message

        return receive_counted


async def refuse(send, max_bytes: int) -> None:
    """Answer with status 413 without reading the request."""
    text = f"Request exceeded maximum allowed size of {max_bytes} bytes.".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": text})
