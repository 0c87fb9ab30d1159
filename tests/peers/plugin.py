"""What pytest does beside a peer's tests: it tells those that say something of our operators from those that do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest

from tests.peers.shim import RECORD, Peer

NOT_APPLICABLE = "not applicable: "


class NotApplicableTests:
    """Reports as skipped, with the reason, what a shim refused and what passed without any of our functions.

    A test that fails without them stays failed: why is for people to find out.
    """

    def __init__(self, peer: Peer) -> None:
        self.peer, self.passed = peer, 0
        self.reasons: Counter[str] = Counter()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            reason = self.peer.not_applicable.get(getattr(item, "originalname", item.name))
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=NOT_APPLICABLE + reason))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, Any, Any]:
        RECORD.clear()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if call.when == "call":
            reason = RECORD.refusal
            if reason is None and report.passed and RECORD.calls == 0:
                reason = "calls nothing that stands on our operators"
            if reason is not None:
                report.outcome = "skipped"
                report.longrepr = (str(item.path), item.location[1] or 0, f"Skipped: {NOT_APPLICABLE}{reason}")
                vars(report).pop("wasxfail", None)
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.passed += 1
        if report.skipped and isinstance(report.longrepr, tuple):
            _, found, reason = report.longrepr[2].partition(NOT_APPLICABLE)
            if found:
                self.reasons[reason] += 1

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if session.exitstatus == pytest.ExitCode.OK and not self.passed and not session.config.option.collectonly:
            session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED  # else "all skipped" would look like success

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.reasons:
            terminalreporter.section("not applicable to our operators")
            for reason, count in self.reasons.most_common():
                terminalreporter.line(f"{count} x {reason}")
