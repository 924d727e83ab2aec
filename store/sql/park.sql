UPDATE runs SET status = :status, reason = :reason, wake_at = :wake_at, position = :position, host = NULL
WHERE num = :num
