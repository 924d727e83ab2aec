SELECT 1 FROM runs WHERE num = ? AND epoch = ? AND status = 'in_progress'
