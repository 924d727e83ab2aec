UPDATE runs SET news = news + 1,
  status = CASE WHEN status IN ('waiting', 'waiting_for_input', 'waiting_for_approval') THEN 'queued' ELSE status END,
  wake_at = CASE WHEN status = 'in_progress' THEN wake_at ELSE NULL END
WHERE num = ANY (CAST(:num AS bigint[])) AND status NOT IN ('completed', 'failed', 'canceled')
