SELECT num, priority, depth FROM runs
WHERE status = 'queued' AND held = 0 AND pool = ? AND tenant_id = ? AND queue = ? AND started_at IS NULL
ORDER BY priority DESC, depth DESC, num LIMIT ?
