SELECT news FROM runs WHERE num = :num AND epoch = :epoch AND position = :expected AND status = 'in_progress'
