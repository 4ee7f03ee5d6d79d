"""Zips that mean harm, or are broken: a list of known ones, and hypothesis's."""

import io
import stat
import struct
import zipfile
from collections.abc import Callable

from hypothesis import strategies as st

SKILL_MD = b"---\nname: demo\ndescription: Does things. Use it when asked.\n---\n\n# Demo\n"

Entry = tuple[str | zipfile.ZipInfo, bytes]


def zipped(
    *entries: Entry, skill_md: bytes | None = SKILL_MD, top: str = "", packing: int = zipfile.ZIP_DEFLATED
) -> bytes:
    """A zip of a skill with these entries beside its SKILL.md."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", packing) as archive:
        if skill_md is not None:
            archive.writestr(f"{top}SKILL.md", skill_md)
        for name, content in entries:
            archive.writestr(name, content)
    return sink.getvalue()


def special(name: str, kind: int, system: int = 3) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = system
    info.external_attr = (kind | 0o777) << 16
    return info


def renamed(content: bytes, old: bytes, new: bytes) -> bytes:
    """The zip with a name of the same length put in another's place, wherever it stands."""
    assert len(old) == len(new) and old in content
    return content.replace(old, new)


def flagged(content: bytes, bits: int) -> bytes:
    """The zip with these flags on every entry, in both of its places."""
    data = bytearray(content)
    for signature, at in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        start = data.find(signature)
        while start >= 0:
            (flags,) = struct.unpack_from("<H", data, start + at)
            struct.pack_into("<H", data, start + at, flags | bits)
            start = data.find(signature, start + 4)
    return bytes(data)


def lying(content: bytes, size: int) -> bytes:
    """The zip whose last entry says that it unpacks to so many bytes."""
    data = bytearray(content)
    struct.pack_into("<L", data, data.rfind(b"PK\x01\x02") + 24, size)
    return bytes(data)


def overlapping(count: int) -> bytes:
    """A zip whose directory names the same packed bytes many times."""
    plain = zipped(("a" * 8, b"\0" * 1_000_000))
    end = plain.rfind(b"PK\x05\x06")
    start = plain.rfind(b"PK\x01\x02")
    entry = plain[start:end]
    entries = [entry.replace(b"a" * 8, b"%08d" % n) for n in range(count)]
    directory = plain[plain.find(b"PK\x01\x02") : start] + b"".join(entries)
    offset = plain.find(b"PK\x01\x02")
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count + 1, count + 1, len(directory), offset, 0)
    return plain[:offset] + directory + tail


BAD_NAMES = [
    "../evil", "../../evil", "a/../../evil", "a/../b", "./a", "a/./b", "a//b", "/evil", "//evil", "/etc/passwd",
    "/tmp/evil", "..", ".", "a/..", "..\\evil", "a\\b", "C:evil", "C:/evil", "c:\\evil", "\\\\host\\share",
    "a\x00b", "a\nb", "a\x1bb", "a\u202eb", "a/" * 40 + "b", "x" * 300, "x/" + "y" * 250, ".turnwire-a.part",
    "../demo2/SKILL.md", "a/../../../../../../evil", "..%2fevil/../x", "~/../evil", "\u2028",
]  # fmt: skip


