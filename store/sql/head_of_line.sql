SELECT num, priority, depth, started_at IS NULL FROM runs
WHERE status = 'queued' AND held = 0 AND pool = ? AND tenant_id = ? AND queue = ?
ORDER BY priority DESC, depth DESC, num LIMIT ?
