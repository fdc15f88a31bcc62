-- The reason and the ticket are those of the approval before.
local annotations = obj.metadata.annotations
if annotations ~= nil then
  annotations["pointsman.dev/approval-reason"] = nil
  annotations["pointsman.dev/approval-ticket"] = nil
  if next(annotations) == nil then
    obj.metadata.annotations = nil
  end
end
obj.spec.promotion.approvedVersion = obj.status.wanted
return obj
