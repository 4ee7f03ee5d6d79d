"""A database's URL: what it may be, and how it is shown."""

import pytest

from turnwire import database_url
from turnwire.settings import load_settings

GOOD = {
    "postgresql://user:s%40cret@host/db": "user@host/db",
    "postgres://user:secret@host:5433/db?sslmode=require": "user@host:5433/db",
    "postgresql://user@[::1]:5432/db": "user@[::1]:5432/db",
    "postgresql:///db?host=/run/postgresql&user=me&password=secret": "me@/run/postgresql/db",
    "postgresql://host?dbname=db": "host/db",
    "postgresql://host/db/": "host/db/",
    "postgresql://host/db?synchronous_commit=remote_apply": "host/db",
    "postgresql://user:secret@a,b:5433/db": "user@a,b:5433/db",
    "postgresql://user:secret@a:5432,b:5433/db": "user@a:5432,b:5433/db",
}


@pytest.mark.parametrize("url", GOOD)
def test_what_is_shown_of_it_holds_no_password(url: str) -> None:
    database_url.check(url)

    assert database_url.shown(url) == GOOD[url]


@pytest.mark.parametrize("password", ["se/cret", "/secret", "5/secret", "s@e/cret", "s@ecret", "s#ecret"])
def test_a_password_that_is_not_encoded_is_refused_and_not_shown(password: str) -> None:
    with pytest.raises(ValueError, match="percent-encode what is special in the password") as refused:
        database_url.check(f"postgresql://user:{password}@host/db")

    assert "cret" not in str(refused.value)


@pytest.mark.parametrize("url", ["postgresql://host", "postgresql://host/", "postgresql://host/?dbname=db"])
def test_a_url_from_which_the_driver_takes_no_name_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="it names no database"):
        database_url.check(url)


def test_the_password_is_known_to_what_keeps_it_out_of_logs() -> None:
    assert load_settings(database_url="postgresql://u:s%40cret@h/d").secrets == ["s@cret"]
    assert load_settings(database_url="postgresql:///d?host=h&password=secret").secrets == ["secret"]
    assert load_settings(database_url="postgresql://u@h/d").secrets == []


def test_the_settings_never_print_it() -> None:
    settings = load_settings(database_url="postgresql://u:secret@h/d")

    assert "secret" not in f"{settings!r} {settings}"
    assert settings.database == "postgresql://u:secret@h/d"
    assert load_settings(database_url="").database is None
