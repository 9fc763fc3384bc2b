"""Estimate how many experts a corpus needs: TF-IDF, then k-means with the elbow rule, or DBSCAN.

Usage: python -m tools.cluster_corpus [FILES ...] [--dataset gsm8k --dataset-dir DIR] [--config run.toml]
       [--method kmeans] [--kmax 10] [--output clusters.toml] [--write-parts DIR]
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from configs.command_line.tool_flags import Flag, ended, read_words
from configs.runtime import console
from configs.runtime.faults import Findings
from configs.runtime.files import place_faults, write_bytes, write_text
from configs.schema.number_values import Real, Whole
from configs.schema.options import MIXTURE, Options
from configs.schema.values import Choice, Listed, PathText, Switch, Word
from configs.toml.writer import toml_text
from dataset.clustering.cluster_files import lines_of_file, lines_of_set, write_clusters
from dataset.clustering.report import METHODS, ClusterOptions, ClusterReport
from dataset.mixture.bind_parts import bind_parts
from dataset.mixture.gather_parts import Request, gather_parts, join
from dataset.mixture.parts import Part
from dataset.mixture.tool_data import bound_for_tool
from dataset.rows.plain_texts import ENDINGS, Text, read_texts
from dataset.rows.row_source import Fetch
from dataset.rows.task_rows import TaskRows
from dataset.task import Example
from model.figures.charts import elbow_curve

_DEFAULTS = ClusterOptions()
_FLAGS = (
    Flag("FILES", PathText(), f"Text files: {', '.join(ENDINGS)}.", repeats=True, default=()),
    Flag("--fields", Listed(Word()), "Fields of the rows that are clustered; default: all."),
    Flag("--dataset", Word(), f"A data set by name instead of FILES ({MIXTURE}: see --config)."),
    Flag("--dataset-dir", PathText(), "Directory of the data set's files."),
    Flag(
        "--config",
        PathText(),
        "TOML of a run: data set, its directory, seed and the [data] table are taken from it.",
    ),
    Flag("--max-bad-rows", Whole(0), "Number of malformed rows that may be skipped.", default=0),
    Flag("--offline", Switch(), "Do not access the Hugging Face Hub.", default=False),
    Flag("--method", Choice("method", METHODS), "Clustering method.", default=_DEFAULTS.method),
    Flag("--kmax", Whole(1), "k-means: largest number of clusters tried.", default=_DEFAULTS.kmax),
    Flag("--eps", Real(0, 1, low_open=True), "DBSCAN: largest cosine distance.", default=_DEFAULTS.eps),
    Flag(
        "--min-samples", Whole(1), "DBSCAN: neighbours that make a core point.", default=_DEFAULTS.min_samples
    ),
    Flag("--max-texts", Whole(1), "Largest number of texts; more are sampled.", default=_DEFAULTS.max_texts),
    Flag("--seed", Whole(0, 2**32 - 1), "Seed of the sample and of k-means.", default=_DEFAULTS.seed),
    Flag(
        "--output",
        PathText(),
        "TOML report; the picture of the curve gets the same name with .png.",
        default=Path("clusters.toml"),
    ),
    Flag("--write-parts", PathText(), "Directory to create, with one file of rows per cluster."),
    Flag("--json", Switch(), "Print JSON instead of tables.", default=False),
)
_OF_KMEANS, _OF_DBSCAN = {"--kmax"}, {"--eps", "--min-samples"}
_OF_SETS = {"--dataset", "--dataset-dir", "--config", "--offline"}


@dataclass(frozen=True)
class Checked:
    """The inputs, read without any heavy library; either texts or data sets.

    Args:
        options: those of a run with these data sets.
        texts: name of a file -> its texts.
        parts: the data set, or those of a mixture.
        found: part -> its rows; parts that come from the hub are missing.
    """

    options: Options
    texts: Mapping[str, list[Text]]
    parts: Sequence[Part] = ()
    found: Mapping[str, TaskRows] = field(default_factory=dict)

    @property
    def request(self) -> Request:
        """The splits to read: training and validation, no test set."""
        return Request("imp-test", False, self.options.max_bad_rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Cluster the corpus, write and print the report, and return the exit code."""
    try:
        words = sys.argv[1:] if arguments is None else arguments
        purpose = "Find the number of clusters in a corpus."
        given = read_words("tools.cluster_corpus", purpose, _FLAGS, words)
        named = checked(given)
        fetch: Fetch | None = None
        if len(named.found) < len(named.parts):
            from dataset.rows import hub

            fetch = partial(hub.load, offline=named.options.offline)
            named = replace(named, found=gather_parts(named.parts, named.request, named.found, fetch))
        from dataset.clustering.cluster import assign_clusters, cluster, training_texts

        corpus = corpus_of(named, training_texts)
        options = cluster_options(given, named.options.seed)
        written: list[str] = []
        if given.write_parts is None:
            report = cluster(corpus, options)
        else:
            report, labels = assign_clusters(corpus, options)
            sources = [lines_of_file(name, texts) for name, texts in named.texts.items()]
            sources += [lines_of_set(part, named.found[part.name], fetch) for part in named.parts]
            counts = write_clusters(given.write_parts.absolute(), sources, labels)
            written += [f"{given.write_parts.absolute() / name} ({n:,} rows)" for name, n in counts.items()]
        written += map(str, write(report, given.output.absolute()))
        if given.json:
            console.say(json.dumps(report.table(), indent=2, ensure_ascii=False, allow_nan=False))
        else:
            show(report, written)
    except (Exception, KeyboardInterrupt) as error:
        return ended(error)
    return 0


