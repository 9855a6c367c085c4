"""The app's frame: several apps in one process, headers, names it answers to, the command."""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import re
import socket
from pathlib import Path

import pytest

import app as app_module
from dnnviz.settings import ROOT, Settings
from tests.runs import write_run


def client(settings: Settings):
    return app_module.create_app(settings).server.test_client()


def dependencies(answer) -> list[str]:
    return sorted(entry["output"] for entry in json.loads(answer.data))


def test_several_apps_in_one_process_are_equal(settings: Settings) -> None:
    first, second = client(settings), client(settings)
    outputs = dependencies(first.get("/_dash-dependencies"))
    assert "job-result.data" in outputs and "_pages_content.children" in "".join(outputs)
    assert outputs == dependencies(second.get("/_dash-dependencies"))
    for each in (first, second):
        assert each.get("/").status_code == 200
        assert each.get("/_dash-layout").status_code == 200


def test_the_page_says_its_language_and_loads_nothing_from_elsewhere(settings: Settings) -> None:
    text = client(settings).get("/").get_data(as_text=True)
    assert '<html lang="en">' in text
    addresses = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert addresses and all(address.startswith("/") for address in addresses)
    assert any("bootstrap.min.css" in address for address in addresses)


def test_style_sheets_and_scripts_name_no_other_site() -> None:
    for file in [*(ROOT / "assets").glob("*.css"), *(ROOT / "assets").glob("*.js")]:
        found = re.findall(r"""(?:url\(|@import|fetch\(|src=)\s*["']?((?:https?:)?//[^"')]+)""", file.read_text(encoding="utf-8"))
        assert not found, f"{file.name}: {found}"


def test_content_security_policy_without_eval_covers_every_inline_script(settings: Settings) -> None:
    answer = client(settings).get("/")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert "unsafe-eval" not in answer.headers["Content-Security-Policy"]
    assert "unsafe-inline" not in policy["script-src"] and policy["default-src"] == "'self'"
    pattern = r"<script(?: id=\"_dash-renderer\")?(?: type=\"application/javascript\")?>(.*?)</script>"
    inline = re.findall(pattern, answer.get_data(as_text=True), re.DOTALL)
    assert inline
    for script in inline:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy["script-src"], script[:80]


def test_headers_of_every_answer(settings: Settings) -> None:
    found = client(settings)
    for path in ("/", "/health", "/_dash-layout", "/assets/bootstrap.min.css"):
        headers = found.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "same-origin", path


def test_health(settings: Settings) -> None:
    answer = client(settings).get("/health")
    assert answer.status_code == 200 and answer.data == b"OK"


@pytest.mark.parametrize("host", ["localhost", "localhost:8050", "127.0.0.1:8050", "[::1]:8050", "viz.localhost"])
def test_own_names_are_answered(settings: Settings, host: str) -> None:
    assert client(settings).get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["example.org", "example.org:8050", "127.0.0.1.example.org", "10.0.0.1"])
def test_dns_rebinding_is_refused(settings: Settings, host: str) -> None:
    answer = client(settings).get("/_dash-layout", headers={"Host": host})
    assert answer.status_code == 403 and b"DNNVIZ_HOSTS" in answer.data


def test_names_of_a_proxy_are_answered_when_given(tmp_path: Path) -> None:
    settings = Settings.from_environment({"DNNVIZ_HOSTS": "Viz.example.org, other.example.org"}, runs=(tmp_path,), cache=tmp_path / "cache")
    found = client(settings)
    assert found.get("/health", headers={"Host": "viz.example.org"}).status_code == 200
    assert found.get("/health", headers={"Host": "example.org"}).status_code == 403


def test_an_app_for_other_machines_answers_to_any_name(tmp_path: Path) -> None:
    found = client(Settings(runs=(tmp_path,), cache=tmp_path / "cache", host="0.0.0.0"))
    assert found.get("/health", headers={"Host": "workstation:8050"}).status_code == 200


def test_prefix_is_part_of_every_address(tmp_path: Path) -> None:
    settings = Settings.from_environment({"DNNVIZ_PREFIX": "tools/dnnviz"}, runs=(tmp_path,), cache=tmp_path / "cache")
    found = client(settings)
    text = found.get("/tools/dnnviz/").get_data(as_text=True)
    assert all(address.startswith("/tools/dnnviz/") for address in re.findall(r'(?:src|href)="([^"]+)"', text))
    assert found.get("/tools/dnnviz/health").data == b"OK"
    assert found.get("/health").status_code == 404


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/small", "small/../small", "....//small", "/etc", "small%00", "none"]
)
def test_no_path_comes_from_the_browser(settings: Settings, path: str) -> None:
    write_run(settings.runs[0] / "small")
    write_run(settings.runs[0].parent / "outside")
    found = client(settings)
    assert found.get("/data/small/layers.json").status_code == 200
    for name in (f"/data/{path}/layers.json", f"/data/{path}/image/0.png", "/data/../outside/layers.json", "/data/%2e%2e%2foutside/layers.json"):
        answer = found.get(name)
        # An unknown address of this app is its page, never a file.
        assert answer.status_code in (308, 404) or answer.mimetype == "text/html", name
        assert b"root:" not in answer.data


