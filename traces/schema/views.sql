-- The usual questions.

CREATE VIEW ends AS  -- how every run ended, the newest end where it was retried; none while it goes on
FROM run_results AS r
ANTI JOIN retries AS again ON again.run_id = r.run_id AND again.seq > r.seq;

CREATE VIEW runs AS  -- every run as it stands now
WITH lease AS (
    SELECT
        run_id,
        min(time) AS started_at,
        max(epoch) AS epoch,
        count(*) AS leases,
        max(seq) AS seq,
        arg_max({'host_id': host_id, 'actor_id': actor_id, 'pid': pid, 'node': node}, epoch) AS host
    FROM leases
    GROUP BY run_id
),
park AS (
    SELECT
        run_id,
        max(seq) AS seq,
        arg_max({'status': status, 'reason': reason, 'wake_at': wake_at}, seq) AS latest
    FROM parks
    GROUP BY run_id
)
SELECT
    q.run_id, q.parent_run_id, q.root_run_id, q.tenant_id, q.principal_id, q.agent, q.agent_version, q.kind,
    q.job_id, q.session_id, q.input_id, q.route, q.pool, q.depth, q.model,
    CASE
        WHEN r.status IS NOT NULL THEN r.status
        WHEN coalesce(park.seq > lease.seq, FALSE) THEN park.latest.status
        WHEN lease.seq IS NOT NULL THEN 'in_progress'
        ELSE 'queued'
    END AS status,
    CASE
        WHEN r.reason IS NOT NULL THEN r.reason
        WHEN coalesce(park.seq > lease.seq, FALSE) THEN park.latest.reason
    END AS reason,
    q.time AS created_at,
    lease.started_at,
    r.time AS finished_at,
    CASE WHEN r.status IS NULL AND park.seq > lease.seq THEN park.latest.wake_at END AS wake_at,
    epoch_us(r.time - lease.started_at) / 1000 AS duration_ms,
    epoch_us(lease.started_at - q.time) / 1000 AS queued_ms,
    r.steps, r.hops, r.input_tokens, r.output_tokens, r.cost_usd, r.confidence,
    r.error_code, r.error_message, r.retryable,
    coalesce(lease.leases, 0) AS leases,
    lease.epoch, lease.host.host_id AS host_id, lease.host.actor_id AS actor_id, lease.host.pid AS pid, lease.host.node AS node,
    q.trace_id, q.span_id, q.group_key, q.group_index, q.input, r.output
FROM run_requests AS q
LEFT JOIN lease USING (run_id)
LEFT JOIN park USING (run_id)
LEFT JOIN ends AS r USING (run_id);

CREATE VIEW run_events AS  -- the life of a run, step by step
SELECT seq, ordinal, time, run_id, tenant_id, agent, 'accepted' AS event, 'queued' AS status, NULL AS reason,
    NULL AS epoch, NULL AS actor_id, NULL AS pid, NULL AS node
FROM run_requests
UNION ALL
SELECT seq, ordinal, time, run_id, tenant_id, agent, 'leased', 'in_progress', NULL, epoch, actor_id, pid, node
FROM leases
UNION ALL
SELECT seq, ordinal, time, run_id, tenant_id, agent, 'parked', status, reason, NULL, NULL, NULL, NULL
FROM parks
UNION ALL
SELECT seq, ordinal, time, run_id, tenant_id, agent, 'finished', status, reason, NULL, NULL, NULL, NULL
FROM run_results
UNION ALL
SELECT seq, ordinal, time, run_id, tenant_id, agent, 'retried', 'queued', retried_by, NULL, NULL, NULL, NULL
FROM retries;

CREATE VIEW run_tree AS  -- every run with its path from the root
WITH RECURSIVE tree AS (
    SELECT run_id, root_run_id, parent_run_id, agent, status, reason, cost_usd, duration_ms, 0 AS level, [run_id] AS path
    FROM runs
    WHERE parent_run_id IS NULL
    UNION ALL
    SELECT c.run_id, c.root_run_id, c.parent_run_id, c.agent, c.status, c.reason, c.cost_usd, c.duration_ms,
        tree.level + 1, list_append(tree.path, c.run_id)
    FROM runs AS c
    JOIN tree ON c.parent_run_id = tree.run_id
)
SELECT * FROM tree;

CREATE VIEW children AS  -- the children of each run, and where they ran
SELECT parent_run_id, run_id, group_key, group_index, agent, status, reason, created_at, finished_at, duration_ms,
    cost_usd, leases, actor_id, pid, node, output
FROM runs
WHERE parent_run_id IS NOT NULL;

