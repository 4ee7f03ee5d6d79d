"""Settings: where they come from, what they may be, and what is said when they can't be used."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from turnwire.settings import Address, Settings, SettingsError, load_settings, read_settings, unknown_variables


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("TURNWIRE_"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "t.toml", 'port = 1\nhost = "file"\nmodel = "file"\n')
    monkeypatch.setenv("TURNWIRE_HOST", "environment")
    monkeypatch.setenv("TURNWIRE_MODEL", "environment")

    settings, origins = read_settings(file, model="flag", data_dir=None)

    assert (settings.port, settings.host, settings.model) == (1, "environment", "flag")
    assert origins == {
        "port": f"port in {file}",
        "host": "TURNWIRE_HOST in the environment",
        "model": "--model",
    }


def test_the_file_that_turnwire_config_names_is_read_unless_a_flag_names_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURNWIRE_CONFIG", str(write(tmp_path / "a.toml", "port = 1")))

    assert load_settings().port == 1
    assert load_settings(write(tmp_path / "b.toml", "port = 2")).port == 2


def test_settings_alone_read_nothing_but_their_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNWIRE_PORT", "1")

    assert Settings().port == 8080
    assert Settings(port=0).port == 0


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNWIRE_MODEL", "")
    monkeypatch.setenv("TURNWIRE_PORT", "")

    assert (load_settings().model, load_settings().port) == (None, 8080)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("true", "on"),
        ("1", "on"),
        ("On", "on"),
        ("false", "off"),
        ("0", "off"),
        ("OFF ", "off"),
        ("session", "session"),
    ],
)
def test_the_sandbox_s_network_is_a_word_or_a_boolean(
    written: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURNWIRE_SANDBOX_NETWORK", written)

    assert load_settings().sandbox_network == meant
    monkeypatch.delenv("TURNWIRE_SANDBOX_NETWORK")
    assert load_settings(write(tmp_path / "t.toml", "sandbox_network = true")).sandbox_network == "on"


def test_lists_have_commas_in_the_environment_and_brackets_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURNWIRE_CORS_ORIGINS", "https://a.example, http://localhost:3000,")
    file = write(tmp_path / "t.toml", 'trusted_proxies = ["10.0.0.0/8", "::1"]')

    settings = load_settings(file)

    assert settings.cors_origins == ["https://a.example", "http://localhost:3000"]
    assert settings.trusted_proxies == ["10.0.0.0/8", "::1"]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("port", "99999", "'99999' is not allowed, it should be less than or equal to 65535"),
        ("port", "http", "valid integer"),
        ("heartbeat_interval_s", "0", "greater than or equal to 0.1"),
        ("heartbeat_interval_s", "nan", "finite"),
        ("turn_timeout_s", "inf", "finite"),
        ("event_ids", "perhaps", "it should be true or false"),
        ("thinking", "deep", "'off', 'low', 'medium' or 'high'"),
        ("recovery", "retry", "'continue' or 'fail'"),
        ("sandbox_network", "maybe", "'off', 'session' or 'on'"),
        ("sqlite_synchronous", "OFF", "'FULL' or 'NORMAL'"),
        ("log_level", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("database_url", "mysql://u:secret@h/d", "a URL such as postgresql://"),
        ("database_url", "postgresql://u:se@cret@h/d", "@ as %40"),
        ("database_url", "postgresql://u:secret@h:port/d", "percent-encode what is special"),
        ("database_url", "postgresql://u:secret@h", "names no database"),
        ("database_url", "postgresql://u:secret@h/d?synchronous_commit=off", "synchronous_commit must be on"),
        ("cors_origins", "https://a.example/path", "no path"),
        ("cors_origins", "a.example", "'a.example' is not an origin"),
        ("trusted_proxies", "10.0.0.0/8,proxy", "'proxy' is no IP address"),
        ("root_path", "agents", "begins with /"),
        ("root_path", "/agents?x", "begins with /"),
        ("root_path", "/a b", "begins with /"),
        ("api_key", " secret", "white space"),
        ("api_key", "a\nsecret", "printable"),
    ],
)
def test_a_bad_value_is_one_sentence_that_names_the_variable_and_what_is_allowed(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"TURNWIRE_{name.upper()}", value)

    with pytest.raises(SettingsError) as caught:
        load_settings()

    sentence = str(caught.value)
    assert sentence.startswith(f"TURNWIRE_{name.upper()} in the environment: ")
    assert said in sentence
    assert sentence.endswith(".") and "\n" not in sentence
    assert "secret" not in sentence
    assert caught.value.exit_code == 2


def test_a_bad_value_is_blamed_on_the_flag_or_file_that_it_came_from(tmp_path: Path) -> None:
    file = write(tmp_path / "t.toml", "turns_max = 0")

    with pytest.raises(SettingsError, match=r"^--port: "):
        load_settings(port=-1)
    with pytest.raises(SettingsError, match=rf"^turns_max in {file}: "):
        load_settings(file)


def test_the_values_that_a_message_may_name_are_taken_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNWIRE_SQLITE_SYNCHRONOUS", "normal")
    monkeypatch.setenv("TURNWIRE_LOG_LEVEL", "DEBUG")

    settings = load_settings()

    assert (settings.sqlite_synchronous, settings.log_level) == ("NORMAL", "debug")


def test_an_unknown_name_in_the_file_is_an_error_that_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"prot in .* is not a setting: did you mean port\?"):
        load_settings(write(tmp_path / "t.toml", "prot = 1"))
    with pytest.raises(SettingsError, match=r"zzz in .* is not a setting: `turnwire settings` prints all"):
        load_settings(write(tmp_path / "t.toml", "zzz = 1"))


def test_a_misspelt_variable_is_an_error_that_names_the_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNWIRE_HEARTBEAT_INTERVALL_S", "1")

    with pytest.raises(SettingsError, match=r"did you mean TURNWIRE_HEARTBEAT_INTERVAL_S\?"):
        load_settings()


def test_other_variables_with_the_prefix_are_no_error_and_those_that_nobody_knows_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("LONG", "TEST_SEED", "SERVICE_HOST", "PORT_8080_TCP_ADDR", "WHATEVER"):
        monkeypatch.setenv(f"TURNWIRE_{name}", "1")

    load_settings()

    assert unknown_variables() == ["TURNWIRE_WHATEVER"]


def test_the_port_that_kubernetes_sets_for_a_service_of_this_name_is_not_taken_for_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TURNWIRE_PORT", "tcp://10.0.0.1:80")

    assert load_settings().port == 8080


@pytest.mark.parametrize("content", [b"port = ", b"\xff"])
def test_a_file_that_is_not_toml_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_bytes(content)

    with pytest.raises(SettingsError, match="is not valid TOML"):
        load_settings(file)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="can't be read: No such file"):
        load_settings(tmp_path / "none.toml")


def test_the_chosen_key_is_in_no_representation() -> None:
    settings = Settings(api_key="a-chosen-key")  # type: ignore[arg-type]

    assert "a-chosen-key" not in repr(settings) + str(settings) + settings.model_dump_json()
    assert settings.api_key is not None and settings.api_key.get_secret_value() == "a-chosen-key"


def test_the_data_folder_follows_xdg_and_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "home"
    monkeypatch.chdir(tmp_path)

    assert load_settings().data_dir == home / ".local/share/turnwire"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert load_settings().data_dir == tmp_path / "xdg/turnwire"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert load_settings().data_dir == home / ".local/share/turnwire"
    assert load_settings(data_dir="~/x").data_dir == home / "x"
    assert load_settings(data_dir=Path("y/../z")).data_dir == tmp_path / "z"


def test_the_names_that_the_contract_fixes_are_there() -> None:
    fixed = (
        "HOST PORT DATA_DIR MODEL DATABASE_URL API_KEY EVENT_IDS STEP_RETRIES CORS_ORIGINS ROOT_PATH TRUSTED_PROXIES "
        "HEARTBEAT_INTERVAL_S TURN_TIMEOUT_S RECOVERY SHUTDOWN_GRACE_S TTL_MAX_S REPLAY_RETENTION_S"
    )

    assert {name.lower() for name in fixed.split()} <= set(Settings.model_fields)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_says_what_it_is(name: str) -> None:
    description = Settings.model_fields[name].description

    assert description and description.endswith(".")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("fe80::1", "http://[fe80::1]:80"),
        ("localhost", "http://localhost:80"),
    ],
)
def test_the_url_of_an_address_can_be_called_from_this_machine(host: str, url: str) -> None:
    assert Address(host, 80).url == url


@pytest.mark.parametrize("path", ["/proc", "/proc/self", "/dev", "/dev/shm", "/tmp", "/workspace/x", "/skills"])
def test_a_path_that_would_cover_a_sandbox_s_own_is_refused(tmp_path: Path, path: str) -> None:
    file = tmp_path / "turnwire.toml"
    file.write_text(f'sandbox_paths = ["/opt/tools", "{path}"]')

    with pytest.raises(SettingsError, match=f"'{path}' lies where a sandbox has its own"):
        load_settings(file)


def test_a_path_below_tmp_can_be_shown(tmp_path: Path) -> None:
    file = tmp_path / "turnwire.toml"
    file.write_text('sandbox_paths = ["/tmp/tools", "/processes", "/devices"]')

    assert load_settings(file).sandbox_paths == [Path("/tmp/tools"), Path("/processes"), Path("/devices")]


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("[mcp.a]", "either a command or a url"),
        ('[mcp.a]\ncommand = "x"\nurl = "http://h"', "either a command or a url"),
        ('[mcp.a]\nurl = "ftp://h"', "begins with http:// or https://"),
        ('[mcp.a]\ncommand = " "', "is empty"),
        ('[mcp.a]\ncommand = "x\\u0000"', "a NUL character can't be handed to a program"),
        ('[mcp.a]\ncommand = "x"\npaths = ["opt"]', "'opt' is not an absolute path"),
        ('[mcp.a]\ncommand = "x"\npaths = ["/"]', "'/' is not an absolute path of something below /"),
        ('[mcp.a]\ncommand = "x"\npaths = ["/opt/../etc"]', "is not an absolute path"),
        ('[mcp.a]\ncommand = "x"\npaths = ["/proc/1"]', "'/proc/1' lies where a sandbox has its own /proc"),
        ('[mcp.a]\ncommand = "x"\nsandbox = false\npaths = ["/opt"]', "paths is for an MCP server in the sandbox"),
        ('[mcp.a]\ncommand = "x"\nheaders = {A = "7319"}', "headers is for an MCP server with a url"),
        ('[mcp.a]\nurl = "http://h"\nargs = ["7319"]', "args is for an MCP server with a command"),
        ('[mcp.a]\nurl = "http://h"\nenv = {A = "7319"}', "env is for an MCP server with a command"),
        ('[mcp.a]\nurl = "http://h"\nheaders = {"A b" = "7319"}', "is no name of an HTTP header"),
        ('[mcp.a]\nurl = "http://h"\nheaders = {A = "7319\\n"}', "can't be sent in an HTTP header"),
        ('[mcp.a]\ncommand = "x"\nsandbox = false\nenv = {A = 7319}', "valid string"),
        ('[mcp."a b"]\nurl = "http://h"', "match pattern"),
        ('[mcp.a]\nurl = "http://h"\nnope = 1', "not permitted"),
    ],
)
def test_an_mcp_server_that_can_t_be_used_is_told(tmp_path: Path, table: str, sentence: str) -> None:
    file = tmp_path / "turnwire.toml"
    file.write_text(table)

    with pytest.raises(SettingsError) as caught:
        load_settings(file)
    assert sentence in str(caught.value) and "7319" not in str(caught.value)


def test_mcp_servers_stand_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "turnwire.toml"
    file.write_text(
        '[mcp.time]\ncommand = "uvx"\nargs = ["mcp-server-time"]\nsandbox = false\n[mcp.b]\nurl = "http://h/"\n'
        '[mcp.c]\ncommand = "c"\npaths = ["/opt/c"]'
    )

    settings = load_settings(file)
    assert settings.mcp["time"].args == ["mcp-server-time"]
    assert settings.mcp["b"].url == "http://h/"
    assert settings.mcp["c"].sandbox and settings.mcp["c"].paths == [Path("/opt/c")]
