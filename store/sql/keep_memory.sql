INSERT INTO memories (
  memory_id, tenant_id, scope, owner, name, state, at, expires_at, run_id, step, agent, version, principal, words, sealed
) VALUES (
  :memory_id, :tenant, :scope, :owner, :name, 'kept', :at, :expires_at, :run_id, :step, :agent, :version, :principal,
  :words, :sealed
) RETURNING num
