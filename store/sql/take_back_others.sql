UPDATE runs SET status = 'queued', host = NULL
WHERE host = :host AND status = 'in_progress' AND run_id NOT IN (SELECT value FROM json_each(:held))
RETURNING num
