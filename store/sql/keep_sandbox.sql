INSERT INTO sandboxes (sandbox_id, run, place, trace_id, manifest, status, node, changed_at, closed_at, state)
VALUES (:sandbox_id, :run, :place, :trace_id, :manifest, :status, :node, :changed_at, :closed_at, :state)
ON CONFLICT (sandbox_id) DO UPDATE SET status = excluded.status, node = excluded.node,
  changed_at = excluded.changed_at, closed_at = excluded.closed_at, state = excluded.state
