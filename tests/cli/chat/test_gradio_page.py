"""The page over 127.0.0.1, asked as a browser asks it: answers of all models, and no other address."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from support import forked
from viker_lightning.__main__ import main
from viker_lightning.cli.chat.__main__ import QUIET
from viker_lightning.cli.chat.address import HERE, bind
from viker_lightning.cli.chat.desk import OWN
from viker_lightning.errors import UserError

BOUND, ASKED = [], []


def watch(event, arguments):
    """What this process binds, and what it asks of whom, from here on."""
    if event == "socket.bind":
        BOUND.append(arguments[1])
    if event in ("socket.connect", "socket.getaddrinfo"):
        ASKED.append(arguments[1] if event == "socket.connect" else arguments[0])


def local(address):
    """Whether an address is of this machine: an IP address of it, or the path of a socket."""
    host = address[0] if isinstance(address, tuple) else address
    return host in (HERE, "localhost", b"localhost") or str(host).startswith("/")


@pytest.fixture(scope="module", autouse=True)
def watched():
    """Begins before the page is made."""
    sys.addaudithook(watch)


@pytest.fixture
def client(served):
    from gradio_client import Client

    return Client(served[0], verbose=False, analytics_enabled=False)


def test_a_question_of_the_data(client, desk, photos):
    vqa = next(one for one in photos["forget"][0].questions if one.private)
    page = client.predict("forget", 0, None, vqa.question, "entropy", api_name="/ask")
    for name, said in desk.ask("forget", 0, None, vqa.question).answers.items():
        assert f"<h3>{name}</h3>" in page
        assert all(f"probability {token.probability:.3f}" in page for token in said)
    assert "<h3>True answer</h3>" in page and "<mark>" in page and "2.0 nats or more" in page


def test_another_split_and_photo(client, photos):
    client.predict("retain", api_name="/place")
    shown, picked, text = client.predict("retain", 1, None, api_name="/look")
    asked = [one.question for one in photos["retain"][1].questions]
    assert [value for _, value in picked["choices"]] == asked and text == asked[0] and "data:image/jpeg" in shown
    page = client.predict("retain", 1, None, asked[-1], "probability", api_name="/ask")
    assert "<h3>True answer</h3>" in page and "probability 1<" in page


def test_a_picture_of_ones_own(client, served, photos, tmp_path):
    from gradio_client import handle_file

    file = tmp_path / "mine.png"
    file.write_bytes(photos["test"][0].picture.data)
    client.predict(OWN, api_name="/place")
    page = client.predict(OWN, None, handle_file(str(file)), "Who is it?", "entropy", api_name="/ask")
    assert page.count("<article") == 3 and "True answer" not in page
    stored = {path.read_bytes() for path in served[1].rglob("*") if path.is_file()}
    assert stored - {b""} == {file.read_bytes()}, "in the folder that goes in the end, and nothing else"


@pytest.mark.parametrize(
    ("question", "said"), [("", "question: found none"), ("Who is </s> it?", "a special token of this model")]
)
def test_what_cannot_be_asked_is_said_on_the_page(client, question, said):
    page = client.predict("forget", 0, None, question, "entropy", api_name="/ask")
    assert said in page and 'role="alert"' in page and "<article" not in page


def test_what_is_no_picture_is_said_on_the_page(client, tmp_path):
    from gradio_client import handle_file

    (tmp_path / "it.png").write_bytes(b"no picture")
    client.predict(OWN, api_name="/place")
    page = client.predict(OWN, None, handle_file(str(tmp_path / "it.png")), "Who?", "entropy", api_name="/ask")
    assert "it.png: not a readable image" in page and 'role="alert"' in page


def get(url, **headers):
    with urlopen(Request(url, headers=headers)) as answer:
        return answer.headers, answer.read().decode()


def test_a_browser_is_told_to_load_nothing_from_elsewhere(served):
    headers, page = get(served[0])
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy and "*" not in policy
    css = get(f"{served[0]}/theme.css")[1]
    assert "sans-serif" in css and "@import" not in css and css.count("url(") == css.count('url("data:')
    assert '"analytics_enabled":false' in page.replace(" ", "")


def test_other_sites_cannot_pose_as_this_one(served):
    port = served[0].rpartition(":")[2]
    get(served[0], Host=f"localhost:{port}")
    with pytest.raises(HTTPError) as refused:
        get(served[0], Host="evil.example")
    assert refused.value.code == 400
    with pytest.raises(HTTPError) as gone:
        get(f"{served[0]}/gradio_api/runs")
    assert gone.value.code in (403, 404), "no history is kept"


BOUNDARY = "a-boundary"


def upload(served, content, **headers):
    """The status of an upload, as a form of any page sends it, and the number of files that are there then."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="it.png"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"} | headers
    before = sum(path.is_file() for path in served[1].rglob("*"))
    try:
        with urlopen(Request(f"{served[0]}/gradio_api/upload", body, headers)) as answer:
            status = answer.status
    except HTTPError as error:
        status = error.code
    return status, sum(path.is_file() for path in served[1].rglob("*")) - before


def test_pages_of_other_sites_can_send_nothing(served):
    port = served[0].rpartition(":")[2]
    for i, origin in enumerate(
        ["https://evil.example", "null", f"https://{HERE}:{port}", f"http://{HERE}:1", f"http://{HERE}"]
    ):
        assert upload(served, f"evil {i}".encode(), Origin=origin) == (403, 0), origin
    assert upload(served, b"of this page", Origin=served[0]) == (200, 1)
    local = f"localhost:{port}"
    assert upload(served, b"of this page by its other name", Origin=f"http://{local}", Host=local) == (200, 1)
    assert upload(served, b"of a program, which says no page") == (200, 1)


