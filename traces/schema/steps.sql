-- The effects of a run: what was about to happen, each try that failed, and what came of it.

CREATE TABLE intents (  -- an effect was about to happen; its end is a row of spans
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when it was written
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent or workflow that runs
    key VARCHAR NOT NULL,               -- the step's key within the run
    effect VARCHAR NOT NULL,            -- model, call, children, timer, approval, input, event, step, adopt, remember, recall, forget or gate
    name VARCHAR NOT NULL,              -- the model, capability, agent, ... concerned
    digest VARCHAR,                     -- hash of the arguments
    reserved_tokens BIGINT,             -- tokens held in reserve until it ends
    reserved_usd DECIMAL(18,6)          -- dollars held in reserve until it ends
);

CREATE TABLE attempts (  -- one try of a step failed and another was to follow
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when the try failed
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent or workflow that runs
    key VARCHAR NOT NULL,               -- the step's key
    number INTEGER NOT NULL,            -- which try it was
    error_reason VARCHAR,               -- stop reason such an error leads to
    error_code VARCHAR,                 -- short stable word for the error
    error_message VARCHAR,              -- the error in words, redacted
    not_before TIMESTAMPTZ,             -- the next try is not earlier
    input_tokens BIGINT,                -- tokens read by the try
    output_tokens BIGINT,               -- tokens written by the try
    cost_usd DECIMAL(18,6)              -- dollars the try is charged with
);

CREATE TABLE spans (  -- every run and every step that ended, named as OpenTelemetry's GenAI conventions name them
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when it ended
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent or workflow that runs
    parent_run_id VARCHAR,              -- the run that started this run
    agent_version VARCHAR,              -- the version of the agent's definition
    job_id VARCHAR,                     -- the batch the run belongs to
    session_id VARCHAR,                 -- the conversation the run belongs to
    trace_id VARCHAR NOT NULL,          -- 32 hex digits
    span_id VARCHAR NOT NULL,           -- 16 hex digits
    parent_span_id VARCHAR,             -- the span above; null at the top
    key VARCHAR,                        -- the step's key; null for the run's own span
    effect VARCHAR NOT NULL,            -- run, or the kind of step as in intents
    operation VARCHAR NOT NULL,         -- invoke_agent, invoke_workflow, chat, execute_tool, retrieval, spawn, ...
    name VARCHAR NOT NULL,              -- operation and what it is about
    kind VARCHAR NOT NULL,              -- internal or client
    start_time TIMESTAMPTZ NOT NULL,    -- when it began
    start_ns BIGINT NOT NULL,           -- when it began, Unix ns
    end_ns BIGINT NOT NULL,             -- when it ended, Unix ns
    duration_ms DOUBLE NOT NULL,        -- from begin to end
    status VARCHAR NOT NULL,            -- ok, error or unset (canceled)
    result VARCHAR NOT NULL,            -- ok, refused, error, unknown or canceled; a run's stop reason
    error_type VARCHAR,                 -- short stable word for the error
    error_message VARCHAR,              -- the error in words, redacted
    provider VARCHAR,                   -- who served the model
    model VARCHAR,                      -- the model asked
    turn INTEGER,                       -- model call of the run it belongs to, from 0
    input_tokens BIGINT,                -- tokens read by the last try; for a run in all, with its children's
    output_tokens BIGINT,               -- tokens written by the last try; for a run in all, with its children's
    cost_usd DECIMAL(18,6),             -- dollars spent by the last try; for a run in all, with its children's
    attempts INTEGER,                   -- tries it took, 1 when the first one succeeded
    activation BIGINT,                  -- equal numbers were delivered to the run together; 0: not delivered
    epoch BIGINT,                       -- the lease under which it ended
    host_id VARCHAR,                    -- the host process that ran it
    actor_id VARCHAR,                   -- its actor
    pid INTEGER,                        -- its process id
    node VARCHAR,                       -- its machine
    semconv VARCHAR NOT NULL,           -- version of the semantic conventions of the attributes
    attributes VARIANT                  -- gen_ai.* and retinue.* attributes as exported over OTLP
);

