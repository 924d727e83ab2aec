SELECT r.run_id, r.tenant_id, CAST(sum(g.failed) AS bigint), CAST(sum(g.rejected) AS bigint)
FROM runs r JOIN groups g ON g.run = r.num
WHERE r.run_id IN (SELECT value FROM jsonb_array_elements_text(CAST(? AS jsonb)) AS each (value)) GROUP BY r.num
