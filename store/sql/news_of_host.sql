SELECT runs.num, runs.run_id, runs.tenant_id, runs.news, runs.cancel, runs.held FROM runs
WHERE runs.host = ? AND runs.status = 'in_progress' AND runs.news > runs.seen
