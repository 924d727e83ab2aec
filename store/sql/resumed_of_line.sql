SELECT num, priority, depth, 0 FROM runs
WHERE status = 'queued' AND held = 0 AND pool = ? AND tenant_id = ? AND queue = ? AND started_at IS NOT NULL
ORDER BY priority DESC, depth DESC, num LIMIT ?
