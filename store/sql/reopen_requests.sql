UPDATE requests SET key = key || '@' || num WHERE run = ? AND status IN ('denied', 'expired', 'withdrawn')
