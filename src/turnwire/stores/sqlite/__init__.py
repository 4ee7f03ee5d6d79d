"""The embedded store: everything in one SQLite file."""

from turnwire.stores.common import StoreFailed, StoreRefused
from turnwire.stores.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore", "StoreFailed", "StoreRefused"]
