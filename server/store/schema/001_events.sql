-- The timeline: one row for each event.
CREATE TABLE IF NOT EXISTS events $on_cluster
(
    ts DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    arrival UInt64 COMMENT 'Order in which rows became visible; near microseconds since 1970' CODEC(DoubleDelta, ZSTD(1)),
    id UUID,
    cause Nullable(UUID),
    host LowCardinality(String),
    kind LowCardinality(String),
    severity Enum8('info' = 1, 'warning' = 2, 'critical' = 3),
    text String CODEC(ZSTD(1)),
    service LowCardinality(String) COMMENT 'Empty: no service could be named',
    release LowCardinality(String) COMMENT 'Empty: not known',
    slot Nullable(UInt64),
    generation Nullable(UInt64),
    pid Nullable(UInt64),
    start_ticks Nullable(UInt64),
    evidence Array(Tuple(source LowCardinality(String), fact String)) CODEC(ZSTD(1)),
    attrs Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    nums Map(LowCardinality(String), Float64) CODEC(ZSTD(1)),
    floats Array(LowCardinality(String)) COMMENT 'Names in nums whose value is whole and yet was a float',
    flags Map(LowCardinality(String), Bool),
    death LowCardinality(String) MATERIALIZED attrs['death'],
    INDEX by_id id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_cause cause TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_arrival arrival TYPE minmax GRANULARITY 1,
    INDEX by_kind kind TYPE set(64) GRANULARITY 1
)
ENGINE = $merge_tree
PARTITION BY toYYYYMM(ts)
ORDER BY (ts, host, kind)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- What a chart marks: rare events as Grafana's annotations want them.
CREATE VIEW IF NOT EXISTS marks $on_cluster AS
SELECT ts AS time, kind AS title, text, [host, service, toString(severity)] AS tags, kind, host, service, severity, id
FROM events
WHERE severity != 'info' OR kind LIKE 'deploy.%' OR kind LIKE 'playbook.%';
