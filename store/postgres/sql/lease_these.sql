WITH chosen AS MATERIALIZED (
  SELECT num FROM runs WHERE num IN (SELECT CAST(value AS bigint) FROM jsonb_array_elements_text(CAST(:nums AS jsonb)) AS each (value))
    AND status = 'queued' AND held = 0 FOR UPDATE SKIP LOCKED)
UPDATE runs SET status = 'in_progress', host = :host, epoch = epoch + 1, wake_at = NULL, reason = NULL,
  started_at = coalesce(started_at, :at)
FROM chosen WHERE runs.num = chosen.num
RETURNING runs.num, run_id, tenant_id, epoch, position, news, cancel, started_at
