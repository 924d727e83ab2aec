UPDATE runs SET status = 'queued', host = NULL WHERE host = ? AND status = 'in_progress' RETURNING num
