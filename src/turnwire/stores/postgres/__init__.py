"""The store on PostgreSQL."""

from turnwire.stores.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