def checked(given: SimpleNamespace) -> Checked:
    """Read the inputs without importing a heavy library.

    Raises:
        InputFault: one line for each fault.
    """
    findings = Findings()
    findings.lines += _word_faults(given)
    findings.lines += place_faults("--output", given.output.absolute())
    findings.lines += place_faults("--output", _picture(given.output.absolute()))
    findings.lines += _parts_faults(given)
    bound = findings.settled(findings.attempt(partial(bound_for_tool, given)))
    if given.files:
        return Checked(bound.options, read_texts(given.files, given.fields, given.max_bad_rows))
    bound, parts = bind_parts(bound)
    named = Checked(bound.options, {}, parts)
    return replace(named, found=gather_parts(parts, named.request, {}))


def corpus_of(named: Checked, texts_of: Callable[[Sequence[Example]], list[str]]) -> dict[str, list[str]]:
    """Return the texts of each file, or the training texts of each data set.

    Args:
        named: the files or the data sets, with all their rows.
        texts_of: training examples -> the text of each.

    Raises:
        InputFault: when the parts of a mixture cannot be combined.
    """
    if not named.parts:
        return {name: [one.text for one in texts] for name, texts in named.texts.items()}
    join(named.parts, named.found)
    examples = {part.name: named.found[part.name].splits["train"].examples for part in named.parts}
    return {name: texts_of(rows) for name, rows in examples.items()}


def cluster_options(given: SimpleNamespace, seed: int) -> ClusterOptions:
    """Return the clustering options, with the seed of the command line or of the run's TOML."""
    chosen = {field.name: getattr(given, field.name) for field in dataclasses.fields(ClusterOptions)}
    return ClusterOptions(**chosen | {"seed": seed})


def write(report: ClusterReport, output: Path) -> list[Path]:
    """Write the report, and the elbow curve of k-means; return the files."""
    from_curve = {point.k: point.error for point in report.curve}
    write_text(output, toml_text(report.table()))
    if not from_curve:
        return [output]
    write_bytes(_picture(output), elbow_curve(from_curve, report.chosen))
    return [output, _picture(output)]


def show(report: ClusterReport, written: Sequence[str]) -> None:
    """Print the curve, the clusters and the files written."""
    if report.curve:
        curve = [
            (point.k, f"{point.error:.4f}", f"{point.distance:.4f}", "elbow" * (point.k == report.chosen))
            for point in report.curve
        ]
        console.table("Curve", ("k", "squared error", "distance to the chord", ""), curve)
    parts = sorted({part for cluster in report.clusters for part in cluster.parts})
    rows = [
        (
            number,
            f"{cluster.size:,}",
            f"{cluster.share:.3f}",
            *(f"{cluster.parts.get(part, 0):,}" for part in parts),
            " ".join(cluster.terms),
        )
        for number, cluster in enumerate(report.clusters)
    ]
    console.table("Clusters", ("cluster", "texts", "share", *parts, "terms"), rows)
    console.say(report.summary())
    console.say("\n".join(f"written: {path}" for path in written))


def _word_faults(given: SimpleNamespace) -> list[str]:
    """Return a fault for each combination of flags that is not allowed."""
    faults = []
    if given.files:
        others = sorted(given.given & _OF_SETS)
        faults += [f"{flag}: cannot be combined with FILES" for flag in others]
    elif not given.given & {"--dataset", "--config"}:
        faults.append("FILES: required, unless --dataset is given")
    if given.fields and not given.files:
        faults.append("--fields: only with FILES")
    strange = _OF_DBSCAN if given.method == "kmeans" else _OF_KMEANS
    return faults + [f"{flag}: not for --method {given.method}" for flag in sorted(given.given & strange)]


def _parts_faults(given: SimpleNamespace) -> list[str]:
    """Return why the directory of --write-parts cannot be created."""
    if given.write_parts is None:
        return []
    place, output = given.write_parts.absolute(), given.output.absolute()
    faults = (
        [f"--write-parts: '{place}' is already the path of --output"]
        if place in (output, _picture(output))
        else []
    )
    return faults + place_faults("--write-parts", place)


def _picture(output: Path) -> Path:
    return output.with_suffix(".png")


if __name__ == "__main__":
    sys.exit(main())
