"""What several files of tests about reports ask for."""

import pytest

from analysis.figures import style


@pytest.fixture
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report's PNG files have few dots, which are drawn sooner: for a test that reads the report's text alone."""
    monkeypatch.setattr(style, "PNG_DPI", 30)
