SELECT r.num, r.run_id FROM runs r JOIN runs j ON j.num = r.parent
WHERE r.parent = :job AND r.num > :after AND r.job_id = j.run_id AND r.status = 'failed'
  AND (CAST(:reason AS TEXT) IS NULL OR r.reason = :reason)
ORDER BY r.num LIMIT :limit
