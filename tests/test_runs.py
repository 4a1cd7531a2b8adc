"""The run's folder, and what one run finds of others."""

import argparse
import json

import pytest

from common import datasets, runs

SAMPLE = datasets.Source("sample", "somewhere")
WHOLE = datasets.Source("folder", "elsewhere")


def write_run(place, accuracy, source="sample", count=1000):
    place.mkdir(parents=True)
    results = {"data": {"source": source, "test": count}, "test": {"accuracy": accuracy}}
    (place / "results.json").write_text(json.dumps(results), encoding="utf-8")


@pytest.fixture
def options(tmp_path, monkeypatch):
    """An output folder, and a repository that keeps no runs."""
    monkeypatch.setattr(runs, "HOME", tmp_path / "home")
    return argparse.Namespace(output_dir=tmp_path / "outputs")


def found(options, source=SAMPLE, count=1000):
    results, folder = runs.earlier("cifar10", "mlp", options, source, count)
    return (results["test"]["accuracy"], folder.name) if results else (None, folder)


def test_the_newest_finished_run_on_the_same_data_is_found(options):
    place = options.output_dir / "cifar10-mlp"
    assert found(options) == (None, None)
    write_run(place / "20260101-000000", 0.1)
    write_run(place / "20260102-000000", 0.2)
    assert found(options) == (0.2, "20260102-000000")
    write_run(place / "20260103-000000", 0.3, source="folder")
    write_run(place / "20260104-000000", 0.4, count=999)
    (place / "20260105-000000").mkdir()  # of a run that did not end well
    write_run(place / "20260106-000000", None)
    (place / "20260106-000000" / "results.json").write_text("{", encoding="utf-8")
    assert found(options) == (0.2, "20260102-000000")
    assert found(options, source=WHOLE) == (0.3, "20260103-000000")


def test_without_one_of_his_own_a_reader_gets_that_of_the_repository(options, tmp_path):
    write_run(tmp_path / "home" / "outputs" / "reference" / "cifar10-mlp" / "seed-0", 0.6)
    assert found(options) == (0.6, "seed-0")
    write_run(options.output_dir / "cifar10-mlp" / "20260101-000000", 0.5)
    assert found(options) == (0.5, "20260101-000000")


def test_two_runs_of_the_same_second_do_not_share_a_folder(tmp_path):
    stem = tmp_path / "mnist-cnn" / "20260101-000000"
    made = [runs._make_new(stem) for _ in range(3)]
    assert [path.name for path in made] == [stem.name, f"{stem.name}-2", f"{stem.name}-3"]
