-- Ends a suspension and the hold of a change by hand.
local os = require("os")
obj.spec.suspend = false
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["pointsman.dev/resume-requested-at"] = os.date("!%Y-%m-%dT%H:%M:%SZ")
return obj
