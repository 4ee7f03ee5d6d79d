"""What commands reach of the network: public addresses and a resolver, where the settings say so, and nothing else.

Each runs on a machine in a small internet (internet.py), once with each of pasta and slirp4netns, as each kind of user.
Where this machine can't give sandboxes a network, the server has to say so, and why: that is tested then instead."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, TypeVar

import pytest

from sandboxes import internet
from sandboxes.helpers import ORDINARY_UID, Machine, Ran, become, in_child, run_in
from sandboxes.internet import GATEWAY, GREETING, INNER, NAME, OWN, PORT, PUBLIC, RESOLVER
from turnwire.sandboxes.bubblewrap import Bubblewrap
from turnwire.sandboxes.choose import choose
from turnwire.sandboxes.network.gate import closed_networks
from turnwire.sandboxes.network.uplinks import Uplink, uplinks_here
from turnwire.seams.sandbox import Command, Network, SandboxError
from turnwire.seams.workspace import FileAccess
from turnwire.workspaces.directory import DirectoryWorkspace

pytestmark = [pytest.mark.slow, pytest.mark.tool("bwrap", "ip", "perl")]

Result = TypeVar("Result")
DEVICES = [Path("/dev/net/tun")]


@pytest.fixture(params=["pasta", "slirp4netns"])
def uplink(request: pytest.FixtureRequest, box: Machine) -> Iterator[Uplink]:
    """One that is on this machine, and works; where none can, what the server says of that is tested instead."""
    path = shutil.which(request.param)
    if path is None:
        pytest.skip(
            f"{request.param} is missing here: install {'passt' if request.param == 'pasta' else request.param}"
        )
    uplink = Uplink(request.param, Path(path))
    if trouble := missing_here():
        network = status(box, [uplink])
        assert network.by == ""
        assert "/dev/net/tun" in f"{network.reason} {network.todo}" or "veth" in trouble, (network, trouble)
        pytest.xfail(f"this machine gives sandboxes no network ({trouble}), and the server says so: {network.reason}")
    yield uplink


def missing_here() -> str:
    """What of the kernel's a sandbox's network needs and this machine has not, seen without the product."""
    if not DEVICES[0].is_char_device():
        return "there is no /dev/net/tun"
    trial = ["unshare", "-rn", "ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1"]
    return "" if subprocess.run(trial, capture_output=True).returncode == 0 else "no veth"


def status(box: Machine, uplinks: list[Uplink] | None, before: Callable[[], None] | None = None) -> Network:
    async def work() -> Network:
        sandbox = box.online("on", uplinks)
        await sandbox.aclose()
        return sandbox.status.network

    return box.as_user(work, before=before)


def enter(box: Machine) -> Callable[[], None]:
    def before() -> None:
        internet.enter(internet.tun_for_all if box.user == "ordinary" else internet.tun_as_it_is)

    return before


def online(box: Machine, work: Callable[[], Awaitable[Result]]) -> Result:
    """Do something on the machine in the small internet."""
    return box.as_user(work, before=enter(box))


def run_online(box: Machine, uplink: Uplink, script: str, *, wall_s: float = 20.0) -> Ran:
    async def work() -> Ran:
        sandbox = box.online("on", [uplink])
        assert sandbox.status.network == Network(uplink.kind)
        try:
            return await run_in(sandbox, box.workspace, script, wall_s=wall_s)
        finally:
            await sandbox.aclose()

    return online(box, work)


# ── What is reached ────────────────────────────────────────────────────────────────────────────────────────────────

CONNECT = "cat < /dev/tcp/{}/{} 2>&1"
SEND_UDP = (
    "perl -MSocket -e '$SIG{ALRM} = sub { exit 3 }; alarm 3; socket(S, PF_INET, SOCK_DGRAM, 0); "
    "send(S, q(ping), 0, sockaddr_in(%s, inet_aton(q(%s)))); recv(S, $x, 99, 0); print $x'"
)

REACHED = [
    ("a public address", CONNECT.format(PUBLIC, PORT), GREETING.decode()),
    ("by its name", CONNECT.format(NAME, PORT), GREETING.decode()),
    ("by UDP", SEND_UDP % (PORT, PUBLIC), "ping"),
    ("much", f"cat < /dev/tcp/{PUBLIC}/{PORT + 1} | wc -c", f"{internet.BULK_BYTES}\n"),
    ("its own loopback", "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen => 1, LocalPort => 7007); "
     "fork or do { IO::Socket::INET->new(q(127.0.0.1:7007))->print(q(own)); exit }; print $s->accept->getline'", "own"),
    ("a name that isn't there", "getent hosts nothing.example; echo $?", "2\n"),
]  # fmt: skip


def test_public_addresses_and_names_are_reached(box: Machine, uplink: Uplink) -> None:
    ran = run_online(box, uplink, "; echo; echo ---; ".join(script for _, script, _ in REACHED))

    assert [part.strip() for part in ran.output.split("---")] == [says.strip() for _, _, says in REACHED]


# ── What is not reached ────────────────────────────────────────────────────────────────────────────────────────────

CLOSED = [
    *(("127.0.0.1", PORT), (RESOLVER, PORT), ("0.0.0.0", PORT), ("10.0.2.2", PORT), ("10.0.2.3", PORT)),
    *((address, PORT) for address in (*OWN, GATEWAY, *INNER)),
]
"""Something answers at each of them from outside of a sandbox, but for those of 10.0.2.0/24, behind which pasta and
slirp4netns have the machine's loopback and its resolver's machine."""

KNOCK = """
use Socket; use IO::Select;
my ($open, @all) = (q(), map { [split /:/] } @ARGV);
sub note { $open .= qq(@_\\n) }
for my $bound (q(), q(eth0)) {
    my @tried;
    for my $one (@all) {
        socket(my $s, PF_INET, SOCK_STREAM, 0) or die;
        if ($bound) { setsockopt($s, SOL_SOCKET, 25, $bound) or die qq(SO_BINDTODEVICE: $!) }
        $s->blocking(0);
        connect($s, sockaddr_in($one->[1], inet_aton($one->[0])));
        push @tried, [$s, $one];
    }
    sleep 1;
    for my $try (@tried) {
        my ($s, $one) = @$try;
        note(qq(tcp @$one $bound)) if sysread($s, my $x, 10);
    }
}
print $open, qq(knocked at ), scalar(@all), qq(\\n);
"""


def test_nothing_else_is_reached_not_by_sockets_that_pass_by_routes_either(box: Machine, uplink: Uplink) -> None:
    targets = " ".join(f"{address}:{port}" for address, port in [*CLOSED, (PUBLIC, PORT)])
    script = f"cat > knock.pl <<'END'\n{KNOCK}\nEND\nperl -MIO::Handle knock.pl {targets}"

    async def work() -> tuple[list[str], Ran]:
        unreachable = [address for address, _ in CLOSED if not internet.can_connect(address)]
        sandbox = box.online("on", [uplink])
        ran = await run_in(sandbox, box.workspace, script)
        await sandbox.aclose()
        return unreachable, ran

    unreachable, ran = online(box, work)
    assert unreachable == ["10.0.2.2", "10.0.2.3"]
    # The public one shows that knocking works.
    assert ran.output == (f"tcp {PUBLIC} {PORT} \ntcp {PUBLIC} {PORT} eth0\nknocked at {len(CLOSED) + 1}\n")


PKTINFO = """
use Socket;
# A link, chosen packet by packet: struct cmsghdr with IP_PKTINFO, and struct in_pktinfo.
open F, q(/sys/class/net/eth0/ifindex) or open F, q(/proc/net/dev) or die;
socket(my $s, PF_INET, SOCK_DGRAM, 0) or die;
setsockopt($s, 0, 50, pack(q(N), $ARGV[2])) or die qq(IP_UNICAST_IF: $!);
send($s, q(ping), 0, sockaddr_in($ARGV[1], inet_aton($ARGV[0]))) or print qq(refused\\n);
$SIG{ALRM} = sub { print qq(nothing came back\\n); exit }; alarm 1;
recv($s, my $x, 99, 0); print qq($x\\n);
"""


def test_udp_that_names_its_link_reaches_no_resolver_s_neighbour(box: Machine, uplink: Uplink) -> None:
    async def work() -> Ran:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 0))
        asyncio.get_running_loop().add_reader(server, lambda: _echo(server))
        sandbox = box.online("on", [uplink])
        port = server.getsockname()[1]
        script = f"cat > udp.pl <<'END'\n{PKTINFO}\nEND\n" + "; ".join(
            f"perl udp.pl {address} {at} 2" for address, at in (("127.0.0.1", port), (OWN[0], port), (PUBLIC, PORT))
        )
        ran = await run_in(sandbox, box.workspace, script)
        await sandbox.aclose()
        return ran

    ran = online(box, work)
    assert ran.output.splitlines()[-1] == "ping"
    assert ran.output.count("ping") == 1, ran.output


def _echo(server: socket.socket) -> None:
    data, client = server.recvfrom(100)
    server.sendto(data, client)


UNABLE = [
    # The gate's own answer: of the resolver's machine only port 53 is open, whatever slirp4netns would do.
    (f"timeout 2 bash -c 'echo > /dev/tcp/10.0.2.3/{PORT}'", "No route to host"),
    ("ip route del prohibit 10.0.0.0/8", "Operation not permitted"),
    ("ip route add 10.0.0.0/8 via 10.0.2.101", "Operation not permitted"),
    ("ip address add 10.0.2.2/24 dev eth0", "Operation not permitted"),
    ("ip link set lo down", "Operation not permitted"),
    ("ip -6 route; ls /proc/sys/net/ipv6 >/dev/null; cat /proc/net/if_inet6 | grep -v ' lo$'; echo none", "none\n"),
    ("grep -h Cap /proc/self/status | sort -u | grep -v 0000000000000000; echo none", "none\n"),
    ("ls /proc | grep -c '^[0-9]'; cat /proc/*/comm | grep -E 'pasta|slirp|python'; echo none", "none\n"),
    ("nsenter -t 1 -n true; unshare -Un true", "unshare failed"),
    ("echo *; ls /proc/self/fd | xargs", "0 1 2 3\n"),
    ("perl -e 'kill PIPE => $$; sleep 1'; echo $?", "141\n"),
]


def test_a_command_can_t_change_its_network_and_sees_nothing_of_what_carries_it(box: Machine, uplink: Uplink) -> None:
    ran = run_online(box, uplink, "; echo ---; ".join(f"({script}) 2>&1" for script, _ in UNABLE))

    parts = ran.output.split("---\n")
    assert len(parts) == len(UNABLE)
    for part, (script, says) in zip(parts, UNABLE, strict=True):
        assert says in part, (script, part)


def test_two_commands_don_t_reach_each_other(box: Machine, uplink: Uplink) -> None:
    listen = "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen => 1, LocalPort => 7007); sleep 3'"

    async def work() -> Ran:
        sandbox = box.online("on", [uplink])
        first = asyncio.create_task(run_in(sandbox, box.workspace, listen))
        await asyncio.sleep(0.5)
        targets = ("10.0.2.102", "10.0.2.101", "10.0.2.100")
        knock = "; ".join(f"timeout 1 bash -c 'echo > /dev/tcp/{address}/7007' && echo reached" for address in targets)
        second = await run_in(sandbox, box.workspace, knock)
        first.cancel()
        await sandbox.aclose()
        return second

    assert "reached" not in online(box, work).output


def test_the_machine_s_addresses_and_networks_are_closed_and_a_tunnel_s_everything_is_not() -> None:
    def before() -> None:
        internet.enter(internet.tun_as_it_is)
        subprocess.run(["ip", "address", "add", "20.0.0.1/0", "dev", "lo"], check=True)

    async def work() -> list[str]:
        return [str(network) for network in closed_networks()]

    closed = list(map(IPv4Network, in_child(work, None, before)))
    assert {"192.0.2.0/24", "198.51.100.9/32", "20.0.0.1/32"} <= set(map(str, closed))
    assert not any(IPv4Network(f"{PUBLIC}/32").subnet_of(network) for network in closed)


# ── Whose commands have one ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("rule", "said", "has"),
    [
        ("off", None, False),
        ("off", True, False),
        ("session", None, False),
        ("session", True, True),
        ("session", False, False),
        ("on", None, True),
        ("on", True, True),
        ("on", False, False),
    ],
)
def test_a_network_is_there_where_settings_and_session_say_so(
    rule: Any, said: bool | None, has: bool, box: Machine, uplink: Uplink
) -> None:
    if uplink.kind != next(uplinks_here()).kind:
        return

    async def work() -> Ran:
        sandbox = box.online(rule)
        script = f"{CONNECT.format(PUBLIC, PORT)}; ls /etc/resolv.conf; ip -br link | wc -l"
        ran = await run_in(sandbox, box.workspace, script, network=said)
        await sandbox.aclose()
        return ran

    output = online(box, work).output
    assert (GREETING.decode() in output) == has
    assert ("Network is unreachable" in output) != has
    assert output.endswith("2\n" if has else "1\n")


# ── Lifetimes ──────────────────────────────────────────────────────────────────────────────────────────────────────


def family(pid: int) -> set[int]:
    """All that descend from a process, and itself."""
    found = {pid}
    parents = dict(_parents())
    while new := {child for child, parent in parents.items() if parent in found} - found:
        found |= new
    return found


def _parents() -> Iterator[tuple[int, int]]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            yield int(path.parent.name), int(parent)


def programs_of(pids: set[int]) -> set[str]:
    """What they were started as; bwrap, which is started by a handle, by its arguments."""
    found: set[str] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            found.add("bwrap" if b"--block-fd" in line else Path(os.fsdecode(line[0])).name)
    return found


def gone(pids: set[int]) -> bool:
    deadline = time.monotonic() + 2
    while pids & dict(_parents()).keys():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("how", ["by itself", "killed", "session", "time", "gate killed"])
def test_what_carries_a_network_ends_with_its_command(how: str, box: Machine, uplink: Uplink) -> None:
    async def work() -> tuple[set[str], bool, int]:
        sandbox = box.online("on", [uplink])
        wall_s = 1.0 if how == "time" else 20
        script = "sleep 0.7; exit 3" if how == "by itself" else "sleep 20"
        running = await sandbox.start(
            Command(
                argv=("bash", "-c", script),
                tenant="t",
                session_id="s",
                workspace=DirectoryWorkspace(box.workspace, FileAccess()),
                wall_s=wall_s,
            ),
            lambda _: None,
        )
        pid: int = running.pid  # type: ignore[attr-defined]
        async with asyncio.timeout(15):
            while not {"sleep", "bwrap", uplink.kind} <= programs_of(family(pid)):
                await asyncio.sleep(0.02)
        there = family(pid)
        names = programs_of(there)
        if how == "killed":
            running.kill()
        elif how == "session":
            await sandbox.end_session("s")
        elif how == "gate killed":
            os.kill(pid, signal.SIGKILL)
        ending = await running.wait()
        left = gone(there)
        await sandbox.aclose()
        return names, left, ending.exit_code

    names, left, exit_code = online(box, work)
    assert {"bwrap", uplink.kind, "sleep"} <= names
    assert left
    assert exit_code == (3 if how == "by itself" else 137)


def test_all_end_with_the_server_even_when_it_is_killed(box: Machine, uplink: Uplink) -> None:
    async def work() -> None:
        sandbox = box.online("on", [uplink])
        workspace = DirectoryWorkspace(box.workspace, FileAccess())
        command = Command(argv=("sleep", "60"), tenant="t", session_id="s", workspace=workspace, wall_s=None)
        await sandbox.start(command, lambda _: None)
        await asyncio.sleep(60)

    server = os.fork()
    if server == 0:
        try:
            enter(box)()
            if box.user == "ordinary":
                become(ORDINARY_UID)
            asyncio.run(work())
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    try:
        deadline = time.monotonic() + 15
        while not {"sleep", "bwrap", uplink.kind} <= programs_of(family(server)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        there = family(server) - {server}
    finally:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)

    assert gone(there)


# ── What is said of a machine ──────────────────────────────────────────────────────────────────────────────────────


def test_without_pasta_and_slirp4netns_the_status_says_what_to_install_and_commands_have_none(box: Machine) -> None:
    async def work() -> tuple[Network, Ran]:
        sandbox = box.online("on", [])
        ran = await run_in(sandbox, box.workspace, CONNECT.format(PUBLIC, PORT))
        await sandbox.aclose()
        return sandbox.status.network, ran

    network, ran = box.as_user(work)
    assert network.by == ""
    assert network.reason == "Neither pasta nor slirp4netns is there."
    assert "apt install passt" in network.todo
    assert "Network is unreachable" in ran.output


def test_without_a_tun_device_the_status_says_so_and_commands_run_without_network(box: Machine, uplink: Uplink) -> None:
    async def work() -> tuple[Network, bool, Ran]:
        sandbox = box.online("on", [uplink])
        ran = await run_in(sandbox, box.workspace, CONNECT.format(PUBLIC, PORT))
        await sandbox.aclose()
        return sandbox.status.network, sandbox.status.available, ran

    network, available, ran = box.as_user(work, before=lambda: internet.enter(internet.no_tun))
    assert available
    assert network.by == ""
    assert str(uplink.path) in network.reason
    assert "/dev/net/tun" in network.todo
    assert "Network is unreachable" in ran.output


def test_the_second_is_taken_where_the_first_does_not_work(box: Machine, uplink: Uplink, tmp_path: Path) -> None:
    broken = box.data.parent / "pasta"
    broken.write_text("#!/bin/sh\necho broken >&2; exit 1\n")
    broken.chmod(0o755)

    async def work() -> Network:
        sandbox = box.online("on", [Uplink("pasta", broken), uplink])
        await sandbox.aclose()
        return sandbox.status.network

    assert online(box, work) == Network(uplink.kind)


def test_a_network_that_fails_later_fails_its_command_before_that_runs(box: Machine, uplink: Uplink) -> None:
    program = box.data.parent / uplink.kind
    program.write_text(
        f'#!/bin/sh\ntest -e {box.data}/broken && {{ echo it broke >&2; exit 1; }}\nexec {uplink.path} "$@"\n'
    )
    program.chmod(0o755)
    box.data.chmod(0o755)

    async def work() -> tuple[Network, Ran]:
        sandbox = box.online("on", [Uplink(uplink.kind, program)])
        (box.data / "broken").touch()
        ran = await run_in(sandbox, box.workspace, "echo it ran; touch ran")
        await sandbox.aclose()
        return sandbox.status.network, ran

    network, ran = online(box, work)
    assert network == Network(uplink.kind)
    assert ran.output == "The sandbox's network can't be set up: it broke\n"
    assert ran.ending.exit_code == 125
    assert not (box.workspace / "ran").exists()


async def test_without_a_sandbox_a_session_that_wants_no_network_has_no_commands(tmp_path: Path) -> None:
    limits = {"memory_mib": 64, "processes": 8, "file_mib": 1, "tmp_mib": 1, "cpu_s": 1}
    sandbox = choose("none", **limits, network="off", paths=[], hidden=[])

    with pytest.raises(SandboxError, match="has no network can't be kept"):
        await sandbox.start(
            Command(
                argv=("true",),
                tenant="t",
                session_id="s",
                workspace=DirectoryWorkspace(tmp_path, FileAccess()),
                wall_s=5,
                network=False,
            ),
            lambda _: None,
        )
    await sandbox.aclose()


def test_off_says_that_it_is_off() -> None:
    assert Bubblewrap(network="off").status.network.reason == "The setting sandbox_network is off."
