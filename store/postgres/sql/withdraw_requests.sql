UPDATE requests SET status = 'withdrawn' WHERE run = ANY (CAST(:num AS bigint[])) AND status = 'open'
