"""A real browser, and MLflow's pages in it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = "there is no Chromium here; install it, for example with `apt-get install chromium`"
SECONDS = 60.0
"""That a page may take; MLflow's are large and this machine may be busy."""


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=1000 * SECONDS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def mlflow_pages(project: Path) -> Iterator[str]:
    """`make ui` for the runs of `project`, on a free port: its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "pipeline.tracking", "ui", "--port", str(port)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW")}
    server = subprocess.Popen(
        command,
        cwd=project,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(server, address)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


def _wait_for(server: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            assert server.poll() is None, "MLflow's server ended"
            assert time.monotonic() < deadline, "MLflow's server did not answer"
            time.sleep(0.2)


def local_page(browser: Browser, address: str, size: tuple[int, int]) -> Page:
    """A page of its own from which nothing but `address` can be reached."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]})
    context.set_default_timeout(1000 * SECONDS)
    context.route(lambda url: not url.startswith(address), lambda route: route.abort())
    return context.new_page()


def compare_newest_two(browser: Browser, address: str, size: tuple[int, int]) -> Page:
    """Open the first experiment at `address`, tick its two newest executions and press Compare.

    Of parameters and metrics those that differ are shown.
    """
    page = local_page(browser, address, size)
    page.goto(f"{address}/#/experiments/1/runs")
    page.get_by_label("Toggle sidebar").click()
    page.get_by_label("Close").click()  # the assistant, which covers a third of the page
    for row in (0, 1):
        page.locator(".ag-row .ag-selection-checkbox").nth(row).click()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_text("Comparing 2 Runs").wait_for()
    for panel in (0, 1):  # of the parameters, of the metrics
        page.get_by_text("Show diff only").nth(panel).click()
    return page
