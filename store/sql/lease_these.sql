UPDATE runs SET status = 'in_progress', host = :host, epoch = epoch + 1, wake_at = NULL, reason = NULL,
  started_at = coalesce(started_at, :at)
WHERE num IN (SELECT CAST(value AS BIGINT) FROM json_each(:nums)) AND status = 'queued'
RETURNING num, run_id, tenant_id, epoch, position, news, cancel, started_at
