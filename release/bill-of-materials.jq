# From `cargo metadata` to a CycloneDX bill of materials of the program and its packages, $packages as ["name@version", …].
# Absent: hashes; Cargo.lock has them.
(.packages | map(select("\(.name)@\(.version)" | IN($packages[]))) | INDEX(.id)) as $all
| (.resolve.nodes | INDEX(.id)) as $nodes
| def reference($id): $all[$id] | "pkg:cargo/\(.name)@\(.version)";
  def links($id): [$nodes[$id].deps[] | select(any(.dep_kinds[]; .kind == null)) | .pkg | select($all[.])];
  def component($id; $type): $all[$id]
    | {type: $type, "bom-ref": reference($id), name, version, purl: reference($id)}
      + (if .license then {licenses: [{expression: (.license | gsub("/"; " OR "))}]} else {} end);
  ($all | map(select(.name == "pointsman"))[0].id) as $root
| {
    bomFormat: "CycloneDX",
    specVersion: "1.6",
    version: 1,
    metadata: {timestamp: $time, component: component($root; "application")},
    components: [$all | keys[] | select(. != $root) | component(.; "library")],
    dependencies: [$all | keys[] | {ref: reference(.), dependsOn: ([links(.)[] | reference(.)] | unique)}]
  }
