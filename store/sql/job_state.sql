SELECT total, pending, ok, failed, rejected, exhausted, micros,
  (SELECT count(*) FROM requests JOIN runs r ON r.num = requests.run
   WHERE requests.status = 'open' AND (r.num = groups.run OR r.root = (SELECT coalesce(root, num) FROM runs WHERE num = groups.run)))
FROM groups WHERE key = :key AND run = (SELECT num FROM runs WHERE run_id = :run_id)
