local suspended = obj.spec.suspend == true
return {
  ["refresh"] = { ["disabled"] = suspended },
  ["resume"] = { ["disabled"] = not suspended },
  ["suspend"] = { ["disabled"] = suspended },
}
