"""What a Dockerfile says, carried out without Docker: its commands run in a copy of this machine.

The copy is an overlay on the root folder, in a mount namespace of its own, thrown away at the end: what RUN and COPY
change is changed there alone. The base image is this machine, so what is tested is that the commands work and that the
server starts as the image would start it: as its user, with its environment, from its ENTRYPOINT and CMD.
"""

import json
import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Image(NamedTuple):
    """The instructions in their order, as (name, rest)."""

    instructions: list[tuple[str, str]]

    def last(self, name: str) -> str:
        return next(rest for found, rest in reversed(self.instructions) if found == name)

    @property
    def env(self) -> dict[str, str]:
        words = shlex.split(" ".join(rest for name, rest in self.instructions if name == "ENV"))
        return dict(word.split("=", 1) for word in words)

    @property
    def command(self) -> list[str]:
        return [*json.loads(self.last("ENTRYPOINT")), *json.loads(self.last("CMD"))]

    @property
    def healthcheck(self) -> list[str]:
        return json.loads(self.last("HEALTHCHECK").partition("CMD ")[2])


def read(path: Path) -> Image:
    text = re.sub(r"^#.*\n", "", path.read_text("utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return Image([(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)])


def build_script(image: Image, context: Path) -> str:
    """The COPY and RUN instructions as a shell script."""
    lines = ["set -eu", "umask 022"]
    for name, rest in image.instructions:
        if name == "RUN":
            lines.append(f"/bin/sh -c {shlex.quote(rest)}")
        elif name == "COPY":
            *sources, target = shlex.split(rest)
            into = target if target.endswith("/") else str(Path(target).parent)
            lines.append(f"mkdir -p {shlex.quote(into)}")
            copied = " ".join(shlex.quote(str(context / source)) for source in sources)
            lines.append(f"cp -r {copied} {shlex.quote(target)}")
        elif name == "ENV":
            lines += [f'export {word.split("=", 1)[0]}="{word.split("=", 1)[1]}"' for word in shlex.split(rest)]
    return "\n".join(lines) + "\n"


ENTER = """\
set -eu
mount --make-rprivate /
mount -t tmpfs -o size=6g tmpfs "$1"
mkdir "$1/up" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/up,workdir=$1/work" "$1/root"
for name in proc dev sys; do mount --rbind "/$name" "$1/root/$name"; done
mkdir "$1/root/.before"
cd "$1/root"
# Not a mere chroot: in one, the kernel makes no user namespaces, which the agents' sandbox is made of.
pivot_root . .before
umount -l /.before
mount -t tmpfs tmpfs /run
# The image's base has a `python`; Debian has `python3` alone.
command -v python >/dev/null || ln -s "$(command -v python3)" /usr/local/bin/python
# Where this machine's Python lies in root's home, the image's user has to get to it.
chmod o+x /root
shift
cd /
exec "$@"
"""
"""Arguments: an empty folder, then what to run in the copy. As root, in a mount namespace of its own."""