def hostile() -> dict[str, bytes]:
    """Known attacks and faults, by what they are."""
    found = {f"name {name!r:.40}": zipped((name, b"evil")) for name in BAD_NAMES if "\x00" not in name}
    found |= {f"name {name!r:.40}, in a folder": zipped((name, b"evil"), top="demo/") for name in BAD_NAMES[:12]}
    ok = zipped(("abcdefgh", b"content"))
    found |= {
        "NUL in a name": renamed(ok, b"abcdefgh", b"ab\0defgh"),
        "name that is no UTF-8": flagged(renamed(ok, b"abcdefgh", b"\xff\xfe\xfdabcde"), 0x800),
        "local name differs": ok.replace(b"abcdefgh", b"../evilx", 1),
        "directory name differs": b"ab/cdefg".join(ok.rsplit(b"abcdefgh", 1)),
        "symlink": zipped((special("link", stat.S_IFLNK), b"/etc/passwd")),
        "symlink inside": zipped((special("link", stat.S_IFLNK), b"SKILL.md")),
        "symlink, made on another system": zipped((special("link", stat.S_IFLNK, 0), b"/etc/passwd")),
        "symlink to a folder, and a file through it": zipped((special("d", stat.S_IFLNK), b"/tmp"), ("d/evil", b"x")),
        "SKILL.md as a symlink": zipped((special("SKILL.md", stat.S_IFLNK), b"/etc/passwd"), skill_md=None),
        "FIFO": zipped((special("fifo", stat.S_IFIFO), b"")),
        "device": zipped((special("null", stat.S_IFCHR), b"")),
        "socket": zipped((special("s", stat.S_IFSOCK), b"")),
        "folder that is a file": zipped((special("d", stat.S_IFDIR), b"x")),
        "folder with content": zipped((special("d/", stat.S_IFDIR), b"content")),
        "encrypted": flagged(ok, 0x1),
        "strongly encrypted": flagged(ok, 0x40),
        "LZMA": zipped(("a", b"x" * 100), packing=zipfile.ZIP_LZMA),
        "BZIP2": zipped(("a", b"x" * 100), packing=zipfile.ZIP_BZIP2),
        "bomb by ratio": zipped(("zeros", b"\0" * 40_000_000)),
        "bomb by total": zipped(*((f"f{n}", bytes(range(256)) * 40_000) for n in range(7))),
        "bomb by count": zipped(*((f"f{n}", b"") for n in range(1500))),
        "bomb by overlap": overlapping(900),
        "size that lies, small": lying(zipped(("a", b"x" * 10_000)), 5),
        "size that lies, large": lying(zipped(("a", b"x" * 10_000)), 50_000),
        "size that lies, huge": lying(zipped(("a", b"x" * 10_000)), 0xFFFF_FFF0),
        "file and folder of one name": zipped(("a", b"x"), ("a/b", b"y")),
        "folder and file of one name": zipped(("a/b", b"y"), ("a", b"x")),
        "names that differ in case": zipped(("Read.md", b"x"), ("README.md", b"y"), ("read.MD", b"z")),
        "folders that differ in case": zipped(("A/x", b"x"), ("a/y", b"y")),
        "names that differ in composition": zipped(("\u00e9", b"x"), ("e\u0301", b"y")),
        "SKILL.md and skill.md": zipped(("skill.md", b"x")),
        "no SKILL.md": zipped(("README.md", b"x"), skill_md=None),
        "nothing": zipped(skill_md=None),
        "two skills": zipped(("b/SKILL.md", SKILL_MD), top="a/"),
        "SKILL.md too deep": zipped(skill_md=SKILL_MD, top="a/b/"),
        "SKILL.md in a folder, and a file beside it": zipped(("other", b"x"), top="demo/"),
        "SKILL.md is a folder": zipped(("SKILL.md/a", b"x"), skill_md=None),
        "no zip": b"hello",
        "an end alone, with lies": struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 5, 5, 500, 0, 0),
        "empty": b"",
        "half a zip": ok[: len(ok) // 2],
        "a zip without its head": ok[40:],
        "damaged content": ok[:45] + b"\xff" * 12 + ok[57:],
        "zip64": ok[:-22] + struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1) + ok[-22:],
        "directory beyond the file": ok[:-10] + struct.pack("<L", 0xFFFF_FF00) + ok[-6:],
    }  # fmt: skip
    doubled = io.BytesIO()
    with zipfile.ZipFile(doubled, "w") as archive:
        archive.writestr("SKILL.md", SKILL_MD)
        archive.writestr("aaaaaaaa", b"1")
        archive.writestr("bbbbbbbb", b"2")
    found["an entry twice"] = renamed(doubled.getvalue(), b"bbbbbbbb", b"aaaaaaaa")
    found["SKILL.md twice"] = renamed(zipped(("AAAAAAAA", b"---\nname: evil\n---\n")), b"AAAAAAAA", b"SKILL.md")
    for what, text in FRONT_MATTERS.items():
        found[f"front matter: {what}"] = zipped(skill_md=text)
    return found


