-- What a run saw, decided and was allowed to do.

CREATE TABLE decisions (  -- what the model decided, as the typed protocol reads it
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent that decided
    turn INTEGER,                       -- the model call it comes from, from 0
    type VARCHAR,                       -- answer, tool_calls, ask_human, handoff, stop or invalid
    tools VARCHAR[],                    -- the capabilities it wants called
    decision VARIANT                    -- the decision, redacted
);

CREATE TABLE context_packets (  -- what the model was shown for one decision
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent
    turn INTEGER,                       -- the model call it was built for, from 0
    tokens BIGINT,                      -- estimated tokens of the packet
    token_limit BIGINT,                 -- the packet's budget
    items INTEGER,                      -- items considered
    omitted INTEGER,                    -- items left out
    messages JSON                       -- the messages, where they are recorded apart from the model call, redacted
);

CREATE TABLE context_items (  -- one item considered for a packet, shown or not
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent
    turn INTEGER,                       -- the model call the packet was built for
    number INTEGER NOT NULL,            -- its place in the packet's account, from 0
    source VARCHAR,                     -- its stable address, such as observation:o4
    kind VARCHAR,                       -- instructions, goal, input, observation, message, tool, evidence or state
    tokens BIGINT,                      -- estimated tokens
    included BOOLEAN,                   -- whether the model was shown it
    reason VARCHAR,                     -- why not
    fresh_at TIMESTAMPTZ                -- how fresh it is; null for what does not age
);

CREATE TABLE observations (  -- what the run has seen
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent
    turn INTEGER,                       -- the model call that led to it
    observation_id VARCHAR,             -- its id within the run
    kind VARCHAR,                       -- model, tool, policy, human or system
    result VARCHAR,                     -- ok, refused or error
    name VARCHAR,                       -- the capability concerned
    call_id VARCHAR,                    -- the model's id of the call
    summary VARCHAR,                    -- in words, redacted
    data VARIANT                        -- in full, redacted
);

CREATE TABLE validations (  -- a decision, argument or answer was checked
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent
    turn INTEGER,                       -- the model call concerned
    what VARCHAR,                       -- what was checked
    ok BOOLEAN,                         -- whether it passed
    errors VARCHAR[]                    -- what was wrong, redacted
);

CREATE TABLE policy_decisions (  -- the gate decided a stage
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent or workflow
    key VARCHAR,                        -- the step's key, where a step was decided
    turn INTEGER,                       -- the model call concerned
    call_id VARCHAR,                    -- the model's id of the call concerned
    stage VARCHAR,                      -- request, context, model, capability, output or memory
    resource VARCHAR,                   -- the capability, model or agent concerned
    outcome VARCHAR,                    -- allow, deny or approval_required
    reason VARCHAR,                     -- why, redacted
    rules VARCHAR[],                    -- ids of the rules that decided
    hits JSON,                          -- each rule with its outcome and reason
    policy_digest VARCHAR,              -- hash of the rules in force
    micros BIGINT                       -- microseconds it took
);

CREATE TABLE events (  -- everything else worth knowing: stages, signals, what other code recorded
    seq BIGINT NOT NULL,                -- the journal's order of commit
    ordinal INTEGER NOT NULL,           -- place of the entry within its append
    time TIMESTAMPTZ NOT NULL,          -- when
    run_id VARCHAR NOT NULL,            -- the run
    root_run_id VARCHAR NOT NULL,       -- the run at the top of its tree
    tenant_id VARCHAR NOT NULL,         -- whose run it is
    agent VARCHAR,                      -- the agent or workflow
    turn INTEGER,                       -- the model call concerned
    topic VARCHAR NOT NULL,             -- what it is about
    name VARCHAR,                       -- the stage or signal
    facts VARIANT,                      -- what was noted
    content VARIANT                     -- what was said, redacted
);
