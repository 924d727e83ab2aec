SELECT r.run_id, r.tenant_id, CAST(sum(g.failed) AS bigint), CAST(sum(g.rejected) AS bigint) FROM runs r
JOIN runs h ON h.num = r.num OR h.grp = (SELECT num FROM groups WHERE run = r.num AND key = '0/retinue.batch#0')
JOIN groups g ON g.run = h.num AND g.key != '0/retinue.batch#0'
WHERE r.run_id IN (SELECT value FROM jsonb_array_elements_text(CAST(? AS jsonb)) AS each (value)) GROUP BY r.num