CREATE VIEW costs AS  -- every try of a step that used tokens or money; nothing is counted twice
WITH spending AS (
    SELECT time, run_id, root_run_id, tenant_id, agent, agent_version, job_id, session_id, effect, name,
        provider, model, input_tokens, output_tokens, cost_usd
    FROM spans
    WHERE effect <> 'run'
    UNION ALL
    SELECT a.time, a.run_id, a.root_run_id, a.tenant_id, a.agent, q.agent_version, q.job_id, q.session_id, i.effect,
        i.name, NULL AS provider, CASE WHEN i.effect = 'model' THEN i.name END AS model, a.input_tokens,
        a.output_tokens, a.cost_usd
    FROM attempts AS a
    LEFT JOIN (SELECT DISTINCT run_id, key, effect, name FROM intents) AS i USING (run_id, key)
    LEFT JOIN run_requests AS q USING (run_id)
)
SELECT *, CAST(time AT TIME ZONE 'UTC' AS DATE) AS day
FROM spending
WHERE input_tokens > 0 OR output_tokens > 0 OR cost_usd > 0;

CREATE VIEW cost_by_day AS  -- spending by day (UTC), tenant, agent and model
SELECT day, tenant_id, agent, provider, model, count(*) AS calls, sum(input_tokens)::BIGINT AS input_tokens,
    sum(output_tokens)::BIGINT AS output_tokens, sum(cost_usd) AS cost_usd
FROM costs
GROUP BY ALL;

CREATE VIEW tenant_money AS  -- what top-level runs have spent and open ones may spend, by tenant and the day (UTC) of acceptance
SELECT CAST(q.time AT TIME ZONE 'UTC' AS DATE) AS day, q.tenant_id, count(*) AS runs,
    count(*) FILTER (WHERE e.run_id IS NULL) AS open_runs,
    coalesce(sum(e.cost_usd), 0) AS spent_usd,
    coalesce(sum(CAST(q.budget.usd AS DECIMAL(18, 6))) FILTER (WHERE e.run_id IS NULL), 0) AS reserved_usd
FROM run_requests AS q
LEFT JOIN ends AS e USING (run_id)
WHERE q.parent_run_id IS NULL AND q.agent <> 'retinue.rollout'
GROUP BY ALL;

CREATE VIEW rollouts AS  -- every change of how far a version is let out, by people and by the runtime; the newest holds
SELECT time, CAST(facts.kind AS VARCHAR) AS kind, CAST(facts.name AS VARCHAR) AS name,
    CAST(facts.version AS VARCHAR) AS version, CAST(facts.stage AS VARCHAR) AS stage,
    CAST(facts.share AS DOUBLE) / 10000 AS share, CAST(facts.by AS VARCHAR) AS by, CAST(facts.reason AS VARCHAR) AS reason,
    run_id, tenant_id
FROM events
WHERE topic = 'rollout';

CREATE VIEW slowest_steps AS  -- steps that ended, slowest first; waiting for people and timers left out
SELECT duration_ms, operation, name, run_id, agent, tenant_id, key, turn, attempts, result, error_type, start_time,
    actor_id, pid, node
FROM spans
WHERE effect IN ('model', 'call', 'step', 'recall')
ORDER BY duration_ms DESC;

CREATE VIEW tool_errors AS  -- calls of capabilities that did not return a value
SELECT time, tool, result, error_code, error_message, arguments, run_id, agent, tenant_id, turn, call_id, side_effect,
    duration_ms, span_id
FROM tool_calls
WHERE result <> 'ok';

CREATE VIEW omissions AS  -- what the model was not shown, and why
SELECT i.time, i.run_id, i.agent, i.tenant_id, i.turn, i.number, i.source, i.kind, i.tokens, i.reason,
    p.tokens AS packet_tokens, p.token_limit
FROM context_items AS i
JOIN context_packets AS p ON p.seq = i.seq AND p.ordinal = i.ordinal
WHERE NOT i.included;

CREATE VIEW gate_denials AS  -- what the gate did not allow outright
SELECT time, outcome, stage, resource, reason, rules, run_id, agent, tenant_id, turn, call_id, policy_digest
FROM policy_decisions
WHERE outcome <> 'allow';

CREATE VIEW stop_reasons AS  -- how runs ended, by agent
SELECT agent, status, reason, count(*) AS runs, sum(cost_usd) AS cost_usd, any_value(error_message) AS example,
    max(time) AS last_time
FROM ends
GROUP BY agent, status, reason;

CREATE VIEW approvals AS  -- what people were asked, and what they said
SELECT q.request_id, q.kind, coalesce(a.status, CASE WHEN r.run_id IS NULL THEN 'open' ELSE 'withdrawn' END) AS status,
    q.run_id, q.root_run_id, q.tenant_id, q.agent, q.key, q.name, q.prompt, q.time AS asked_at, a.time AS answered_at,
    a.answered_by, epoch_us(a.time - q.time) / 1000 AS waited_ms, q.content, a.value
