UPDATE runs SET status = :status, reason = :reason, wake_at = :wake_at, position = :position, parked_at = :at, host = NULL
WHERE num = :num
