"""What people look at, in a real browser: the report as it lies on disk, and two runs compared in MLflow's pages."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator

import psutil
import pytest
from mlflow.tracking import MlflowClient
from playwright.sync_api import Browser, Page

from pipeline.evaluate.report.headline import MEASURES, MODELS
from pipeline.evaluate.report.words import decimal
from tests.browser import CHROMIUM, MISSING, compare_newest_two, local_page, mlflow_pages, open_browser
from tests.project import SMALL, Project, write_jsonl

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)

RATES = (1e-3, 2e-2)
REPORT = "artifacts/evaluate/report.html"


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Project, list[dict]]:
    """Own data with markup and addresses in it, run at two learning rates of finetune; and the metrics of either."""
    project = Project(tmp_path_factory.mktemp("browser") / "clone")
    source = project.path / "data/input/mine.jsonl"
    write_jsonl(source)
    source.write_text(source.read_text().replace("What comes", "<img src=https://example.org/a.png><b>What</b> comes"))
    project.set_all(SMALL | {"ingest.source": "data/input/mine.jsonl"})
    metrics = []
    for rate in RATES:
        project.set(finetune__lr=rate)
        project.repro()
        metrics.append(project.read("artifacts/evaluate/metrics.json"))
    return project, metrics


@pytest.fixture(scope="module")
def project(runs) -> Project:
    return runs[0]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(params=["light", "dark"])
def report(request, project, browser) -> Iterator[Page]:
    """The report in a desktop window without a network; what the page asks for or complains of is an error."""
    context = browser.new_context(offline=True, color_scheme=request.param, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((project.path / REPORT).as_uri(), wait_until="networkidle")
    yield page
    assert asked == [(project.path / REPORT).as_uri()]
    assert complaints == []
    context.close()


def test_the_headline_has_the_figures_of_metrics_json(report, project):
    metrics = project.read("artifacts/evaluate/metrics.json")
    columns = report.locator("header thead th").all_inner_texts()
    measures = [measure for measure in MEASURES if measure.key in metrics["base"]]
    assert len(measures) == 5
    for measure in measures:
        cells = dict(zip(columns, report.locator(f"#{measure.key} > *").all_inner_texts(), strict=True))
        for model, figures in metrics.items():
            shown = decimal(figures[measure.key], measure.digits) if measure.key in figures else "\N{EN DASH}"
            assert cells[MODELS[model]] == shown, (measure.key, model)
        lower = metrics["finetuned"][measure.key] < metrics["base"][measure.key]
        assert cells["Fine-tuned is"] == ("better" if lower == (measure.better == "lower") else "worse")


def test_every_figure_is_seen_and_stands_out_from_the_page(report):
    drawings = report.locator("svg").all()
    assert len(drawings) == 7
    for drawing in drawings:
        box = drawing.bounding_box()
        assert box["width"] > 300
        assert box["height"] > 80
        assert drawing.locator("text").first.is_visible()
    brightness = "element => getComputedStyle(element).COLOUR.match(/[0-9.]+/g).slice(0, 3).reduce((a, b) => +a + +b)"
    paper = report.locator("body").evaluate(brightness.replace("COLOUR", "backgroundColor"))
    for text in report.locator("svg text").all():
        assert abs(text.evaluate(brightness.replace("COLOUR", "fill")) - paper) > 250


def test_text_from_the_data_stays_text(report, project):
    samples = [json.loads(line) for line in (project.path / "artifacts/evaluate/samples.jsonl").open()]
    assert samples
    assert all("<img" in sample["prompt"] for sample in samples)
    assert report.locator(".prompt").all_inner_texts() == [sample["prompt"] for sample in samples]
    assert report.locator("img, b:text-is('What')").count() == 0
    assert "://" not in (project.path / REPORT).read_text()


def test_sections_are_one_click_away_and_wide_tables_scroll_in_a_narrow_window(report):
    for link in report.locator("nav a").all():
        assert report.locator(link.get_attribute("href")).count() == 1
    report.set_viewport_size({"width": 390, "height": 844})
    assert report.evaluate("document.documentElement.scrollWidth") == 390
    headline = report.locator("header .scroll")
    assert headline.evaluate("element => element.scrollWidth > element.clientWidth")


@pytest.fixture(scope="module")
def mlflow(project) -> Iterator[str]:
    with mlflow_pages(project.path) as address:
        yield address


def test_the_pages_are_for_this_machine_only(mlflow):
    port = int(mlflow.rpartition(":")[2])
    sockets = [found.laddr for found in psutil.net_connections("tcp") if found.status == psutil.CONN_LISTEN]
    assert {address.ip for address in sockets if address.port == port} == {"127.0.0.1"}


def test_two_runs_are_ticked_and_compared_in_mlflow(runs, mlflow, browser):
    _, metrics = runs
    page = compare_newest_two(browser, mlflow, (1300, 1400))
    (row,) = page.get_by_role("row").filter(has_text="finetune.lr").all_inner_texts()
    assert [float(value) for value in row.split()[1:]] == [*reversed(RATES)]
    shown = page.locator("main").inner_text().split()
    assert "finetune/best/validation_loss" in shown
    assert "evaluate/finetuned/response_loss" in shown
    numbers = [float(word) for word in shown if re.fullmatch(r"\d+\.\d+", word)]
    for run in metrics:  # MLflow shows four digits
        assert any(number == pytest.approx(run["finetuned"]["response_loss"], rel=5e-4) for number in numbers)
    page.context.close()


def test_mlflow_shows_the_report_among_the_run_s_artifacts(project, mlflow, browser):
    client = MlflowClient(f"sqlite:///{project.path}/work/mlflow.db")
    newest = client.search_runs(["1"], "tags.stage = 'evaluate'", max_results=1)[0].info.run_id
    page = local_page(browser, mlflow, (1300, 900))
    page.goto(f"{mlflow}/#/experiments/1/runs/{newest}/artifacts/report.html")
    shown = page.frame_locator("iframe").locator("h1")
    shown.wait_for()
    (headline,) = re.findall(r"<h1>(.*)</h1>", (project.path / REPORT).read_text())
    assert shown.inner_text() == html.unescape(headline)
    page.context.close()
