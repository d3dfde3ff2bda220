-- Questions to recorded pairs, in ClickHouse. The table `pairs` is what
-- `understudy schema pair --dialect clickhouse` prints; FINAL counts a pair once that came twice.

-- How often do they differ, by route and hour?
SELECT route, candidate, toStartOfHour(time) AS hour_utc,
       count() AS pairs, countIf(comparable) AS compared, avg(NOT equal) AS differ
FROM pairs FINAL
GROUP BY ALL ORDER BY route, candidate, hour_utc;

-- How long do both take?
SELECT route, candidate,
       quantilesExact(0.5, 0.95, 0.99)(primary_latency_ms) AS primary_ms,
       quantilesExact(0.5, 0.95, 0.99)(candidate_latency_ms) AS candidate_ms
FROM pairs FINAL
WHERE primary_status = 'ok' AND candidate_status = 'ok'
GROUP BY ALL ORDER BY route, candidate;

-- Which errors are there, by status?
SELECT route, candidate, primary_status, candidate_status, candidate_http_status,
       count() AS pairs
FROM pairs FINAL
GROUP BY ALL ORDER BY ALL;

-- How often do they agree, where only a part is mirrored?
SELECT route, candidate, sum(sample_weight) AS stands_for,
       sumIf(sample_weight, equal) / sum(sample_weight) AS agreement
FROM pairs FINAL
WHERE comparable
GROUP BY ALL ORDER BY route, candidate;
