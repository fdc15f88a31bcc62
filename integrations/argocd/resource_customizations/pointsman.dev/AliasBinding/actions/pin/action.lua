obj.spec.pinnedVersion = obj.status.running.version
return obj
