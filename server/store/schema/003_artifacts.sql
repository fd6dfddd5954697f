-- What an event names because it is too long for it: snapshots of processes.
CREATE TABLE IF NOT EXISTS artifacts $on_cluster
(
    ts DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    id UUID,
    host LowCardinality(String),
    kind LowCardinality(String),
    service LowCardinality(String) COMMENT 'Empty: of no service',
    release LowCardinality(String) COMMENT 'Empty: not known',
    slot Nullable(UInt64),
    generation Nullable(UInt64),
    pid Nullable(UInt64),
    start_ticks Nullable(UInt64),
    content String COMMENT 'JSON of at most 256 KiB' CODEC(ZSTD(6))
)
ENGINE = $merge_tree
PARTITION BY toMonday(ts)
ORDER BY id
TTL toDateTime(ts) + INTERVAL 32 DAY
SETTINGS ttl_only_drop_parts = 1, index_granularity = 64, fsync_after_insert = 1, fsync_part_directory = 1;
