"""The job that this is for: a table is uploaded, the agent cleans, computes and plots in its sandbox, looks at what it
made and writes a report; the picture is downloaded, and shows what it must."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from e2e.conftest import Loop
from e2e.harness import Server
from fakes import Answer, FakeOpenAIChat, ToolCall, Usage
from pictures import decode_png

pytestmark = [pytest.mark.tool("bwrap", "matplotlib"), pytest.mark.slow]

TABLE = """\
month;bills
1;10,00
2;20,50
2;20,50
3;
4;n/a
5;55,25
6;  60
7;42,00

8;90,75
""".encode("latin-1")
"""German decimals, a line twice, two without a value, a blank, an empty line."""
POINTS = {1: 10.0, 2: 20.5, 5: 55.25, 6: 60.0, 7: 42.0, 8: 90.75}

PROGRAM = """\
import csv, json
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt

points = {}
with open("in/bills.csv", encoding="latin-1") as file:
    for row in csv.DictReader(file, delimiter=";"):
        try:
            points[int(row["month"])] = float(row["bills"].strip().replace(",", "."))
        except ValueError:
            continue
with open("out/clean.json", "w") as file:
    json.dump(points, file)
figure, axes = plt.subplots(figsize=(6.4, 4.8), dpi=100)
axes.plot(list(points), list(points.values()), color="#ff0000", linewidth=3)
axes.set(xlim=(0, 10), ylim=(0, 100), xlabel="month", ylabel="bills", title="Bills by month")
axes.set_position([0.125, 0.11, 0.775, 0.77])
figure.savefig("out/plot.png")
print(f"months: {len(points)}, total: {sum(points.values()):.2f}")
"""


def call(name: str, **arguments: Any) -> Answer:
    return Answer.of(ToolCall(name, (json.dumps(arguments),)), Usage(100, 20))


def test_a_table_becomes_a_plot_and_a_report(loop: Loop, serve: Callable[..., Server]) -> None:
    fake = loop.start(
        FakeOpenAIChat(
            [
                call("read_file", path="in/bills.csv"),
                call("write_file", path="analyse.py", content=PROGRAM),
                call("bash", command="mkdir -p out && python3 analyse.py"),
                call("read_file", path="out/plot.png"),
                call("write_file", path="out/report.md", content="# Bills\n\nIn all 278.50.\n\n![Plot](plot.png)\n"),
                Answer.of("The report is in out/report.md.", Usage(100, 20)),
            ]
        )
    )
    server = serve(model="vllm:m", env={"VLLM_BASE_URL": fake.base_url, "VLLM_API_KEY": "k"})
    api = server.api()
    session = api.create(workspace="private")["id"]
    files = f"/v1/sessions/{session}/files"
    assert api.request("PUT", f"{files}/in/bills.csv", content=TABLE).status_code == 201

    turn = api.send(session, "Clean in/bills.csv, plot it, and write me a report.")

    results = [(data["content"], data["is_error"]) for data in turn.data("tool_result")]
    assert turn.ending == "message.completed", turn.frames[-1]
    assert results[2] == ("months: 6, total: 278.50\n", False)
    assert results[3][0].startswith("out/plot.png: 640 × 480 pixels\n[image/png, ")
    assert not any(is_error for _, is_error in results)
    assert api.request("GET", f"{files}/out/report.md").text.startswith("# Bills")
    assert api.request("GET", f"{files}/out/clean.json").json() == {str(k): v for k, v in POINTS.items()}
    picture = api.request("GET", f"{files}/out/plot.png")
    assert picture.headers["content-type"] == "image/png"
    assert _image_given(fake) == picture.content  # the model looked at what the caller has
    _shows_the_line(decode_png(picture.content))


def _image_given(fake: FakeOpenAIChat) -> bytes:
    [url] = [
        part["image_url"]["url"]
        for message in fake.requests[4].body["messages"]
        if isinstance(message["content"], list)
        for part in message["content"]
        if part["type"] == "image_url"
    ]
    return base64.b64decode(url.removeprefix("data:image/png;base64,"))


def _shows_the_line(rows: list[list[tuple[int, int, int]]]) -> None:
    width, height = len(rows[0]), len(rows)
    assert (width, height) == (640, 480)

    def at(month: float, value: float) -> tuple[int, int, int]:
        x, y = width * (0.125 + 0.775 * month / 10), height * (1 - (0.11 + 0.77 * value / 100))
        return rows[min(round(y), height - 1)][min(round(x), width - 1)]

    red, white = (255, 0, 0), (255, 255, 255)
    between = [((a + b) / 2, (POINTS[a] + POINTS[b]) / 2) for a, b in zip(POINTS, list(POINTS)[1:], strict=False)]
    for month, value in [*POINTS.items(), *between]:
        assert at(month, value) == red, (month, value)
        assert at(month, value + 8) == at(month, max(value - 8, 1)) == white, (month, value)
    assert at(0.5, 10) == at(9, 90) == white  # it begins with the first month, and ends with the last
    assert sum(pixel == red for row in rows for pixel in row) < 4000
    assert len({pixel for row in rows for pixel in row}) > 20  # text and lines are smoothed
