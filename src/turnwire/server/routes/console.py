"""The web console's files, without a key: what they show, they ask the API for, with the key of whoever looks.

They are not in the OpenAPI document: no program has a use for them. Where the console is turned off nothing of this is
there, and `/` is as unknown as any other path.
"""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from turnwire.console import Asset, Assets
from turnwire.protocol.errors import NotFound

# What an agent or a file says may be anything; with this, no text can become script, and nothing is loaded from or
# sent to anywhere else. Trusted Types make `innerHTML` and its like throw, so a slip in the console is an error and
# no hole. Pictures of the workspace are blobs.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' blob: data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Vary": "Accept-Encoding",
}

FOREVER = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"


def console_router(assets: Assets) -> APIRouter:
    """The routes of the console with these files."""
    router = APIRouter(include_in_schema=False)

    @router.api_route("/", methods=["GET", "HEAD"])
    async def page(request: Request) -> Response:
        return _answer(request, assets.find("index.html"), ASK_AGAIN)

    @router.api_route("/assets/{digest}/{name:path}", methods=["GET", "HEAD"])
    async def asset(request: Request, digest: str, name: str) -> Response:
        # A page that was loaded before an upgrade still asks under the old digest, and is better served with what
        # there is than not at all; but that is nothing to keep.
        return _answer(request, assets.find(name), FOREVER if digest == assets.digest else ASK_AGAIN)

    return router


def _answer(request: Request, asset: Asset | None, caching: str) -> Response:
    if asset is None:
        raise NotFound("There is no such file in the console.")
    headers = {**HEADERS, "ETag": asset.etag, "Cache-Control": caching}
    if asset.etag in request.headers.get("if-none-match", ""):
        return Response(None, 304, headers)
    body = asset.body
    if _takes_gzip(request.headers.get("accept-encoding", "")):
        headers["Content-Encoding"] = "gzip"
        body = asset.gzipped
    headers["Content-Type"] = asset.media_type
    answer = Response(body, 200, headers)
    if request.method == "HEAD":
        answer.body = b""
    return answer


def _takes_gzip(accepted: str) -> bool:
    """Whether `Accept-Encoding` allows gzip. Browsers say `gzip, deflate, br`; weights are for the pedantic."""
    for item in accepted.lower().split(","):
        coding, _, weight = item.partition(";")
        if coding.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
