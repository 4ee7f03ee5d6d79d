"""The embedded store: everything in one SQLite file."""

from turnwire.stores.sqlite.database import StoreRefused
from turnwire.stores.sqlite.store import SQLiteStore
from turnwire.stores.sqlite.writer import StoreFailed

__all__ = ["SQLiteStore", "StoreFailed", "StoreRefused"]
