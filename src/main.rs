//! The `pointsman` binary.
fn main() {
    for crd in pointsman::api::custom_resource_definitions() {
        println!("---\n{}", serde_saphyr::to_string(&crd).unwrap_or_default());
    }
}
