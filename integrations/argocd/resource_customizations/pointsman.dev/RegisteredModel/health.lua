-- The conditions Ready, Reconciling and Stalled have the meaning of kstatus.
local conditions = {}
if obj.status ~= nil then
  for _, condition in ipairs(obj.status.conditions or {}) do
    conditions[condition.type] = condition
  end
end

local ready = conditions["Ready"]
if ready == nil or ready.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "Pointsman has not observed this spec yet" }
end

-- People chose that nothing goes forward.
local by_choice = { AwaitingApproval = true, Frozen = true, Held = true, OutsideWindow = true, Suspended = true }
local health = { message = ready.message }
local stalled = conditions["Stalled"]
if by_choice[ready.reason] then
  health.status = "Suspended"
elseif ready.status == "True" then
  health.status = "Healthy"
elseif stalled ~= nil and stalled.status == "True" then
  health.status = "Degraded"
else
  health.status = "Progressing"
end
return health
