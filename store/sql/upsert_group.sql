INSERT INTO groups (run, key, total, pending, rejected, low, need, cursor, exhausted, reserved_tokens, reserved_micros)
VALUES (:run, :key, :created, :created, :rejected, :low, :need, :cursor, :exhausted, :reserved_tokens, :reserved_micros)
ON CONFLICT (run, key) DO UPDATE SET total = groups.total + :created, pending = groups.pending + :created,
  rejected = groups.rejected + :rejected, low = :low, need = :need, cursor = :cursor, exhausted = :exhausted,
  reserved_tokens = groups.reserved_tokens + :reserved_tokens, reserved_micros = groups.reserved_micros + :reserved_micros
RETURNING num, pending, ok
