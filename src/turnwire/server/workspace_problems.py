"""What a workspace says of a path, as the API's errors."""

from collections.abc import Generator
from contextlib import contextmanager

import structlog

from turnwire.protocol import errors
from turnwire.seams import workspace as seam

log = structlog.get_logger(__name__)

_ERRORS: dict[type[seam.WorkspaceError], type[errors.TurnwireError]] = {
    seam.InvalidPath: errors.InvalidRequest,
    seam.OutsideWorkspace: errors.Forbidden,
    seam.AccessDenied: errors.Forbidden,
    seam.NotFound: errors.NotFound,
    seam.NotAFile: errors.Conflict,
    seam.NotAFolder: errors.Conflict,
    seam.NotEmpty: errors.Conflict,
    seam.Changed: errors.PreconditionFailed,
    seam.TooLarge: errors.PayloadTooLarge,
    seam.NoSpace: errors.InsufficientStorage,
}


@contextmanager
def workspace_problems(*, reading: bool = False) -> Generator[None]:
    """Raise a workspace's errors as those of the API. `reading`: what is neither file nor folder is not there."""
    try:
        yield
    except seam.WorkspaceError as exc:
        if reading and isinstance(exc, seam.NotAFile):
            raise errors.NotFound(str(exc)) from exc
        cls = _ERRORS.get(type(exc))
        if cls is None:
            log.exception("workspace_failed")
            raise errors.InternalError from exc
        raise cls(str(exc)) from exc