FROM requests AS q
LEFT JOIN answers AS a USING (run_id, key)
LEFT JOIN ends AS r USING (run_id);

CREATE VIEW capability_sessions AS  -- every capability session as it stands now
SELECT capability_session_id, run_id, root_run_id, tenant_id, agent, server, number, status, cause, approval, scope,
    transport, protocol, wire_session_id, pins, expires_at, expires_from, opened_at, time AS changed_at, closed_at
FROM session_changes
QUALIFY row_number() OVER (PARTITION BY capability_session_id ORDER BY seq DESC, ordinal DESC) = 1;

CREATE VIEW sandboxes AS  -- every sandbox as it stood at its newest move
SELECT sandbox_id, place, run_id, root_run_id, tenant_id, agent, name, manifest, manifest_version, profile, profile_digest,
    backend, confinement, status, event, cause, generation, head_generation, base_snapshot_id, head_snapshot_id, entries,
    bytes, tier, node, epoch, can_resume, can_snapshot, must_recreate, omitted, forked_from, opened_at, time AS changed_at,
    closed_at
FROM sandbox_moves
QUALIFY row_number() OVER (PARTITION BY sandbox_id ORDER BY seq DESC, ordinal DESC) = 1;

CREATE VIEW elicitations AS  -- what servers asked people, and what they said
SELECT q.request_id, q.status, q.run_id, q.root_run_id, q.tenant_id, q.agent, q.key, q.name AS tool,
    q.content.asked.kind::VARCHAR AS form, q.prompt, q.asked_at, q.answered_at, q.answered_by, q.waited_ms,
    q.value.action::VARCHAR AS action, q.content, q.value
FROM approvals AS q
WHERE q.kind = 'input' AND contains(q.key, '!elicited:');

CREATE VIEW in_flight AS  -- steps that began and have not ended, of runs that have not ended
SELECT i.run_id, i.key, i.effect, i.name, min(i.time) AS since, any_value(i.agent) AS agent,
    any_value(i.tenant_id) AS tenant_id, count(*) AS tries, max(i.reserved_tokens) AS reserved_tokens,
    max(i.reserved_usd) AS reserved_usd
FROM intents AS i
ANTI JOIN spans AS s ON s.run_id = i.run_id AND s.key = i.key
    AND (s.seq > i.seq OR (s.seq = i.seq AND s.ordinal > i.ordinal))
ANTI JOIN ends AS r ON r.run_id = i.run_id
GROUP BY i.run_id, i.key, i.effect, i.name;

CREATE VIEW decision_record AS  -- one row for each decision with all it takes to understand it; name the run
WITH asked AS (
    SELECT * FROM model_calls
    QUALIFY row_number() OVER (PARTITION BY run_id, turn ORDER BY seq DESC, ordinal DESC) = 1
),
shown AS (
    SELECT * FROM context_packets
    QUALIFY row_number() OVER (PARTITION BY run_id, turn ORDER BY seq DESC, ordinal DESC) = 1
),
checks AS (
    SELECT run_id, turn,
        list({'what': what, 'stage': stage, 'ok': ok, 'errors': errors} ORDER BY seq, ordinal) AS validations
    FROM validations
    GROUP BY run_id, turn
),
gates AS (
    SELECT run_id, turn, list({'stage': stage, 'resource': resource, 'outcome': outcome, 'reason': reason,
        'rules': rules} ORDER BY seq, ordinal) AS gates
    FROM policy_decisions
    GROUP BY run_id, turn
),
calls AS (
    SELECT run_id, turn, list({'tool': tool, 'arguments': arguments::JSON, 'result': result, 'value': value::JSON,
        'error': error_message} ORDER BY seq, ordinal) AS calls
    FROM tool_calls
    GROUP BY run_id, turn
)
SELECT
    d.run_id, d.turn, d.time, d.agent, q.agent_version, d.type, d.tools, d.decision,
    m.prompt, m.provider, m.model, m.response_model, m.parameters, m.tools AS tools_offered, m.output_schema,
    m.messages, m.text AS reply_text, m.tool_calls AS reply_calls, m.raw, m.finish_reason, m.response_id,
    m.input_tokens, m.output_tokens, m.cost_usd, m.latency_ms,
    p.tokens AS packet_tokens, p.token_limit, p.items, p.omitted,
    checks.validations, gates.gates, calls.calls,
    r.status AS run_status, r.reason AS stop_reason, r.output AS run_output
FROM decisions AS d
LEFT JOIN run_requests AS q USING (run_id)
LEFT JOIN asked AS m USING (run_id, turn)
LEFT JOIN shown AS p USING (run_id, turn)
LEFT JOIN checks USING (run_id, turn)
LEFT JOIN gates USING (run_id, turn)
LEFT JOIN calls USING (run_id, turn)
LEFT JOIN ends AS r USING (run_id);