def test_a_picture_is_not_of_any_size(served, monkeypatch):
    from viker_lightning.cli.chat.gradio_page import LARGEST

    assert upload(served, bytes(LARGEST + 1)) == (413, 0)


def test_what_is_at_an_address_is_not_fetched(client, served):
    from gradio_client import handle_file

    client.predict(OWN, api_name="/place")
    for number, question in (
        (handle_file("http://192.0.2.1/it.png"), "Who?"),
        (None, handle_file("http://192.0.2.1/")),
    ):
        with pytest.raises(Exception, match="this page asks no other machine; upload it"):
            client.predict(OWN, None, number, question, "entropy", api_name="/ask")
    assert not [one for one in ASKED if not local(one)]


def call(served, name, *given):
    """What a program that asks over the API is told, in a stream of events."""
    request = Request(f"{served[0]}/gradio_api/call/{name}", json.dumps({"data": given}).encode())
    request.add_header("Content-Type", "application/json")
    with urlopen(request) as answer:
        event = json.load(answer)["event_id"]
    return get(f"{served[0]}/gradio_api/call/{name}/{event}")[1]


@pytest.mark.parametrize("mark", [{"meta": {"_type": "gradio.FileData"}}, {}])
def test_a_file_that_was_not_uploaded_is_not_read(served, photos, tmp_path, mark):
    private = tmp_path / "private.png"
    private.write_bytes(photos["test"][1].picture.data)
    for name, more in (("look", []), ("ask", ["Who?", "entropy"])):
        for path in (str(private), os.path.relpath(private)):
            said = call(served, name, OWN, None, {"path": path} | mark, *more)
            assert said.startswith("event: error") and "image/jpeg" not in said and "<article" not in said
    assert private.read_bytes() not in [path.read_bytes() for path in served[1].rglob("*") if path.is_file()]


@pytest.mark.extended
def test_telemetry_is_off_before_anything_is_imported_that_has_one():
    """In a process of its own: what it brings reads that once."""
    asked = (
        "from viker_lightning.__main__ import main\ntry: main(['chat', 'nowhere'])\nexcept SystemExit as s: print(s)\n"
    )
    asked += "from huggingface_hub import constants; print(constants.HF_HUB_DISABLE_TELEMETRY)"
    environment = {name: value for name, value in os.environ.items() if name not in QUIET}
    done = subprocess.run([sys.executable, "-c", asked], env=environment, capture_output=True, text=True, check=True)
    assert "error: nowhere: is no folder" in done.stdout and done.stdout.splitlines()[-1] == "True"


def test_no_other_address_is_bound_or_asked(client, served):
    client.predict("forget", 0, None, "Who?", "entropy", api_name="/ask")
    assert ASKED and all(local(one) for one in [*ASKED, *BOUND]), [one for one in [*ASKED, *BOUND] if not local(one)]
    port = int(served[0].rpartition(":")[2])
    with socket.socket() as other, pytest.raises(OSError):
        other.settimeout(1)
        other.connect((socket.gethostbyname(socket.gethostname()), port))
        if other.getpeername()[0] == HERE:
            raise OSError("the only address of this machine")


def test_a_whole_command(folders, tmp_path, monkeypatch):
    """As it is typed, until Ctrl-C, or make or a cluster, stops it; the folder of uploads goes."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    for number in (signal.SIGINT, signal.SIGTERM):
        out = tmp_path / f"said-{number}"
        command = ["chat", str(folders / "run"), f"--gold={folders / 'gold'}", "--port=0"]
        pid = forked.start(lambda command=command: main(command), out)
        try:
            while not (
                found := re.search(
                    r"^(http://127.0.0.1:\d+) shows the page", out.read_text() if out.exists() else "", re.M
                )
            ):
                assert (code := forked.ended(pid)) is None, (code, out.read_text())
                time.sleep(0.05)
            while True:
                try:
                    assert "Ask run" in get(found[1])[1]
                    break
                except (ConnectionError, OSError):
                    time.sleep(0.05)
            assert [*tmp_path.glob("viker-lightning-chat-*")]
            with urlopen(f"{found[1]}/gradio_api/heartbeat/an-open-page"):
                os.kill(pid, number)
                assert forked.wait(pid) == 0, out.read_text()
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            raise
        assert out.read_text().endswith("Ctrl-C ends it\n") and not [*tmp_path.glob("viker-lightning-chat-*")]


def refused(*words):
    with pytest.raises(SystemExit) as stop:
        main(["chat", *map(str, words)])
    assert "\n" not in stop.value.code and stop.value.code.startswith("error: ")
    return stop.value.code


def test_what_cannot_be_opened(folders, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    assert "is no folder" in refused(tmp_path / "nowhere")
    assert "this run is not finished" in refused(tmp_path / "empty", "--port=0")
    with bind(0) as taken:
        port = taken.getsockname()[1]
        assert f"--port: {port} cannot be had" in refused(folders / "run", f"--port={port}")
    assert "--port: 99999 cannot be had" in refused(folders / "run", "--port=99999")
    monkeypatch.setattr("viker_lightning.cli.chat.__main__.find_spec", lambda name: None)
    assert "pip install -e '.[chat]' in the repository" in refused(folders / "run")


def test_a_port_is_of_this_machine_alone():
    with bind(0) as bound:
        assert bound.getsockname()[0] == HERE
    with pytest.raises(UserError, match=r"--port: -1 cannot be had .*; give another"):
        bind(-1)