@pytest.mark.parametrize("path", ["../dnnviz/settings.py", "..%2fapp.py", "%2e%2e/app.py"])
def test_assets_stay_in_their_folder(settings: Settings, path: str) -> None:
    answer = client(settings).get(f"/assets/{path}")
    assert b"import" not in answer.data


def test_an_empty_app_opens(settings: Settings) -> None:
    found = client(settings)
    assert found.get("/").status_code == 200 and found.get("/_dash-layout").status_code == 200


# -- the command -----------------------------------------------------------------------------------------------------


def test_port_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DNNVIZ_CACHE", str(tmp_path / "cache"))
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        assert app_module.main(["--runs", str(tmp_path), "--port", str(port)]) == 2
    assert capsys.readouterr().err == f"Port {port} is taken (another DNNViz may run there); choose another one with --port.\n"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--runs", "no/such/folder"], "no folder no/such/folder"),
        (["--port", "70000"], "Port 70000 does not exist"),
        (["--host", "256.1.1.1", "--port", "0"], "check --host"),
    ],
)
def test_bad_input_is_a_sentence(
    arguments: list[str], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DNNVIZ_CACHE", str(tmp_path / "cache"))
    assert app_module.main(arguments) == 2
    found = capsys.readouterr().err
    assert part in found and found.count("\n") == 1


def test_bad_environment_is_a_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DNNVIZ_PORT", "web")
    assert app_module.main([]) == 2
    assert "DNNVIZ_PORT" in capsys.readouterr().err


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        app_module.main(["--help"])
    assert ended.value.code == 0 and "example: python app.py" in capsys.readouterr().out


def test_the_app_listens_to_this_machine_only_unless_told_otherwise() -> None:
    assert Settings.from_environment({}).host == "127.0.0.1"


# -- rules that hold for every page ----------------------------------------------------------------------------------


def sources() -> list[Path]:
    return sorted([*(ROOT / "pages").glob("**/*.py"), *(ROOT / "dnnviz").glob("**/*.py")])


def calls(tree: ast.AST, *names: str):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in names:
                yield node


def test_no_graph_lacks_the_configuration_that_keeps_figures_at_home() -> None:
    for file in sources():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        named = {ast.unparse(node.targets[0]): ast.unparse(node.value) for node in tree.body if isinstance(node, ast.Assign)}
        for call in calls(tree, "Graph"):
            if ast.unparse(call.func) != "dcc.Graph":
                continue
            config = next((ast.unparse(word.value) for word in call.keywords if word.arg == "config"), "")
            config = named.get(config, config)
            where = f"{file}:{call.lineno}"
            assert "GRAPH_CONFIG" in config and "showSendToCloud" not in config, f"{where} makes a Graph without config=GRAPH_CONFIG"
    from dnnviz.theme import GRAPH_CONFIG

    assert GRAPH_CONFIG["showSendToCloud"] is False


def test_scripts_never_draw_with_another_configuration() -> None:
    for file in (ROOT / "assets").glob("*.js"):
        for match in re.finditer(r"Plotly\.(?:newPlot|react)\(", file.read_text(encoding="utf-8")):
            context = file.read_text(encoding="utf-8")[match.start() : match.start() + 600]
            assert "showSendToCloud" in context or "GRAPH_CONFIG" in context, f"{file.name} draws a figure that can be uploaded"


def test_clientside_callbacks_carry_no_code() -> None:
    """Inline scripts of callbacks would need a policy that allows them."""
    for file in sources():
        for call in calls(ast.parse(file.read_text(encoding="utf-8")), "clientside_callback"):
            first = call.args[0]
            assert not (isinstance(first, ast.Constant) and isinstance(first.value, str)), f"{file}:{call.lineno}"


def test_nothing_is_unpickled() -> None:
    for file in sources():
        for call in calls(ast.parse(file.read_text(encoding="utf-8")), "load", "loads", "Unpickler", "open"):
            owner, _, name = ast.unparse(call.func).rpartition(".")
            words = {word.arg: ast.unparse(word.value) for word in call.keywords}
            where = f"{file}:{call.lineno}"
            assert owner not in ("pickle", "dill", "joblib", "shelve", "cloudpickle", "marshal"), where
            if (owner, name) in {("np", "load"), ("numpy", "load")}:
                assert words.get("allow_pickle") == "False", where
            if (owner, name) == ("torch", "load"):
                assert words.get("weights_only") == "True", where
