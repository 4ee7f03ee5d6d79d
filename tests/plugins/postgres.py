"""Databases for tests on PostgreSQL, which say `@pytest.mark.tool("postgres")`."""

from collections.abc import Iterator

import pytest

from clusters import Cluster, running


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL that syncs nothing: what a crash leaves is looked at in clusters of their own."""
    with running("fsync=off") as cluster:
        cluster.sql("CREATE DATABASE tests")
        yield cluster


@pytest.fixture
def database(cluster: Cluster) -> str:
    """The URL of a database that holds nothing of ours: the same one in every test, as it takes a while to make one."""
    cluster.sql("DROP SCHEMA IF EXISTS turnwire CASCADE", "tests")
    return cluster.url("tests")
