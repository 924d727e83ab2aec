UPDATE runs SET status = 'queued', host = NULL, pool = coalesce(?, pool)
WHERE num = ? AND epoch = ? AND status = 'in_progress'
