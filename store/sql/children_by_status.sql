SELECT p.run_id, r.status, count(*) FROM runs p JOIN runs r ON r.parent = p.num
WHERE p.run_id IN (SELECT value FROM json_each(:run_ids)) GROUP BY p.num, r.status
