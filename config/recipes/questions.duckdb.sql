-- Questions to recorded pairs, in DuckDB. Each needs the view `pairs`; the README makes it from the
-- local log or from a Parquet file.

-- How often do they differ, by route and hour?
SELECT route, candidate, date_trunc('hour', make_timestamp(ts_ms * 1000)) AS hour_utc,
       count(*) AS pairs, count(*) FILTER (comparable) AS compared,
       avg((NOT equal)::INT) AS differ
FROM pairs
GROUP BY ALL ORDER BY ALL;

-- Which differ most?
SELECT request_id, route, candidate, first_diff_path, abs_diff, rel_diff,
       primary_prediction, candidate_prediction
FROM pairs
WHERE NOT equal
ORDER BY abs_diff DESC NULLS LAST, request_id LIMIT 20;

-- How long do both take?
SELECT route, candidate,
       quantile_cont(primary_latency_ms, [0.5, 0.95, 0.99]) AS primary_ms,
       quantile_cont(candidate_latency_ms, [0.5, 0.95, 0.99]) AS candidate_ms,
       quantile_cont(candidate_latency_ms - primary_latency_ms, [0.5, 0.99]) AS paired_ms
FROM pairs
WHERE primary_status = 'ok' AND candidate_status = 'ok'
GROUP BY ALL ORDER BY ALL;

-- Which errors are there, by status?
SELECT route, candidate, primary_status, candidate_status, candidate_http_status,
       count(*) AS pairs
FROM pairs
GROUP BY ALL ORDER BY ALL;

-- How often do they agree, where only a part is mirrored?
-- A pair that was recorded with probability 1/10 stands for ten.
SELECT route, candidate, sum(sample_weight) AS stands_for,
       sum(sample_weight * equal::INT) / sum(sample_weight) AS agreement
FROM pairs
WHERE comparable
GROUP BY ALL ORDER BY ALL;

-- How often does the primary disagree with itself? (A/A, from `replicate` calls)
-- `excess` is what the candidate differs beyond that.
SELECT route, candidate, count(*) AS replicated,
       avg((NOT replicate_equal)::INT) AS noise,
       avg((NOT equal)::INT) AS differ,
       avg(loss_diff) AS excess
FROM pairs
WHERE replicate_equal IS NOT NULL AND equal IS NOT NULL
GROUP BY ALL ORDER BY ALL;

-- Who is right? labels.ndjson has lines such as {"request_id": "…", "label": 7}
-- A label is written as the prediction is.
SELECT route, candidate, count(*) AS labelled,
       avg((primary_prediction::VARCHAR = label::VARCHAR)::INT) AS primary_right,
       avg((candidate_prediction::VARCHAR = label::VARCHAR)::INT) AS candidate_right
FROM pairs
JOIN read_json('labels.ndjson', format = 'newline_delimited',
               columns = {request_id: 'VARCHAR', label: 'JSON'}) USING (request_id)
WHERE comparable
GROUP BY ALL ORDER BY ALL;
