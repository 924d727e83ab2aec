WITH chosen AS MATERIALIZED (
  SELECT num FROM runs WHERE status = 'queued' AND held = 0 AND pool = :pool AND tenant_id = :tenant AND queue = :queue
  ORDER BY priority DESC, depth DESC, num LIMIT :limit FOR UPDATE SKIP LOCKED)
UPDATE runs SET status = 'in_progress', host = :host, epoch = epoch + 1, wake_at = NULL, reason = NULL,
  started_at = coalesce(started_at, :at)
FROM chosen WHERE runs.num = chosen.num
RETURNING runs.num, run_id, tenant_id, epoch, position, news, cancel, started_at
