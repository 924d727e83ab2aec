-- The life of a run, one row for each thing that happened to it. Rows are only ever added.

CREATE TABLE run_requests (  -- a run was accepted, with all that was fixed then
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when it was accepted
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree; itself for a root
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR NOT NULL,             -- the agent or workflow that runs
    parent_run_id VARCHAR,              -- the run that started it; null for a root
    agent_version VARCHAR,              -- the version of its definition that the run is pinned to
    kind VARCHAR,                       -- agent or workflow
    principal_id VARCHAR,               -- on whose behalf
    route VARCHAR,                      -- how it came in: cli, http, ...
    job_id VARCHAR,                     -- the batch it belongs to
    session_id VARCHAR,                 -- the conversation it belongs to
    instance_id VARCHAR,                -- the long-lived agent instance it belongs to
    input_id VARCHAR,                   -- id of its input row
    model VARCHAR,                      -- the model asked for; null: the agent's own
    pool VARCHAR,                       -- the pool of hosts it waits in
    queue VARCHAR,                      -- the queue whose limits hold for it; null: none
    priority INTEGER,                   -- higher goes first
    depth INTEGER,                      -- levels below the root
    budget VARIANT,                     -- limits: steps, hops, tokens, usd, seconds, depth, width
    deadline TIMESTAMPTZ,               -- when it must have ended
    idempotency_key VARCHAR,            -- the submitter's key
    effect_scope VARCHAR,               -- seed of the idempotency keys of its effects
    forked_from VARCHAR,                -- the run it shares its past with, and up to where: run@step
    group_key VARCHAR,                  -- the parent's step that started it
    group_index INTEGER,                -- its place among the children of that step
    trace_id VARCHAR,                   -- 32 hex digits
    span_id VARCHAR,                    -- the run's own span, 16 hex digits
    parent_span_id VARCHAR,             -- the span it stands under
    at_ns BIGINT NOT NULL,              -- when it was accepted, Unix ns
    input VARIANT                       -- what it was given, redacted
);

CREATE TABLE leases (  -- a host took the run; rows of a higher epoch are its doing
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when it was taken
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent or workflow that runs
    epoch BIGINT NOT NULL,              -- the fencing number; grows with every lease
    host_id VARCHAR,                    -- the incarnation of the host process
    actor_id VARCHAR,                   -- the actor it lives in; null for a host without one
    pid INTEGER,                        -- its process id
    node VARCHAR,                       -- the machine
    at_ns BIGINT NOT NULL               -- when it was taken, Unix ns
);

CREATE TABLE parks (  -- the run began to wait, holding nothing
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when it began to wait
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent or workflow that runs
    status VARCHAR NOT NULL,            -- waiting, waiting_for_input or waiting_for_approval
    reason VARCHAR NOT NULL,            -- why it waits
    waits VARCHAR[],                    -- keys of the steps it waits for
    wake_at TIMESTAMPTZ                 -- when it goes on in any case
);

CREATE TABLE run_results (  -- the run ended
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when it ended
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent or workflow that ran
    status VARCHAR NOT NULL,            -- completed, failed or canceled
    reason VARCHAR NOT NULL,            -- the stop reason
    steps INTEGER,                      -- model turns, its children's included
    hops INTEGER,                       -- capability calls, its children's included
    input_tokens BIGINT,                -- tokens read by models, its children's included
    output_tokens BIGINT,               -- tokens written by models, its children's included
    cost_usd DECIMAL(18,6),             -- dollars spent, its children's included
    error_reason VARCHAR,               -- stop reason the error led to
    error_code VARCHAR,                 -- short stable word for the error
    error_message VARCHAR,              -- the error in words, redacted
    retryable BOOLEAN,                  -- whether a retry may help
    confidence DOUBLE,                  -- how sure the answer is, where the agent says so
    facts VARIANT,                      -- what else was noted at the end
    output VARIANT                      -- the result, redacted
);

CREATE TABLE retries (  -- a failed run was queued again; its result before counts no more
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent or workflow that runs
    number INTEGER NOT NULL,            -- its how-manieth retry, from 1
    retried_by VARCHAR NOT NULL,        -- who asked for it
    again VARCHAR,                      -- key of the step that is made anew; null: none is
    version VARCHAR                     -- the version it goes on with; null: as before
);

CREATE TABLE checkpoints (  -- continue as new from here; the state itself stays in the journal
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when it was written
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent or workflow that runs
    name VARCHAR NOT NULL,              -- its name
    number INTEGER NOT NULL,            -- its number within the run
    steps INTEGER,                      -- model turns so far
    hops INTEGER,                       -- capability calls so far
    input_tokens BIGINT,                -- tokens read so far
    output_tokens BIGINT,               -- tokens written so far
    cost_usd DECIMAL(18,6)              -- dollars so far
);

CREATE TABLE handoffs (  -- another agent continues the work
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when it was handed over
    run_id VARCHAR NOT NULL,            -- the run that hands over
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent that runs
    from_agent VARCHAR,                 -- who hands over
    to_agent VARCHAR,                   -- who continues
    facts VARIANT,                      -- what else was noted
    content VARIANT                     -- what was handed over, redacted
);

CREATE TABLE follow_ups (  -- work that a finished run left for afterwards
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when the run ended
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent or workflow that ran
    number INTEGER NOT NULL,            -- its place in the list, from 0
    follow_up VARIANT                   -- what is to be done, redacted
);

CREATE TABLE dead_letters (  -- an input that could not become a run, or a run that failed for good
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when it was given up
    run_id VARCHAR NOT NULL,            -- the run that failed, or that was reading the input
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent or workflow concerned
    source VARCHAR NOT NULL,            -- the file or stream of the input; "run" for a failed run
    line BIGINT,                        -- its line, from 1; null for a failed run
    reason VARCHAR NOT NULL,            -- short stable word, or the stop reason
    message VARCHAR,                    -- what was wrong, redacted
    content VARIANT                     -- the input as far as it could be read, redacted
);
