-- One number of one subject at one moment.
CREATE TABLE IF NOT EXISTS samples $on_cluster
(
    ts DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    metric LowCardinality(String),
    host LowCardinality(String),
    service LowCardinality(String) COMMENT 'Empty: of no service',
    subject LowCardinality(String) COMMENT 'Empty: the metric has one subject only',
    value Float64 CODEC(Gorilla, ZSTD(1)),
    spool LowCardinality(String) COMMENT 'With seq the name of the sample, by which a second sending is recognised',
    seq UInt64 CODEC(Delta, ZSTD(1))
)
ENGINE = $merge_tree
PARTITION BY toDate(ts)
ORDER BY (metric, host, service, subject, ts)
TTL toDateTime(ts) + INTERVAL 31 DAY
SETTINGS ttl_only_drop_parts = 1;

-- The same by the minute, kept for longer.
CREATE TABLE IF NOT EXISTS samples_1m $on_cluster
(
    minute DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    metric LowCardinality(String),
    host LowCardinality(String),
    service LowCardinality(String),
    subject LowCardinality(String),
    least SimpleAggregateFunction(min, Float64) CODEC(Gorilla, ZSTD(1)),
    most SimpleAggregateFunction(max, Float64) CODEC(Gorilla, ZSTD(1)),
    total SimpleAggregateFunction(sum, Float64) CODEC(Gorilla, ZSTD(1)),
    number SimpleAggregateFunction(sum, UInt64) CODEC(Delta, ZSTD(1))
)
ENGINE = $aggregating_merge_tree
PARTITION BY toYYYYMM(minute)
ORDER BY (metric, host, service, subject, minute)
TTL minute + INTERVAL 400 DAY
SETTINGS ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS samples_to_1m $on_cluster TO samples_1m AS
SELECT toStartOfMinute(toDateTime(ts, 'UTC')) AS minute, metric, host, service, subject,
       min(value) AS least, max(value) AS most, sum(value) AS total, count() AS number
FROM samples
GROUP BY minute, metric, host, service, subject;
