SELECT DISTINCT r.run_id, s.server FROM runs r JOIN capability_sessions s ON s.run = r.num
WHERE r.run_id IN (SELECT value FROM json_each(?)) AND s.closed_at IS NULL
