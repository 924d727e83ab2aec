UPDATE runs SET position = :position, seen = coalesce(:seen, seen)
WHERE num = :num AND epoch = :epoch AND position = :expected AND status = 'in_progress'
RETURNING news
