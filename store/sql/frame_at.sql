SELECT epoch, facts FROM journal WHERE run = ? AND position = ?
