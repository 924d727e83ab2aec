SELECT r.run_id, r.tenant_id, sum(g.failed), sum(g.rejected) FROM runs r JOIN groups g ON g.run = r.num
WHERE r.run_id IN (SELECT value FROM json_each(?)) GROUP BY r.num
