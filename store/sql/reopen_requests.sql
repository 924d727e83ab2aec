UPDATE requests SET key = key || '@' || num WHERE run = ? AND status != 'open'
