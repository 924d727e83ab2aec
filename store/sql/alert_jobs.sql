-- What failed and what was refused of jobs, by job; the rows of shards are their job's, the shards are none.
SELECT r.run_id, r.tenant_id, sum(g.failed), sum(g.rejected) FROM runs r
JOIN runs h ON h.num = r.num OR h.grp = (SELECT num FROM groups WHERE run = r.num AND key = '0/retinue.batch#0')
JOIN groups g ON g.run = h.num AND g.key != '0/retinue.batch#0'
WHERE r.run_id IN (SELECT value FROM json_each(?)) GROUP BY r.num