FRONT_MATTERS = {
    "none": b"# Demo\n",
    "empty file": b"",
    "empty": b"---\n---\n",
    "not ended": b"---\nname: demo\ndescription: x\n",
    "another name": b"---\nname: other\ndescription: x\n---\n",
    "name in capitals": b"---\nname: Demo\ndescription: x\n---\n",
    "no name": b"---\ndescription: x\n---\n",
    "no description": b"---\nname: demo\n---\n",
    "white description": b"---\nname: demo\ndescription: '  '\n---\n",
    "description of another type": b"---\nname: demo\ndescription: [a, b]\n---\n",
    "long description": b"---\nname: demo\ndescription: %b\n---\n" % (b"x" * 1025),
    "a list": b"---\n- name\n- demo\n---\n",
    "a text": b"---\nname\n---\n",
    "no YAML": b"---\nname: [demo\n---\n",
    "no UTF-8": b"---\nname: demo\ndescription: \xff\n---\n",
    "an object of Python": b"---\nname: demo\ndescription: !!python/object/apply:os.system ['touch /tmp/evil']\n---\n",
    "a deep nest": b"---\nname: demo\ndescription: x\nx: %b%b\n---\n" % (b"[" * 4000, b"]" * 4000),
    "too long": b"---\nname: demo\ndescription: x\nx: %b\n---\n" % (b"y" * 20_000),
    "laughs": b"---\na: &a [x,x,x,x,x,x,x,x,x]\n"
    + b"".join(b"%c: &%c [%b]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 9)) for n in range(20))
    + b"name: demo\n---\n",
}

# Names that hypothesis makes of the pieces of attacks.
_pieces = st.sampled_from(
    ["..", ".", "", "a", "b", "SKILL.md", "skill.md", "\\", "\x00", "\n", "C:", "~", "é", "e\u0301", "x" * 250, " ",
     "%2e%2e", "__MACOSX", ".DS_Store", "\u202e", "\ud800", ".turnwire-0123456789abcdef.part"]
)  # fmt: skip
names = st.one_of(
    st.builds("/".join, st.lists(_pieces, min_size=1, max_size=6)),
    st.builds(lambda *p: "/" + "/".join(p), _pieces, _pieces),
    st.text(min_size=1, max_size=20),
)
_modes = st.sampled_from(
    [0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK, 0xF000]
)


def _entry(name: str, kind: int, permissions: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("x")
    info.filename = info.orig_filename = name.encode("utf-8", "replace").decode()
    info.external_attr = (kind | permissions) << 16
    return info


_entries = st.lists(
    st.tuples(st.builds(_entry, names, _modes, st.integers(0, 0o7777)), st.binary(max_size=50)), max_size=6
)


def _mangled(content: bytes, changes: list[tuple[int, int]], cut: int | None) -> bytes:
    data = bytearray(content)
    for at, value in changes:
        data[at % len(data)] = value
    return bytes(data[: cut % (len(data) + 1)] if cut is not None else data)


_made: Callable[..., st.SearchStrategy[bytes]] = st.builds
zips = st.one_of(
    _made(
        lambda entries, skill, top: zipped(*entries, skill_md=SKILL_MD if skill else None, top=top),
        _entries,
        st.booleans(),
        st.sampled_from(["", "demo/", "../", "/"]),
    ),
    _made(
        _mangled,
        st.sampled_from([zipped(("run.sh", b"echo"), ("ref/a.md", b"x" * 500)), zipped(("a", b""), top="demo/")]),
        st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8),
        st.one_of(st.none(), st.integers(0, 10_000)),
    ),
    st.binary(max_size=300),
)
