"""No secret of a tracking URI in any file, in any output, in any command line."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import yaml

from pipeline.tracking.redact import keep_secret, redact
from tests.pipeline.tracking.servers import broken_server, free_port, wait_until
from tests.pipeline.tracking.stages import TRAIN


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("see http://bob:hunter2@host:5000/x.", "see http://***@host:5000/x."),
        ("postgresql+psycopg2://u:p%40ss@db/mlflow", "postgresql+psycopg2://***@db/mlflow"),
        ("postgresql://u:p@ss/w0rd@db/mlflow", "postgresql://***@db/mlflow"),
        ("https://h/api?access_token=abc&page=2", "https://h/api?access_token=***&page=2"),
        ("uri: 'mysql://db?user=u&password=abc'", "uri: 'mysql://db?user=u&password=***'"),
        ("http://host:5000/a and mail to a@b.example", "http://host:5000/a and mail to a@b.example"),
        ("sqlite:////home/a/work/mlflow.db", "sqlite:////home/a/work/mlflow.db"),
    ],
)
def test_addresses_lose_their_secrets_and_nothing_else(text, clean):
    assert redact(text) == clean


def test_what_the_environment_keeps_secret_is_hidden_wherever_it_stands(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://bob:s3cr%2Ft@db/mlflow?sslkey=qwertz")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "tok-tok")
    assert (
        redact("wrong password s3cr/t (s3cr%2Ft) for bob, qwertz, tok-tok")
        == "wrong password *** (***) for bob, ***, ***"
    )


SECRET = "hunter2hunter2"
TELLS_ALL = (
    TRAIN
    + f"""
with track("finetune", params) as run:
    run.log_tags({{"where": "https://bob:{SECRET}@host/x"}})
    raise ValueError("cannot reach https://bob:{SECRET}@host/x")
"""
)


def test_a_secret_in_the_environment_or_in_params_reaches_no_file_and_no_output(workplace):
    with broken_server() as address:
        uri = address.replace("://", f"://bob:{SECRET}@") + f"/?token={SECRET}"
        for given, code in ((uri, TRAIN), ("", TELLS_ALL)):
            if not given:
                params = yaml.safe_load((workplace.folder / "params.yaml").read_text())
                params["tracking"]["uri"] = uri
                (workplace.folder / "params.yaml").write_text(yaml.safe_dump(params))
            stage = workplace.start(code, given)
            printed, errors = stage.communicate(timeout=60)
            told = errors.rpartition("Traceback")[0] if code == TELLS_ALL else errors  # Python tells our own error
            assert SECRET not in printed + told
            workplace.wait_for_feeders()
            done = workplace.tracking("sync", uri=given)
            assert done.returncode == 1
            shown = workplace.tracking("ui", uri=given)
            assert shown.returncode == 1
            assert SECRET not in done.stdout + done.stderr + shown.stdout + shown.stderr
    workplace.sync(uri=workplace.uri)  # now into a database, which is searched with the rest
    files = [path for path in (workplace.folder / "work").rglob("*") if path.is_file()]
    assert {"feeder.log", "mlflow.db", "params.yaml", "base.jsonl", "finetune.jsonl"} <= {path.name for path in files}
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert any(b"***@127.0.0.1" in path.read_bytes() for path in files)


def test_no_command_line_shows_the_address_of_a_database(workplace, tmp_path):
    uri = f"sqlite:///{tmp_path}/{SECRET}.db"
    command = ["-m", "pipeline.tracking", "ui", "--port", str(free_port())]
    pages = workplace.start(f"import os; os.execv(sys.executable, [sys.executable, *{command}])", uri)
    server = psutil.Process(pages.pid)
    stage = None
    try:
        wait_until(lambda: server.children(recursive=True) and "mlflow" in " ".join(server.cmdline()), 60)
        stage = workplace.start(TRAIN, uri)
        shown: set[str] = set()
        while stage.poll() is None:
            for process in psutil.process_iter(["cmdline"]):
                shown.add(" ".join(process.info["cmdline"] or ()))
        assert any("pipeline.tracking.feeder" in line for line in shown)
        assert not any(SECRET in line for line in shown)
        assert Path(f"{tmp_path}/{SECRET}.db").exists()
    finally:
        for process in [*server.children(recursive=True), server]:
            process.kill()
        for started in filter(None, (pages, stage)):
            started.communicate(timeout=30)


@pytest.mark.parametrize(
    ("uri", "secrets"),
    [
        ("http://user:s3cr'et%40x@host", ["s3cr'et%40x", "s3cr'et@x"]),
        ("https://TOKEN1234@host/mlflow", ["TOKEN1234"]),
        ("https://host/?sig=abc123defg&pass=hunter22", ["abc123defg", "hunter22"]),
        ("https://host/#token=abc123defg", ["abc123defg"]),
        ("postgresql://user:pass word@host/db", ["pass word"]),
    ],
)
def test_the_secrets_of_our_own_address_are_hidden_however_they_are_quoted(uri, secrets, monkeypatch):
    monkeypatch.setattr("pipeline.tracking.redact._addresses", set())
    keep_secret(uri)
    for text in (uri, f"cannot reach '{uri}'", f'{{"uri": "{uri}"}}', *secrets):
        assert not [secret for secret in secrets if secret in redact(text)], redact(text)
    assert "host" in redact(uri)


@pytest.mark.parametrize("command", ["sync", "ui"])
@pytest.mark.parametrize("uri", ["foo://user:topsecret@host", "postgresql://user:topsecret@127.0.0.1:9/x"])
def test_an_address_that_leads_nowhere_ends_in_a_line_without_its_password(workplace, command, uri):
    if command == "ui" and uri.startswith("postgresql"):
        pytest.skip("MLflow's server itself is asked then, with an address from the environment")
    workplace.run(TRAIN, uri="http://127.0.0.1:9")
    done = workplace.tracking(command, uri=uri)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "topsecret" not in done.stdout + done.stderr
    assert done.stderr.startswith("tracking: error: ")
