WITH ended AS (
  SELECT grp, count(*) AS n, sum(ok) AS ok, sum(reserved_tokens) AS reserved_tokens,
    sum(reserved_micros) AS reserved_micros, sum(steps) AS steps, sum(hops) AS hops, sum(input_tokens) AS input_tokens,
    sum(output_tokens) AS output_tokens, sum(micros) AS micros
  FROM unnest(:grp::bigint[], :ok::bigint[], :reserved_tokens::bigint[], :reserved_micros::bigint[], :steps::bigint[],
    :hops::bigint[], :input_tokens::bigint[], :output_tokens::bigint[], :micros::bigint[])
    AS w (grp, ok, reserved_tokens, reserved_micros, steps, hops, input_tokens, output_tokens, micros)
  GROUP BY grp)
UPDATE groups g SET pending = pending - e.n, ok = g.ok + e.ok, failed = failed + e.n - e.ok,
  reserved_tokens = g.reserved_tokens - e.reserved_tokens, reserved_micros = g.reserved_micros - e.reserved_micros,
  steps = g.steps + e.steps, hops = g.hops + e.hops, input_tokens = g.input_tokens + e.input_tokens,
  output_tokens = g.output_tokens + e.output_tokens, micros = g.micros + e.micros
FROM ended e WHERE g.num = e.grp
RETURNING g.num, (SELECT r.final IS NOT NULL FROM runs r WHERE r.num = g.run), g.run, g.pending, g.low, g.need, g.ok,
  g.exhausted
