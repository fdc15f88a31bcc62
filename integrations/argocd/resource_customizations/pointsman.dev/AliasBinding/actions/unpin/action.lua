obj.spec.pinnedVersion = nil
return obj
