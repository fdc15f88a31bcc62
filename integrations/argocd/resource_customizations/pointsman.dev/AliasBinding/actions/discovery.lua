local status = obj.status or {}
local suspended = obj.spec.suspend == true
local held = status.hold ~= nil
local failed = status.heldBack ~= nil or status.postponed ~= nil
local pinned = obj.spec.pinnedVersion ~= nil
local running = status.running ~= nil
local awaits = false
for _, condition in ipairs(status.conditions or {}) do
  awaits = awaits or (condition.type == "Ready" and condition.reason == "AwaitingApproval")
end
return {
  ["approve"] = { ["disabled"] = not awaits },
  ["pin"] = { ["disabled"] = pinned or not running },
  ["reapply"] = { ["disabled"] = suspended or not running },
  ["refresh"] = { ["disabled"] = suspended },
  ["resume"] = { ["disabled"] = not (suspended or held) },
  ["retry"] = { ["disabled"] = suspended or not failed },
  ["suspend"] = { ["disabled"] = suspended },
  ["unpin"] = { ["disabled"] = not pinned },
}
