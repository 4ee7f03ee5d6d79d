"""The application: routes, errors, CORS and the document."""

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware

from turnwire import __version__
from turnwire.console import Assets
from turnwire.server import documents, problems
from turnwire.server.context import Services
from turnwire.server.edge import Edge
from turnwire.server.routes import files, health, messages, models, responses, sessions, skills, tool_results
from turnwire.server.routes.console import console_router

EXPOSED_HEADERS = ["X-Response-Id", "X-Request-Id", "Retry-After", "Link", "ETag"]
ALLOWED_HEADERS = [
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "If-None-Match",
    "If-Range",
    "Last-Event-ID",
    "Range",
    "X-Request-Id",
]

DESCRIPTION = """
Open a session, send it a message, and read the agent's turn as Server-Sent Events while it happens. What is shown is
stored, and stays: a turn runs to its end whether or not anybody reads it, and can be followed from any point.
"""


def create_app(services: Services) -> FastAPI:
    """The ASGI application over these services."""
    # The documents' page without a CDN: a server on a closed network shows it too.
    app = FastAPIOffline(
        docs_url="/docs",
        redoc_url=None,
        static_url="/docs/static",
        title="turnwire",
        version=__version__,
        summary="Agent sessions over Server-Sent Events.",
        description=DESCRIPTION,
        # An address with a slash too many is none: a redirect would be an answer that nobody documents.
        redirect_slashes=False,
        root_path=services.options.root_path,
        separate_input_output_schemas=False,
    )
    app.state.services = services
    for module in (health, sessions, messages, responses, tool_results, files, skills, models):
        app.include_router(module.router)
    if services.options.console:
        app.include_router(console_router(Assets()))
    problems.add_handlers(app)
    app.openapi = lambda: documents.document(app)
    if services.options.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(services.options.cors_origins),
            allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=ALLOWED_HEADERS,
            expose_headers=EXPOSED_HEADERS,
            max_age=600,
        )
    app.add_middleware(Edge)
    return app
