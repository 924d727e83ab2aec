-- Failed rows of the shards of a job (runs of its group '0/retinue.batch#0'), a page of them.
SELECT r.num, r.run_id FROM runs r
WHERE r.parent IN (SELECT num FROM runs
    WHERE grp = (SELECT num FROM groups WHERE run = :job AND key = '0/retinue.batch#0'))
  AND r.num > :after AND r.status = 'failed' AND (CAST(:reason AS TEXT) IS NULL OR r.reason = :reason)
ORDER BY r.num LIMIT :limit
