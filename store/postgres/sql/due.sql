UPDATE runs SET status = 'queued', wake_at = NULL, news = news + 1
WHERE num IN (SELECT num FROM runs WHERE wake_at <= ?
  AND status IN ('waiting', 'waiting_for_input', 'waiting_for_approval') ORDER BY num FOR UPDATE SKIP LOCKED)
RETURNING num
