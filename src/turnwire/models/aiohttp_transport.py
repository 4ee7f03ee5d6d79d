"""An httpx2 transport that sends with aiohttp: a vendor's SDK and a reader of our own share a connection.

The SDK builds the request, maps the errors and reads whatever is not streamed; the bytes of a stream are read
straight from the socket's buffer by `ResponseBody.read()`, which costs a tenth of the SDK's own reading.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, cast
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2
from yarl import URL

CONNECT_TIMEOUT_S = 10.0
"""For one address. A host that doesn't answer by then is down; all other limits are the engine's."""

ERROR_BODY_BYTES_MAX = 1 << 20
"""An error's body is read whole, to be quoted; nobody says more than this."""

BODY_EXTENSION = "turnwire.body"
"""The extension of a response under which its `ResponseBody` is found."""

# aiohttp sets these itself. Compression would only delay small deltas.
_OWN_HEADERS = frozenset({b"content-length", b"transfer-encoding", b"connection", b"accept-encoding"})
# aiohttp has undone the first two before httpx2 sees the body.
_UNDONE_HEADERS = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})


class ResponseBody(httpx2.AsyncByteStream):
    """The body of a response. Closing it before its end closes the connection at once, undrained."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def read(self) -> bytes:
        """All that has come since the last read, at least a byte; `b""` at the end.

        Raises `httpx2.ReadTimeout` or `httpx2.ReadError`; the latter also for a body that ends before its
        length.
        """
        try:
            return await self._response.content.readany()
        except TimeoutError as exc:
            raise httpx2.ReadTimeout("The provider sent nothing for too long.") from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise httpx2.ReadError("The connection to the provider broke off.") from exc

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while block := await self.read():
            yield block

    async def aclose(self) -> None:
        # At its end aiohttp has given the connection back already, and close() does nothing.
        self._response.close()


def _let_go(request: httpx2.Request) -> None:
    """Drop what was sent and answered: it stands in memory as long as the answer comes otherwise, a whole conversation
    for each stream. Not behind a redirect, which sends it again."""
    request.stream = httpx2.ByteStream(b"")
    request.headers = httpx2.Headers()
    vars(request).pop("_content", None)


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """Sends with one `aiohttp.ClientSession`, made when it is first needed, and anew on another event loop.

    `secrets` are replaced by `***` in the bodies of error answers: gateways quote the key that they refuse.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = [secret.encode() for secret in secrets if len(secret) >= 6]
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def scrub(self, text: bytes) -> bytes:
        """The text without the secrets."""
        for secret in self._secrets:
            text = text.replace(secret, b"***")
        return text

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        content = await request.aread()
        url = URL(str(request.url), encoded=True)
        headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in request.headers.raw if _sent(k)]
        proxy, proxy_auth = _proxy_for(url)
        try:
            response = await self._send(
                request.method,
                url,
                headers=[*headers, ("Accept-Encoding", "identity")],
                data=content,
                allow_redirects=False,
                proxy=proxy,
                proxy_auth=proxy_auth,
                timeout=_timeout(request),
            )
        except aiohttp.ConnectionTimeoutError as exc:
            raise httpx2.ConnectTimeout("The provider could not be reached in time.") from exc
        except TimeoutError as exc:
            raise httpx2.ReadTimeout("The provider sent nothing for too long.") from exc
        except aiohttp.ClientConnectorError as exc:
            raise httpx2.ConnectError("The provider could not be reached.") from exc
        except aiohttp.InvalidURL as exc:
            raise httpx2.UnsupportedProtocol("The provider's address is not one of http or https.") from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise httpx2.ReadError("The connection to the provider broke off.") from exc
        return await self._answer(request, response)

    async def _send(self, method: str, url: URL, **more: Any) -> aiohttp.ClientResponse:
        """The head of the answer. On a kept connection that turns out to be closed the request is made again on another
        one.

        A server may close one that is idle also in the moment of the next request (RFC 9112, section 9.3.1), and
        llama.cpp often does. aiohttp repeats GET and the like by itself; a model's request may be repeated as well.
        """
        while True:
            course = _Course()
            try:
                return await self._session_here().request(method, url, trace_request_ctx=course, **more)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if not course.on_kept_connection:
                    raise

    async def _answer(self, request: httpx2.Request, response: aiohttp.ClientResponse) -> httpx2.Response:
        body = ResponseBody(response)
        headers = [(k, v) for k, v in response.raw_headers if k.lower() not in _UNDONE_HEADERS]
        if response.status < 400:
            if response.status < 300:
                _let_go(request)
            return httpx2.Response(
                response.status,
                headers=headers,
                stream=body,
                request=request,
                extensions={BODY_EXTENSION: body, "http_version": b"HTTP/1.1"},
            )
        try:
            text = bytearray()
            while len(text) < ERROR_BODY_BYTES_MAX and (block := await body.read()):
                text += block
        finally:
            await body.aclose()
        content = self.scrub(bytes(text[:ERROR_BODY_BYTES_MAX]))
        return httpx2.Response(response.status, headers=headers, content=content, request=request)

    def _session_here(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.closed or self._loop is not loop:
            # No limit of connections: how many requests run at once is the engine's to say. The certificates
            # are those that httpx2 would use: SSL_CERT_FILE, or the usual ones.
            connector = aiohttp.TCPConnector(limit=0, ssl=httpx2.create_ssl_context())
            # `trust_env` would also put .netrc's passwords into requests, so the proxies are read below.
            tracing = aiohttp.TraceConfig()
            tracing.on_connection_reuseconn.append(_note_reuse)
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trace_configs=[tracing]
            )
            self._loop = loop
        return self._session

    async def aclose(self) -> None:
        """Closes the idle connections and those of answers that are still being read."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


class _Course:
    """What became of a request on its way."""

    on_kept_connection = False


async def _note_reuse(_: aiohttp.ClientSession, context: Any, __: aiohttp.TraceConnectionReuseconnParams) -> None:
    context.trace_request_ctx.on_kept_connection = True


def _sent(name: bytes) -> bool:
    return name.lower() not in _OWN_HEADERS


def _timeout(request: httpx2.Request) -> aiohttp.ClientTimeout:
    """No limit beyond connecting, except one that the caller's model settings ask for."""
    asked = cast("dict[str, float | None]", request.extensions.get("timeout") or {})
    connect = asked.get("connect")
    return aiohttp.ClientTimeout(
        total=None,
        sock_connect=CONNECT_TIMEOUT_S if connect is None else connect,
        sock_read=asked.get("read"),
    )


def _proxy_for(url: URL) -> tuple[URL | None, aiohttp.BasicAuth | None]:
    """The proxy that the environment has for an address (HTTPS_PROXY, ALL_PROXY, NO_PROXY)."""
    proxies = getproxies()
    named = proxies.get(url.scheme) or proxies.get("all")
    if not named or not url.host or proxy_bypass(url.host):
        return None, None
    proxy = URL(named if "://" in named else f"http://{named}")
    if proxy.scheme not in ("http", "https"):
        raise httpx2.UnsupportedProtocol(f"The proxy's address begins with {proxy.scheme}://, not with http://.")
    auth = aiohttp.BasicAuth(proxy.user or "", proxy.password or "") if proxy.user or proxy.password else None
    return proxy.with_user(None), auth
