"""Score files become pictures."""

import pytest

from model.search.score_file import Scores, read_scores, write_scores
from model.site import SiteKey
from tests.tools.words import refused
from tools.plot_scores import main, panels


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [tmp_path / run / "search" / "scores_snip.toml" for run in ("one", "two")]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True)
        values = {SiteKey(layer, "q_proj"): float(layer + number) for layer in range(3)}
        write_scores(path, Scores(values, {"method": "snip", "dataset": "sst2"}))
    return paths


def test_files_are_panels_side_by_side(files, tmp_path, capsys):
    assert main([str(path) for path in files]) == 0
    picture = tmp_path / "scores_snip.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out == f"written: {picture}\n"
    assert main([str(files[0]), "--scale", "log", "--output", str(tmp_path / "log.png")]) == 0
    assert (tmp_path / "log.png").read_bytes() != picture.read_bytes()


def test_equal_headings_are_distinguished_by_their_runs(files, tmp_path):
    found = panels(files, [read_scores(path) for path in files])
    assert [panel.title for panel in found] == ["one: snip on sst2", "two: snip on sst2"]
    assert panels(files[:1], [read_scores(files[0])])[0].title == "snip on sst2"


def test_bad_files_and_an_existing_output_are_reported_together(files, tmp_path):
    (tmp_path / "taken.png").write_bytes(b"mine")
    (tmp_path / "bad.toml").write_text("[layer_0]\nq_proj = inf\n")
    words = [files[0], tmp_path / "bad.toml", "--output", tmp_path / "taken.png"]
    assert refused("tools.plot_scores", *words) == [
        f"error: {tmp_path / 'bad.toml'}: [layer_0] q_proj: must be a finite number, got inf",
        f"error: --output: '{tmp_path / 'taken.png'}' already exists and is not overwritten",
    ]
    assert (tmp_path / "taken.png").read_bytes() == b"mine"
