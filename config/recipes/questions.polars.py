"""Questions to recorded pairs, in Polars.

python questions.polars.py 'state/pairs/*.ndjson.zst' labels.ndjson    # the local log
python questions.polars.py pairs.parquet labels.ndjson                 # an export
"""

import sys

import polars as pl

SIDES = ("primary", "candidate", "replicate")
KEYS = ("route", "candidate")

equal = pl.col("equal").cast(pl.Float64)
differs = 1 - equal


def read(source: str) -> pl.LazyFrame:
    """Each pair once; predictions as text, whatever they are."""
    if source.endswith(".parquet"):
        return pl.scan_parquet(source)
    as_text = {f"{side}_prediction": pl.String for side in SIDES}
    # All lines are looked at, so that a column that is null at first gets its type.
    log = pl.scan_ndjson(source, infer_schema_length=None, schema_overrides=as_text)
    return log.unique("pair_id")


def differ_by_hour(pairs: pl.LazyFrame) -> pl.LazyFrame:
    """How often do they differ, by route and hour?"""
    hour = pl.from_epoch("ts_ms", time_unit="ms").dt.truncate("1h").alias("hour_utc")
    return pairs.group_by(*KEYS, hour).agg(
        pl.len().alias("pairs"), pl.col("comparable").sum().alias("compared"),
        differs.mean().alias("differ"),
    )  # fmt: skip


def worst(pairs: pl.LazyFrame) -> pl.LazyFrame:
    """Which differ most?"""
    most = pairs.filter(~pl.col("equal")).sort("abs_diff", descending=True, nulls_last=True)
    return most.head(20).select("request_id", *KEYS, "first_diff_path", "abs_diff", "rel_diff")


def latency(pairs: pl.LazyFrame) -> pl.LazyFrame:
    """How long do both take?"""
    both = pairs.filter(pl.col("primary_status") == "ok", pl.col("candidate_status") == "ok")
    return both.group_by(KEYS).agg(
        pl.col(f"{side}_latency_ms").quantile(q, "linear").alias(f"{side}_p{q * 100:g}_ms")
        for side in ("primary", "candidate")
        for q in (0.5, 0.95, 0.99)
    )


def errors(pairs: pl.LazyFrame) -> pl.LazyFrame:
    """Which errors are there, by status?"""
    statuses = ("primary_status", "candidate_status", "candidate_http_status")
    return pairs.group_by(*KEYS, *statuses).agg(pl.len().alias("pairs"))


def weighted(pairs: pl.LazyFrame) -> pl.LazyFrame:
    """How often do they agree, where only a part is mirrored?"""
    weight = pl.col("sample_weight")
    return (
        pairs.filter("comparable")
        .group_by(KEYS)
        .agg(
            weight.sum().alias("stands_for"),
            ((weight * equal).sum() / weight.sum()).alias("agreement"),
        )
    )


def noise(pairs: pl.LazyFrame) -> pl.LazyFrame:
    """How often does the primary disagree with itself, by `replicate` calls (A/A)?"""
    both = pairs.filter(pl.col("replicate_equal").is_not_null(), pl.col("equal").is_not_null())
    return both.group_by(KEYS).agg(
        pl.len().alias("replicated"),
        (1 - pl.col("replicate_equal").cast(pl.Float64)).mean().alias("noise"),
        differs.mean().alias("differ"), pl.col("loss_diff").mean().alias("excess"),
    )  # fmt: skip


def right(pairs: pl.LazyFrame, labels: str) -> pl.LazyFrame:
    """Who is right? Labels are lines such as {"request_id": "…", "label": 7}."""
    truth = pl.scan_ndjson(labels, schema={"request_id": pl.String, "label": pl.String})

    def is_right(side: str) -> pl.Expr:
        # A text is quoted in Parquet, where predictions are JSON, and not in the log.
        said = pl.col(f"{side}_prediction").str.strip_chars('"')
        return (said == pl.col("label")).cast(pl.Float64).mean().alias(f"{side}_right")

    labelled = pairs.filter("comparable").join(truth, on="request_id")
    return labelled.group_by(KEYS).agg(
        pl.len().alias("labelled"), is_right("primary"), is_right("candidate")
    )


if __name__ == "__main__":
    found = read(sys.argv[1])
    for question in (differ_by_hour, worst, latency, errors, weighted, noise):
        print(question.__doc__, question(found).collect(), sep="\n")
    if len(sys.argv) > 2:
        print(right.__doc__, right(found, sys.argv[2]).collect(), sep="\n")
