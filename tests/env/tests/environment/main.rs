//! The environment tests itself.
//! Absent: the operator; its scenarios are in the root crate.
use pointsman_env::*;
fn main() {
    pointsman_env::leash_if_asked();
    let cache = cache::Cache::open().unwrap();
    let tools = Tools::locate(&cache).unwrap();
    println!("{tools:?}");
    let rt = tokio::runtime::Runtime::new().unwrap();
    rt.block_on(async {
        let t = std::time::Instant::now();
        let cp = ControlPlane::start(&tools, ControlPlaneOptions::default()).await.unwrap_or_else(|e| panic!("{e}"));
        println!("up in {:?}", t.elapsed());
        println!("{}", cp.kubectl(&["get", "nodes", "-o", "wide"]).await.unwrap());
        println!("{}", cp.kubectl(&["version"]).await.unwrap());
        let t = std::time::Instant::now();
        for play in ["ready", "slow", "never-ready", "crash", "flaky", "image-pull", "init-crash", "lose-readiness"] {
        cp.kubectl_with_input(&["apply", "-f", "-"], &format!(r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {play}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: {play}}}}}
  template:
    metadata: {{labels: {{app: {play}}}, annotations: {{kwok.test/play: "*={play}"}}}}
    spec:
      initContainers: [{{name: i, image: x}}]
      containers: [{{name: server, image: x}}]
"#)).await.unwrap();
        }
        println!("{}", cp.kubectl(&["wait", "--for=condition=Available", "deploy/ready", "--timeout=30s"]).await.unwrap());
        println!("available in {:?}", t.elapsed());
        for _ in 0..5 {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        println!("{}", cp.kubectl(&["get", "pods"]).await.unwrap());
        }
        println!("{}", cp.kubectl(&["get", "pods", "-o", "yaml", "-l", "app=crash"]).await.unwrap());
        println!("{}", cp.log_tails());
        let t = std::time::Instant::now();
        cp.stop();
        println!("down in {:?}", t.elapsed());
    });
}
