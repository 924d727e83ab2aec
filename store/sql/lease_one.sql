UPDATE runs SET status = 'in_progress', host = :host, epoch = epoch + 1, wake_at = NULL, reason = NULL,
  started_at = coalesce(started_at, :at)
WHERE run_id = :only AND status = 'queued' AND held = 0
RETURNING num, run_id, tenant_id, epoch, position, news, cancel, started_at
