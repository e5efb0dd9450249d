"""The guard in front: what is refused before anything sees it, and the headers of everything that goes out."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from starlette.testclient import TestClient

from apps.web import security
from apps.web.security import MAX_BODY, Guard, Nonces, masked, origin_hosts

HOST = "http://label.test"


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "HEAD"])
    async def anything(request: Request) -> dict[str, Any]:
        return {"path": request.url.path, "bytes": len(await request.body())}

    return TestClient(Guard(app, hosts={"label.test"}), base_url=HOST)


def test_requests_of_our_own_pages_pass(client: TestClient) -> None:
    assert client.get("/app/").status_code == 200
    assert client.get("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}).status_code == 200
    assert client.post("/login", headers={"Origin": HOST}).status_code == 200
    assert client.put("/api/draft", headers={"X-Align": "1"}, content=b"{}").json()["bytes"] == 2


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "https://label.test", "http://label.test:81", "null", "http://label.test.evil.example"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_other_origins_are_refused_whatever_else_they_send(client: TestClient, method: str, origin: str) -> None:
    answer = client.request(method, "/api/submit", headers={"Origin": origin, "X-Align": "1"})
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "origin"
    assert "access-control-allow-origin" not in answer.headers


def test_a_change_without_origin_needs_the_header(client: TestClient) -> None:
    assert client.post("/logout").status_code == 403
    assert client.post("/logout", headers={"X-Align": "1"}).status_code == 200


def test_a_script_needs_its_token_alone_and_no_cookie_goes_with_it() -> None:
    app = FastAPI()

    @app.post("/{path:path}")
    async def cookies(request: Request) -> dict[str, str]:
        return request.cookies

    client = TestClient(Guard(app, hosts={"label.test"}), base_url=HOST, cookies={"align_label": "theirs"})
    assert client.post("/api/x", headers={"X-Align": "1"}).json() == {"align_label": "theirs"}
    assert client.post("/api/x", headers={"Authorization": "Bearer align_x"}).json() == {}
    assert client.post("/api/x", headers={"Authorization": "Basic YTpi"}).status_code == 403  # browsers send it unasked
    foreign = {"Authorization": "Bearer align_x", "Origin": "http://evil.example"}
    assert client.post("/api/x", headers=foreign).status_code == 403


def test_pages_of_other_sites_load_nothing_from_here(client: TestClient) -> None:
    for site in ("cross-site", "same-site"):
        for mode in ("no-cors", "cors"):
            assert client.get("/app/", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}).status_code == 403
    posted = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "X-Align": "1"}
    assert client.post("/login", headers=posted).status_code == 403


def test_preflights_and_unused_methods_are_refused(client: TestClient) -> None:
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answer = client.options("/api/submit", headers=asked)
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert client.delete("/api/submit", headers={"X-Align": "1"}).status_code == 405


def test_other_host_names_are_refused(client: TestClient) -> None:
    assert client.get("/", headers={"Host": "rebound.evil.example"}).status_code == 421
    assert origin_hosts(None, "127.0.0.1") == {"127.0.0.1", "localhost", "::1"}
    assert origin_hosts("https://label.example.org:8443", "0.0.0.0") >= {"label.example.org"}
    assert origin_hosts(None, "0.0.0.0") is None


@pytest.mark.parametrize(
    "host", ["", " ", ":80", "[::1].evil", "[::1", "[label.test]", "a@label.test", "label.test:80:80"]
)
@pytest.mark.parametrize("hosts", [{"label.test", "::1"}, None])
def test_what_is_no_host_name_is_refused_under_any(hosts: set[str] | None, host: str) -> None:
    app = FastAPI()
    app.add_api_route("/x", lambda: {})
    client = TestClient(Guard(app, hosts=hosts), base_url=HOST)
    assert client.get("/x", headers={"Host": host}).status_code == 421
    for good in ("label.test", "LABEL.test:8443", "[::1]", "[::1]:7860"):
        assert client.get("/x", headers={"Host": good}).status_code == 200


def test_an_origin_that_is_given_is_the_only_one() -> None:
    app = FastAPI()
    app.add_api_route("/x", lambda: {}, methods=["POST"])
    client = TestClient(Guard(app, "https://label.example.org"), base_url="http://127.0.0.1")
    assert client.post("/x", headers={"Origin": "https://label.example.org"}).status_code == 200
    assert client.post("/x", headers={"Origin": "http://127.0.0.1"}).status_code == 403
    assert client.post("/x", headers={"X-Align": "1"}).headers["strict-transport-security"].startswith("max-age=")


@pytest.mark.parametrize(
    "path", ["/static/../secret", "/static/%2e%2e/secret", "/a%5c..%5cb", "/a%00b", "/static/..%2f..%2fetc/passwd"]
)
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])

    assert status_of(Guard(app), path) == 400
    assert seen == []


def status_of(app: Any, path: str) -> int:
    """The status of a GET whose path no client has cleaned up."""
    from urllib.parse import unquote

    sent: list[dict[str, Any]] = []
    scope = {
        "type": "http",
        "method": "GET",
        "path": unquote(path),
        "raw_path": path.encode(),
        "scheme": "http",
        "headers": [(b"host", b"label.test")],
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app({**scope, "query_string": b""}, receive, send))
    return int(sent[0]["status"])


def test_bodies_have_a_limit(client: TestClient) -> None:
    headers = {"X-Align": "1"}
    assert client.post("/x", headers=headers, content=b"a" * MAX_BODY).json()["bytes"] == MAX_BODY
    assert client.post("/x", headers=headers, content=b"a" * (MAX_BODY + 1)).status_code == 413
    pieces = (b"a" * 100_000 for _ in range(11))  # sent without a length
    assert client.post("/x", headers=headers, content=pieces).status_code == 413
    assert client.post("/x", headers={**headers, "Content-Length": "minus one"}, content=b"").status_code == 413


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "BODY_SECONDS", 0.05)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(3600)
        return {}

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        pytest.fail("it saw a request without its body")

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/x",
        "scheme": "http",
        "headers": [(b"x-align", b"1"), (b"host", b"a")],
    }
    asyncio.run(Guard(app)(scope, receive, send))
    assert sent[0]["status"] == 408


def test_every_answer_has_the_headers(client: TestClient) -> None:
    for answer in (
        client.get("/"),
        client.get("/api/x", headers={"Origin": "http://evil.example"}),
        client.delete("/"),
    ):
        rules = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert rules["default-src"] == "'none'"
        assert rules["script-src"] == rules["connect-src"] == rules["form-action"] == "'self'"
        assert rules["img-src"] == "'self' data:"
        assert rules["frame-ancestors"] == "'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"


def test_scripts_of_a_gradio_page_get_a_nonce_that_changes() -> None:
    app = FastAPI()
    page = "<head><script>a</script><script type=module src=x></script><scripture></head>"
    app.add_api_route("/app/", lambda: HTMLResponse(page))
    app.add_api_route("/app/other", lambda: HTMLResponse(page))
    client = TestClient(Guard(Nonces(app, "/app")), base_url=HOST)
    first, second = client.get("/app/"), client.get("/app/")
    nonce = first.text.split('nonce="')[1].split('"')[0]
    assert first.text.count(f'<script nonce="{nonce}"') == 2
    assert "<scripture>" in first.text
    assert f"script-src 'self' 'nonce-{nonce}';" in first.headers["content-security-policy"]
    assert "unsafe-eval" not in first.headers["content-security-policy"]
    assert nonce not in second.text
    assert client.get("/app/other").text == page


def test_websockets_are_closed() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Guard(FastAPI())({"type": "websocket", "path": "/"}, None, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_a_log_line_holds_no_secret_and_is_one_line(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    assert masked("/invitation/s3cret") == "/invitation/..."
    assert masked("/a\nb\x1b[31m") == "/a\\nb\\u001b[31m"
    with caplog.at_level(logging.WARNING, "align.web"):
        client.post("/invitation/s3cret", headers={"Origin": "http://evil.example", "Cookie": "align_label=t0ken"})
    assert "refused POST /invitation/..." in caplog.text
    assert "s3cret" not in caplog.text
    assert "t0ken" not in caplog.text
