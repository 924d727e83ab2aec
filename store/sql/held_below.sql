SELECT CAST(coalesce(sum(reserved_micros), 0) AS bigint), CAST(coalesce(sum(micros), 0) AS bigint) FROM groups
WHERE run = ?