CREATE TABLE model_calls (  -- a model was asked and the asking ended
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when it ended
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent that asked
    span_id VARCHAR NOT NULL,           -- its row in spans
    key VARCHAR NOT NULL,               -- the step's key
    turn INTEGER,                       -- number of the model call in the run, from 0
    provider VARCHAR,                   -- who served the model
    model VARCHAR,                      -- the model asked
    response_model VARCHAR,             -- the model that answered, as the endpoint names it
    prompt VARCHAR,                     -- the prompt template and its version
    parameters VARIANT,                 -- temperature, seed, ... as sent
    tools VARCHAR[],                    -- the tools disclosed
    messages JSON,                      -- the full prompt, redacted
    output_schema JSON,                 -- JSON Schema asked for; null for free text
    text VARCHAR,                       -- the reply's text, redacted
    tool_calls JSON,                    -- the calls the reply asks for, redacted
    raw JSON,                           -- the endpoint's own reply, redacted
    finish_reason VARCHAR,              -- stop, tool_calls, length, content_filter or other
    response_id VARCHAR,                -- the endpoint's id of the reply
    result VARCHAR NOT NULL,            -- ok, refused, error, unknown or canceled
    error_code VARCHAR,                 -- short stable word for the error
    error_message VARCHAR,              -- the error in words, redacted
    input_tokens BIGINT,                -- tokens read
    output_tokens BIGINT,               -- tokens written
    cost_usd DECIMAL(18,6),             -- dollars
    priced BOOLEAN,                     -- false when no price is known for the model
    latency_ms DOUBLE,                  -- of the call, as the client measured it
    first_token_ms DOUBLE               -- until the first piece of a streamed reply
);

CREATE TABLE tool_calls (  -- a capability was called and the calling ended
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when it ended
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent that called
    span_id VARCHAR NOT NULL,           -- its row in spans
    key VARCHAR NOT NULL,               -- the step's key
    turn INTEGER,                       -- the model call that asked for it
    call_id VARCHAR,                    -- the model's id of the call
    tool VARCHAR NOT NULL,              -- the capability
    version VARCHAR,                    -- its version
    source VARCHAR,                     -- native, or the server it comes from
    side_effect VARCHAR,                -- read, draft or write
    idempotency VARCHAR,                -- idempotent, reconcilable or at_most_once
    gate VARCHAR,                       -- what the gate said: allow, deny or approval_required
    arguments VARIANT,                  -- what it was called with, redacted
    edited_by VARCHAR,                  -- who approved it with other arguments than it was asked for with; null: nobody
    asked_digest VARCHAR,               -- then: hash of name, version and arguments that were asked for
    called_digest VARCHAR,              -- then: hash of name, version and arguments it was made with
    value VARIANT,                      -- what it returned, redacted
    result VARCHAR NOT NULL,            -- ok, refused, error, unknown or canceled
    error_code VARCHAR,                 -- short stable word for the error
    error_message VARCHAR,              -- the error in words, redacted
    size_bytes BIGINT,                  -- bytes of the value's JSON
    cut BOOLEAN,                        -- whether the size cap cut the value short
    duration_ms DOUBLE,                 -- from intent to outcome
    execution_us BIGINT,                -- microseconds inside the capability
    cost_usd DECIMAL(18,6)              -- dollars
);

CREATE TABLE memory_writes (  -- memory was written, or the writing was refused
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when it ended
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent or workflow that wrote
    span_id VARCHAR NOT NULL,           -- its row in spans
    key VARCHAR NOT NULL,               -- the step's key
    turn INTEGER,                       -- the model call that proposed it
    call_id VARCHAR,                    -- the model's id of the proposal
    action VARCHAR NOT NULL,            -- remember or forget
    memory_id VARCHAR,                  -- the memory that was kept
    scope VARCHAR,                      -- whose memory: agent, principal, tenant or instance
    owner VARCHAR,                      -- the name of that agent, principal or instance
    name VARCHAR,                       -- its key, or what was to be forgotten, redacted
    tags VARCHAR[],                     -- its tags, redacted
    content VARIANT,                    -- what was to be kept, redacted
    expires_at TIMESTAMPTZ,             -- when it is recalled no more
    forgotten BIGINT,                   -- how many memories were forgotten
    result VARCHAR NOT NULL,            -- ok, refused, error, unknown or canceled
    error_code VARCHAR,                 -- short stable word for the error
    error_message VARCHAR,              -- the error in words, redacted
    duration_ms DOUBLE                  -- from intent to outcome
);

CREATE TABLE requests (  -- a person was asked for an approval or an input
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when it was asked
    run_id VARCHAR NOT NULL,            -- the run that waits
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent or workflow that runs
    key VARCHAR NOT NULL,               -- the step's key
    span_id VARCHAR NOT NULL,           -- the row in spans that its end will have
    request_id VARCHAR,                 -- id of the request
    kind VARCHAR NOT NULL,              -- approval or input
    name VARCHAR,                       -- the capability to be approved, or the question's name
    prompt VARCHAR,                     -- what was asked, redacted
    facts VARIANT,                      -- what else was noted
    content VARIANT                     -- the arguments to be approved, redacted
);

CREATE TABLE answers (  -- a request was resolved
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when the run saw the answer
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent or workflow that runs
    key VARCHAR NOT NULL,               -- the step's key
    span_id VARCHAR NOT NULL,           -- its row in spans
    request_id VARCHAR,                 -- id of the request
    kind VARCHAR NOT NULL,              -- approval or input
    status VARCHAR NOT NULL,            -- approved, denied, answered or withdrawn
    answered_by VARCHAR,                -- who
    facts VARIANT,                      -- what else was noted
    value VARIANT                       -- what was answered, redacted
);
