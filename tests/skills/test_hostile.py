"""A thousand hostile zips and paths: nothing is written outside, and nothing is half installed."""

import contextlib
import hashlib
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from skills.hostile import SKILL_MD, hostile, names, zipped, zips
from turnwire.seams.mounts import Mounted
from turnwire.seams.skills import SkillError, SkillInvalid, SkillNotFound, SkillTooLarge
from turnwire.seams.workspace import EVERYTHING, NOTHING, FileAccess, WorkspaceError
from turnwire.skills import limits
from turnwire.skills.directory import DirectorySkills
from turnwire.workspaces.directory import DirectoryWorkspace

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    HOSTILE = hostile()


def view(folder: Path) -> DirectoryWorkspace:
    return DirectoryWorkspace(folder, FileAccess(read=EVERYTHING, write=NOTHING))


@pytest.fixture
def skills(tmp_path: Path) -> Iterator[DirectorySkills]:
    (tmp_path / "outside").write_text("before")
    yield DirectorySkills(tmp_path / "skills", view)


def install(skills: DirectorySkills, content: bytes, name: str = "demo", tenant: str = "t") -> bool:
    """Whether the skill is new."""
    upload = skills.install(tenant, name)
    try:
        for start in range(0, len(content), 100_000):
            upload.write(content[start : start + 100_000])
        return upload.commit()[1]
    finally:
        upload.abort()


def state(folder: Path) -> dict[str, tuple[int, str]]:
    """All that is below a folder: modes, and what is in files and links."""
    found: dict[str, tuple[int, str]] = {}
    for above, folders, files in os.walk(folder):
        for name in folders + files:
            path = Path(above) / name
            if name == ".staging":
                continue
            mode = path.lstat().st_mode
            content = path.read_bytes() if stat.S_ISREG(mode) else b""
            found[str(path.relative_to(folder))] = (mode, hashlib.sha256(content).hexdigest())
    return found


def check_clean(folder: Path) -> None:
    """What is installed is plain files and folders, and nothing is left where they were unpacked."""
    for path, (mode, _) in state(folder).items():
        assert stat.S_ISREG(mode) or stat.S_ISDIR(mode), path
        assert not mode & 0o7022, (path, oct(mode))
    assert list((folder / "skills/.staging").iterdir()) == []


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_zip_changes_nothing(skills: DirectorySkills, tmp_path: Path, what: str) -> None:
    install(skills, zipped(("kept", b"before")))
    install(skills, zipped(), tenant="other")
    before = state(tmp_path)

    with pytest.raises(SkillError) as refused:
        install(skills, HOSTILE[what])

    assert str(refused.value).endswith(".") and "\n" not in str(refused.value) and str(refused.value).isprintable()
    assert state(tmp_path) == before
    check_clean(tmp_path)


def test_what_is_large_is_said_to_be(skills: DirectorySkills) -> None:
    for what in ("bomb by ratio", "bomb by total", "bomb by count", "bomb by overlap", "size that lies, huge"):
        with pytest.raises(SkillTooLarge):
            install(skills, HOSTILE[what])
    upload = skills.install("t", "demo")
    with pytest.raises(SkillTooLarge):
        for _ in range(limits.ZIP_BYTES_MAX // 1_000_000 + 1):
            upload.write(b"x" * 1_000_000)
    upload.abort()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Duplicate name")
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=zips)
def test_a_thousand_zips_write_nothing_outside_and_no_half_skill(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp() / "thousand"
    folder.mkdir(exist_ok=True)
    skills = DirectorySkills(folder / "skills", view)
    install(skills, zipped(("kept", b"before")))
    before = state(folder)

    try:
        install(skills, content)
        event("installed")
    except SkillError:
        event("refused")
        assert state(folder) == before

    check_clean(folder)
    assert {path.split("/")[0] for path in state(folder)} == {"skills"}
    assert [skill.name for skill in skills.list("t")] == ["demo"]
    assert (folder / "skills/t/demo/SKILL.md").read_bytes().startswith(SKILL_MD[:10])


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(path=names | st.builds("/skills/{}".format, names), name=names)
def test_a_thousand_paths_read_nothing_but_skills(
    tmp_path_factory: pytest.TempPathFactory, path: str, name: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "paths"
    folder.mkdir(exist_ok=True)
    (folder / "main").mkdir(exist_ok=True)
    (folder / "secret").write_text("secret")
    skills = DirectorySkills(folder / "skills", view)
    if not skills.list("t"):
        install(skills, zipped())
        install(skills, zipped(), tenant="other")
    before = state(folder)
    shown = skills.workspace("t")
    assert shown is not None
    workspace = Mounted(DirectoryWorkspace(folder / "main", FileAccess()), "/skills", shown)

    try:
        with workspace.open(path) as file:
            assert file.stream.read() == SKILL_MD
        assert path.startswith("/skills")
    except WorkspaceError:
        pass
    if path.startswith("/skills"):
        for change in (lambda: workspace.put(path, bytes_max=10), lambda: workspace.delete(path)):
            with pytest.raises(WorkspaceError):
                change()
    if name != "demo":
        with pytest.raises(SkillNotFound):
            skills.remove("t", name)
        with contextlib.suppress(SkillInvalid):
            skills.install("t", name).abort()

    assert state(folder) == before
