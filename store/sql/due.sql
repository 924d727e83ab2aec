UPDATE runs SET status = 'queued', wake_at = NULL, news = news + 1
WHERE wake_at <= ? AND status IN ('waiting', 'waiting_for_input', 'waiting_for_approval')
RETURNING num
